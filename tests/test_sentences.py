"""Sentences: nothing is lost, lines are paragraphs, and what looks like an end is not always one."""

import builtins
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.errors import UserError
from corpora.sentences import LANGUAGES, PunktSegmenter, RuleSegmenter, Segmenter, build_segmenter

# Each line is a paragraph, each | the end of a sentence inside it.
ENGLISH = """\
Dr. Smith met Mrs. Jones at 5 p.m. on Jan. 3, 2004.| They talked for 2.5 hours about J. R. Hartley.
The firm, Acme Inc. of Delaware, grew.| It moved to the U.S. in May.| The U.S. Army bought it.
"Is it true?" she asked.| "No!" he cried.| "It can't be."| Then he left (quietly).| (Nobody saw him.)| So it goes.
See fig. 4 and pp. 12-14, e.g. the table, i.e. Nothing else.| Version 3.1 is out at www.example.com today.
Wait... what?| Really?!| Yes.| 42 is the answer.
1. Mix the flour.
it was great.| i would go again!!| would you?| maybe :) who knows
He was born in 1990.| In 1991 he moved.| We ate pies, cakes, etc.| The rest was kept.
It was fun! :)| We went home.
"""
OTHERS = {
    "it": "Il sig. Rossi e il dott. Bianchi sono arrivati.| Hanno visto pag. 12.| Che bello!| «Davvero?» disse.",
    "de": "Am 3. Oktober kam Dr. Meier z. B. mit dem Zug.| Das war ca. 1990.| Er ging.",
    "fr": "M. Dupont et Mme. Durand sont venus.| « Vraiment ? »| Il est parti, cf. Martin.",
    "es": "El Sr. Pérez llegó a las 3.| ¿Cómo está Ud. Juan?| ¡Bien!| La Dra. Gil salió.",
    "ja": "猫がいる。|犬も好き\uff01|「本当\uff1f」と彼は言った。|そうだ。",
    "zh": "我来了。|你呢\uff1f|“好。”|走吧。",
    "any": "Mr.| Two.| Three!",
}
TRAINING_TEXT = "The visit of Dr. Brown was short. He left. Mr. Grey stayed. It rained. We saw Dr. Brown again.\n" * 20


@pytest.fixture(scope="module", params=["rules", "punkt"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return build_segmenter(request.param, "en", lambda: iter([TRAINING_TEXT]))


def cut(segmenter: Segmenter, text: str) -> list[str]:
    return [text[start:end] for start, end in segmenter.split(text)]


def check_nothing_is_lost(segmenter: Segmenter, text: str) -> None:
    at = 0
    for start, end in segmenter.split(text):
        assert at <= start < end
        assert text[at:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        assert "\n" not in text[start:end]
        at = end
    assert text[at:].strip() == ""


@given(st.text() | st.text(alphabet="aA1.!?…。\uff01! \n\t\r\u2028\u00a0\"')»:)「」", max_size=60))
def test_nothing_but_white_space_is_outside_the_spans(text: str) -> None:
    for language in ("en", "de", "ja"):
        check_nothing_is_lost(RuleSegmenter(language), text)


@given(st.text() | st.text(alphabet="aA1.!? \n\r\u2028\u00a0\"')", max_size=60))
def test_punkt_loses_nothing_either(text: str) -> None:
    check_nothing_is_lost(PUNKT, text)


PUNKT = PunktSegmenter(iter([TRAINING_TEXT]))


@pytest.mark.parametrize("line", ENGLISH.splitlines())
def test_english_ends_where_a_reader_says(line: str) -> None:
    assert cut(RuleSegmenter(), line.replace("|", "")) == [sentence.strip() for sentence in line.split("|")]


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_end_where_a_reader_says(language: str) -> None:
    expected = [sentence.strip() for sentence in OTHERS[language].split("|")]
    assert cut(RuleSegmenter(language), OTHERS[language].replace("|", "")) == expected


def test_a_sentence_never_crosses_a_line(segmenter: Segmenter) -> None:
    text = "A heading without a stop\nand a line in lower case.\r\n\n  Mr.\nBrown came  \n"
    assert cut(segmenter, text) == ["A heading without a stop", "and a line in lower case.", "Mr.", "Brown came"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\n"])
def test_empty_text_has_no_sentences(segmenter: Segmenter, text: str) -> None:
    assert segmenter.split(text) == []


def test_punkt_learns_an_abbreviation_of_the_text() -> None:
    text = "We keep the qx. Meter here. It is the qx. Counter of the house. A qx. Gauge came. He left. The qx. broke. "
    assert any(sentence.endswith("qx.") for sentence in cut(RuleSegmenter(), text))
    assert not any(sentence.endswith("qx.") for sentence in cut(PunktSegmenter(iter([text * 30])), text))


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        ".",
        "!?",
        "....x",
        '."',
        "!)",
        ". (",
        "A. ",
        ". ",
        "a \n",
        " ",
        "(",
        "Mr. Smith ",
        "a! :) ",
        "。",
        ".»",
        "x" * 50 + ".",
    ],
)
def test_time_is_linear_in_the_length_of_a_line(piece: str) -> None:
    def measure(length: int) -> float:
        text = piece * (length // len(piece))
        times = []
        for _ in range(3):
            began = time.process_time()
            RuleSegmenter().split(text)
            times.append(time.process_time() - began)
        return min(times)

    assert measure(160_000) < 8 * 3 * measure(20_000) + 0.05  # 64 times as long if it were quadratic


def test_unknown_names_are_told_what_is_known() -> None:
    with pytest.raises(UserError, match="known: rules, punkt"):
        build_segmenter("spacy", "en", lambda: iter([]))
    with pytest.raises(UserError, match="known: en, it, de, fr, es, any"):
        RuleSegmenter("tlh")
    assert all(RuleSegmenter(language).name.endswith(language) for language in LANGUAGES)


def test_rules_do_not_read_the_corpus() -> None:
    def refuse() -> Iterator[str]:
        raise AssertionError("the corpus was read")

    assert build_segmenter("rules", "en", refuse).split("Yes.") == [(0, 4)]


def test_punkt_without_nltk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **keywords: Any) -> Any:
        if name.startswith("nltk"):
            raise ImportError(name)
        return real_import(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install -e '\.\[punkt\]'"):
        PunktSegmenter(iter(["Some text."]))


def test_punkt_without_text_is_an_error() -> None:
    with pytest.raises(UserError, match="no text"):
        PunktSegmenter(iter([]))
