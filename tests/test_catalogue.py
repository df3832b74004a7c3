"""The front of the catalogue: the table, each entry, and examples as people read them."""

import dataclasses
import html
import inspect
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

import pretrain
from corpora.errors import UserError
from generators import GENERATORS
from objectives import FAMILIES, OBJECTIVES, Objective, build_objectives
from objectives.__main__ import main
from objectives.catalogue import (
    Size,
    cost_of,
    describe_heads,
    describe_objective,
    find_paper,
    read_catalogue,
    read_options,
    split_docstring,
    write_markdown,
)
from objectives.heads import DetectionHead
from tests.small_runs import write_text
from training.config import Config
from training.example_text import Token, Words, find_removed, legible, phrase
from training.examples import make_examples
from training.show import main as show
from training.show import read_settings
from training.show_html import write_page
from training.stream import Stream

ROOT = Path(pretrain.__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capitalisation(Objective):
    """Tell which words were lower-cased (Di Mano and E. Other, 2031, section 2, https://example.org/1).

    `is_lowered` is 1 where a capital went. `rate` of the words are tried.
    """

    name = "capitalisation"
    labels = {"is_lowered": ("as_written", "lowered")}

    try_rate: float = 0.3  # of the words, as in the paper
    rate: int = 2
    depth: str = "deep"
    """How deep
    it goes."""

    def build_head(self, setting):
        return DetectionHead(setting.config, "is_lowered")

    def chance(self, statistics):
        return {"ln 2": np.log(2)}


def test_an_entry_is_read_off_the_class():
    entry = describe_objective("capitalisation", Capitalisation, "token detection")
    assert entry.summary == "Tell which words were lower-cased"
    assert (entry.paper, entry.url) == ("Di Mano and E. Other, 2031", "https://example.org/1")
    assert (entry.asked, entry.head) == ("is_lowered: as_written, lowered", "detection")
    assert entry.details == "`is_lowered` is 1 where a capital went. `rate` of the words are tried."
    options = [(option.name, option.default, option.meaning) for option in entry.options]
    assert options == [
        ("try_rate", "0.3", "of the words, as in the paper"),
        ("rate", "2", "`rate` of the words are tried"),
        ("depth", "deep", "How deep it goes."),
        ("weight", "1.0", "of its loss"),
    ]


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        ("Tell it (Devlin et al., 2019, section 3.1).", "Devlin et al., 2019"),
        ("As Clark et al. (2020) do, and Lee et al., 2021.", "Clark et al., 2020"),
        ("After Di Liello et al., 2022.", "Di Liello et al., 2022"),
        ("Of Gao and Yao, 2021b, page 3.", "Gao and Yao, 2021b"),
        ("First Old et al., 1999; then New et al., 2020, https://x.org/2: more.", "New et al., 2020"),
        ("Since 2019 nobody knows, nor do 1500 Tests.", ""),
    ],
)
def test_the_paper_is_the_first_citation(text, paper):
    assert find_paper(type("Cited", (), {"__doc__": text}))[0] == paper


def test_the_summary_is_the_first_sentence_without_its_source():
    plugin = type(
        "Plugin", (), {"__doc__": "Name e.g. the lot (Li et al., 2020, https://x.org/a.b). More\nof it.\n\nEnd."}
    )
    assert split_docstring(plugin) == ("Name e.g. the lot", "More of it.\n\nEnd.")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_summary_a_paper_a_target_and_a_head(name):
    entry = describe_objective(name, OBJECTIVES[name])
    assert 15 <= len(entry.summary) <= 110, entry.summary
    assert entry.paper and entry.asked and entry.head and 0.5 < entry.cost < 10
    assert entry.url.startswith("https://")


@pytest.mark.parametrize("name", [*OBJECTIVES, *GENERATORS])
def test_every_option_has_a_meaning(name):
    plugin = {**OBJECTIVES, **GENERATORS}[name]
    assert [option.name for option in read_options(plugin) if not option.meaning] == []


def test_the_costs_of_the_tiny_encoder_are_those_of_the_arithmetic():
    """In units of the squared width: a pass 4 x (10 + 2), a name 1 + 64; of a generator 4 x (10/16 + 2/4), 16.25."""
    mlm = 48 + 0.15 * 65
    assert Size().one_pass() == 48 * 128**2 and Size().name_token() == 65 * 128**2
    assert cost_of(OBJECTIVES["mlm"], Size()) == pytest.approx(1)
    assert cost_of(OBJECTIVES["nsp"], Size()) == pytest.approx(48 / mlm)
    assert cost_of(OBJECTIVES["rtd"], Size()) == pytest.approx((48 + 4.5 + 0.15 * 16.25) / mlm)


def test_the_share_of_tokens_that_are_named_is_that_of_examples(corpus):
    """What the costs assume, against what is asked in 64 examples, to a tenth of the tokens."""
    small = Size(layers=1, width=1, vocabulary=10**6, length=0)  # naming is all that counts
    for name, objective in OBJECTIVES.items():
        if objective.uses_generator or describe_heads(objective) != ["masked LM"]:
            continue
        stream = Stream.open(corpus, build_objectives(name), seed=0, max_length=64)
        flat = stream.build(np.arange(64))
        asked = sum(len(target.positions) for target in flat.targets[name].values())
        share = asked / len(flat.sequences.token_ids)
        assert 0.15 * cost_of(objective, small) == pytest.approx(share, abs=0.1), name


def printed(capsys, *argv):
    assert main(argv) == 0
    return capsys.readouterr().out


def test_the_table_names_every_objective_under_its_family_at_80_columns(capsys):
    text = printed(capsys)
    assert max(map(len, text.splitlines())) <= 80
    starts = [line.split()[0] if line[:1] != " " else line.strip() for line in text.splitlines() if line.strip()]
    for family, members in FAMILIES.items():
        if members:
            assert family in starts
            assert [name for name in starts if name in members] == list(members)


@pytest.mark.parametrize("name", [*OBJECTIVES, *GENERATORS])
def test_an_entry_shows_every_option_with_its_default(capsys, name):
    text = printed(capsys, name)
    assert max(map(len, text.splitlines())) <= 80
    for field in dataclasses.fields({**OBJECTIVES, **GENERATORS}[name]):
        assert re.search(rf"^    {field.name}(={re.escape(str(field.default))}| )", text, flags=re.MULTILINE)
    assert printed(capsys, "show", name) == text


def test_a_class_of_ones_own_is_described_by_its_path(capsys):
    text = printed(capsys, "tests.test_catalogue.Capitalisation")
    assert "Tell which words were lower-cased." in text and "of the words, as in the paper" in text


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["npsp"], "error: there is no objective or generator 'npsp'; did you mean 'nsp'? Known: mlm, "),
        (["nowhere.Thing"], "error: objective 'nowhere.Thing' can't be imported: "),
        (["--mardown"], "error: option --mardown is unknown"),
        (["show"], "error: no objective was named"),
        (["show", "npsp", "--seed", "1"], "error: objective 'npsp' is unknown; did you mean 'nsp'?"),
        (["show", "mlm", "--examples", "0"], "error: --examples must be at least 1"),
        (["show", "mlm", "--sed", "1"], "error: --sed is unknown; did you mean --seed?"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, problem):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(problem) and err.count("\n") == 1


@pytest.mark.slow
def test_the_readmes_table_is_that_of_the_code():
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- objectives -->") == text.count("<!-- /objectives -->") == 1
    table = text.partition("<!-- objectives -->\n")[2].partition("<!-- /objectives -->")[0]
    assert table == write_markdown(read_catalogue(FAMILIES)), "put it right: python -m objectives --markdown README.md"


@pytest.mark.slow
def test_the_table_is_put_between_its_marks_and_nowhere_else(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- objectives -->\nold\n<!-- /objectives -->\nrest\n")
    assert main(["--markdown", str(page)]) == 0
    table = printed(capsys, "--markdown")
    assert page.read_text() == f"# Page\n<!-- objectives -->\n{table}<!-- /objectives -->\nrest\n"
    page.write_text("no marks\n")
    assert main(["--markdown", str(page)]) == 2 and page.read_text() == "no marks\n"
    assert "has no place for the table" in capsys.readouterr().err
    assert main(["--markdown", str(tmp_path / "none.md")]) == 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    text = write_text(folder / "text.txt")
    text.write_text(re.sub(r"(\. [^.\n]+\.) ", r"\1\n", text.read_text()))  # two sentences a paragraph
    return {"corpus": str(text), "cache": str(folder / "cache"), "vocab_size": 200, "held_out_rate": 0.2}


def shown(settings, **changes):
    return make_examples(Config(**{**settings, "max_length": 48, "seed": 1, **changes}), first=0, count=8)


def plain(text, without=("special", "piece")):
    return "".join((" " if t.space else "") + t.text for t in text.tokens if t.kind not in without).strip()


def test_hidden_tokens_are_marked_and_asked_for(settings):
    for example in shown(settings, objective="mlm:mask_token_rate=1,random_token_rate=0"):
        text, seen = example.texts
        hidden = [token for token in seen.tokens if token.kind == "hidden"]
        restored = [t.was if t.kind == "hidden" else t.text for t in seen.tokens if t.kind != "special"]
        assert restored == [token.text for token in text.tokens]
        (question,) = example.questions
        assert question.title == "mlm, original_ids"
        assert question.answer == ", ".join(f"[MASK] -> {token.was}" for token in hidden)


def test_a_swapped_pair_shows_the_pieces_out_of_order_and_says_so(settings):
    seen = set()
    for example in shown(settings, objective="sentence_shuffle"):
        order = [token.text for token in example.texts[1].tokens if token.kind == "piece"]
        assert sorted(order) == [token.text for token in example.texts[0].tokens if token.kind == "piece"]
        answer = example.questions[0].answer
        assert answer == ("in_order" if order == sorted(order) else "shuffled")
        seen.add(answer)
    assert seen == {"in_order", "shuffled"}


def test_a_second_text_from_elsewhere_is_called_so(settings):
    for example in shown(settings, objective="nsp"):
        pieces = [token.text for token in example.texts[1].tokens if token.kind == "piece"]
        assert pieces == {"is_next": ["(1)", "(2)"], "is_random": ["(1)", "(else)"]}[example.questions[0].answer]


@pytest.mark.parametrize("generator", ["uniform", "masked_lm"])
def test_what_a_generator_filled_in_is_marked_and_is_what_is_labelled(settings, generator):
    for example in shown(settings, objective="rtd", generator=generator):
        changed = [token.text for token in example.texts[1].tokens if token.kind == "changed"]
        assert changed and not [token for token in example.texts[1].tokens if token.kind == "hidden"]
        named = example.questions[0].answer.partition(";")[0]
        assert named == ", ".join(f"{token} -> replaced" for token in changed)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_shown(settings, name):
    examples = make_examples(
        Config(**{**settings, "objective": name, "max_length": 48, "dropout": 0.1}), first=0, count=2
    )
    for example in examples:
        assert example.texts[0].title == "text"
        titles = [text.title.partition(" ")[0] for text in example.texts[1:]]
        assert set(titles) >= {"seen" if view == "main" else view for view in OBJECTIVES[name].reads}
        assert {question.title.partition(",")[0] for question in example.questions} == {name}
    assert "nothing is asked" not in {q.answer for example in examples for q in example.questions}


def test_examples_are_those_of_the_run_whatever_is_shown_beside_them(settings):
    config = Config(**{**settings, "objective": "mlm", "max_length": 48})
    assert make_examples(config, first=2, count=1)[0] == make_examples(config, first=0, count=3)[2]


def test_each_arm_of_a_mixture_is_shown(settings):
    titles = [example.title for example in shown(settings, mix="2*mlm; nsp")]
    assert titles == [f"{name}, example {number}" for name in ("mlm", "nsp") for number in range(8)]


def test_marks_need_no_colour():
    assert Token(text="hat", kind="changed", was="mat").marked == "[hat<-mat]"
    assert Token(text="[MASK]", kind="hidden", was="mat").marked == "[MASK<-mat]"
    assert Token(text="so", kind="inserted").marked == "+so+"
    assert Token(text="so", kind="removed").marked == "-so-"


def test_removed_tokens_are_found_where_they_stood():
    before, after = np.array([2, 5, 6, 7, 8, 3]), np.array([2, 6, -1, 8, 3])
    assert find_removed(before, after) == {1: [5], 3: [7]}
    assert find_removed(before, before) == {} and find_removed(before, np.insert(before, 2, -1)) == {}


def test_answers_are_told_token_by_token_and_of_many_alike_the_number():
    assert phrase([""], ["swapped"]) == "swapped"
    assert phrase(["a", "b"], ["x", "y"]) == "a -> x, b -> y"
    assert phrase([], []) == "nothing is asked"
    assert phrase(["t"] * 20, ["no"] * 18 + ["yes"] * 2) == "t -> yes, t -> yes; the other 18 -> no"
    assert phrase(["t"] * 20, ["no"] * 20) == "all 20 -> no"
    assert phrase(list("abcde"), ["no", "no", "yes", "no", "no"]) == "c -> yes; the other 4 -> no"
    assert phrase(list("abcd"), ["no"] * 4) == "a -> no, b -> no, c -> no, d -> no"
    assert phrase(list("abcdefghijklmn"), list("ABCDEFGHIJKLMN")).endswith("l -> L, and 2 more")


def test_controls_are_spelled_out():
    assert legible("a\x1b[31m\u202eb") == "a\\u001b[31m\\u202eb"


def test_the_command_prints_and_writes_a_page_that_holds_the_text_escaped(settings, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Words, "name", lambda self, token_id: "<b>&")
    options = [f"--{name}={value}" for name, value in settings.items()]
    argv = ["mlm", *options, "--max_length", "48", "--examples", "2", "--html", str(tmp_path / "page.html")]
    assert show(argv) == 0
    out, err = capsys.readouterr()
    assert err.endswith(f"page: {tmp_path}/page.html\n")
    assert out.count("mlm, original_ids: ") == 2 and "[<b>&<-<b>&]" in out
    page = (tmp_path / "page.html").read_text()
    assert "<b>" not in page and html.escape("<b>&") in page and "<script" not in page
    assert "default-src 'none'" in page and page.count("<section>") == 2 == page.count("<h2>example ")


def test_a_page_names_what_is_shown():
    assert "<h1>What nsp &lt;x&gt; makes of a text</h1>" in write_page([], Config(objective="nsp <x>"))


def test_a_page_that_cannot_be_written_is_one_line(settings, capsys):
    options = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["show", "nsp", *options, "--html", "/nowhere/page.html"]) == 4
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write /nowhere/page.html: ")


def test_a_mixture_or_a_recipe_stands_in_place_of_a_name():
    assert read_settings(["--mix", "mlm; nsp"])[1].mix == "mlm; nsp"
    assert read_settings(["--recipe=bert"])[1].objective == "mlm+nsp"
    with pytest.raises(UserError, match="no objective was named"):
        read_settings(["--seed", "1"])


@pytest.mark.parametrize("file", ["loop.py", "model.py", "evaluate.py"])
def test_training_names_no_objective(file):
    """What is special about an objective stands in its own file, and nowhere in the loop."""
    words = set(re.findall(r"\w+", (ROOT / "training" / file).read_text()))
    assert not words & {*OBJECTIVES, *(objective.__name__ for objective in OBJECTIVES.values())}


def test_an_objective_is_a_short_file():
    """At the median 60 lines at most, its docstring among them."""
    files = {Path(inspect.getsourcefile(objective)) for objective in OBJECTIVES.values()}
    assert statistics.median(len(file.read_text().splitlines()) for file in files) <= 60
