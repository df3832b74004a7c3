"""Tokenizers: what is trained loads again, word starts are right for every kind, what is missing is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from corpora.errors import CorpusError, UserError
from corpora.tokenizer import (
    KINDS,
    SPECIAL_TOKENS,
    SentenceEncoder,
    Vocabulary,
    load_tokenizer,
    train_tokenizer,
)
from tests.encoding import encode_sentences

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog (who doesn't mind) sleeps on.",
    "Unaffable people aren't unhappy; they're merely quiet. Café prices rose 3.5% in 1999!",
    "Retraining a tokenizer on retrained tokens makes training training's own training.",
] * 40
ODD = [
    "don't  stop",
    " lead",
    "trail ",
    "a\tb",
    "x\u00a0y",
    "[MASK] it",
    "[SEP]",
    "naïve ΣΑΣ ΟΔΟΣ",
    "日本 語。",
    "a\x00b",
    "🙂 ok",
    "",
    " ",
]


def train(kind: str, lowercase: bool = False) -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(TEXT), kind, vocab_size=400, lowercase=lowercase)


TRAINED = {(kind, lowercase): train(kind, lowercase) for kind in KINDS for lowercase in (False, True)}


def build_by_hand(processor: processors.PostProcessor | None, **special_tokens: str) -> PreTrainedTokenizerFast:
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b"]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if processor is not None:
        backend.post_processor = processor
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special_tokens)


def encode_whole(tokenizer: PreTrainedTokenizerFast, sentence: str) -> tuple[list[int], list[bool]]:
    """What `transformers` says of one sentence; a piece starts a word where its word is not the previous one's."""
    encoding = tokenizer(sentence, add_special_tokens=False, split_special_tokens=True)
    words = encoding.word_ids(0)
    return encoding["input_ids"], [i == 0 or words[i] != words[i - 1] for i in range(len(words))]


def check_encoding(tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    ids, lengths, starts = encode_sentences(tokenizer, sentences)
    expected = [encode_whole(tokenizer, sentence) for sentence in sentences]
    assert lengths.tolist() == [len(sentence_ids) for sentence_ids, _ in expected]
    assert ids.tolist() == [piece for sentence_ids, _ in expected for piece in sentence_ids]
    assert starts.tolist() == [start for _, sentence_starts in expected for start in sentence_starts]


@pytest.mark.parametrize(("kind", "lowercase"), TRAINED)
def test_special_tokens_have_the_first_ids_and_frame_a_pair(kind: str, lowercase: bool) -> None:
    tokenizer = TRAINED[kind, lowercase]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    pair = tokenizer("the dog", "the fox")
    first = tokenizer("the dog", add_special_tokens=False)["input_ids"]
    second = tokenizer("the fox", add_special_tokens=False)["input_ids"]
    assert pair["input_ids"] == [2, *first, 3, *second, 3]
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)


@pytest.mark.parametrize(("kind", "lowercase"), TRAINED)
@pytest.mark.parametrize("config", [None, BertConfig, ElectraConfig, RobertaConfig, ModernBertConfig])
def test_what_is_saved_loads_with_the_same_ids(kind: str, lowercase: bool, config: type | None, tmp_path: Path) -> None:
    tokenizer = TRAINED[kind, lowercase]
    tokenizer.save_pretrained(tmp_path)
    if config is not None:
        config().save_pretrained(tmp_path)  # a model beside it must not change the tokenizer
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        for sentence in [*TEXT[:3], *ODD]:
            assert dict(loaded(sentence, sentence)) == dict(tokenizer(sentence, sentence))
        assert Vocabulary.of(loaded) == Vocabulary.of(tokenizer)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])  # not unigram: see train_tokenizer
def test_training_twice_gives_the_same_tokenizer(kind: str) -> None:
    assert train(kind).backend_tokenizer.to_str() == train(kind).backend_tokenizer.to_str()


def test_lower_case_folds_case() -> None:
    for (kind, lowercase), tokenizer in TRAINED.items():
        assert (tokenizer("THE dog")["input_ids"] == tokenizer("the Dog")["input_ids"]) == lowercase, kind


@pytest.mark.parametrize(("kind", "words"), [("wordpiece", 13), ("bpe", 10), ("unigram", 13)])
def test_words_start_where_they_should(kind: str, words: int) -> None:
    sentence = "Unaffable dogs (who don't retrain) slept, quietly."
    ids, lengths, starts = encode_sentences(TRAINED[kind, False], [sentence])
    assert lengths.tolist() == [len(ids)] and len(ids) > words
    tokenizer = TRAINED[kind, False]
    grouped = np.split(ids, np.flatnonzero(starts)[1:])
    texts = ["".join(tokenizer.convert_ids_to_tokens(group.tolist())).replace("##", "") for group in grouped]
    letters = [text.strip("Ġ▁") for text in texts]
    assert letters[0] == "Unaffable" and "retrain" in letters and "quietly" in letters and letters[-1] == "."
    assert "".join(letters) == sentence.replace(" ", "")


@pytest.mark.parametrize(("kind", "lowercase"), TRAINED)
def test_bulk_encoding_equals_one_sentence_at_a_time(kind: str, lowercase: bool) -> None:
    check_encoding(TRAINED[kind, lowercase], TEXT[:3] + ODD + TEXT[:3])


@given(
    st.lists(
        st.text() | st.text(alphabet="aThe'dog ,.()[]\t\n\u00a0\u0301é´Σς\u3000日\u00ad1½ﬁ", max_size=40), max_size=4
    )
)
def test_bulk_encoding_equals_one_at_a_time_on_any_text(sentences: list[str]) -> None:
    for kind in KINDS:
        check_encoding(TRAINED[kind, kind == "wordpiece"], sentences)


@given(st.text(alphabet="aThe'dog ,.1\u00a0é\t", max_size=30))
def test_bulk_encoding_is_right_for_byte_level_pieces_without_a_prefix_space(sentence: str) -> None:
    form = (
        TRAINED["bpe", False].backend_tokenizer.to_str().replace('"add_prefix_space":true', '"add_prefix_space":false')
    )
    assert form != TRAINED["bpe", False].backend_tokenizer.to_str()
    check_encoding(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(form)), [sentence])


def test_ordinary_added_tokens_are_found_across_spaces() -> None:
    tokenizer = train("wordpiece")
    tokenizer.add_tokens(["New York"])
    check_encoding(tokenizer, ["The New York dog", "the dog"])


def test_an_encoder_that_has_forgotten_gives_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    remembering = SentenceEncoder(TRAINED["bpe", False].backend_tokenizer.to_str())
    expected = [remembering.encode(TEXT[:2]) for _ in range(2)]
    monkeypatch.setattr("corpora.tokenizer._MOST_WORDS", 3)
    forgetting = SentenceEncoder(TRAINED["bpe", False].backend_tokenizer.to_str())
    for arrays in expected:
        for one, other in zip(arrays, forgetting.encode(TEXT[:2]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_saved_truncation_and_padding_do_not_touch_a_sentence() -> None:
    tokenizer = train("wordpiece")
    tokenizer.backend_tokenizer.enable_truncation(1)
    tokenizer.backend_tokenizer.enable_padding(length=300)
    _, lengths, _ = encode_sentences(tokenizer, TEXT[:1])
    assert 20 < lengths[0] < 100


def test_special_tokens_written_in_the_text_are_text() -> None:
    """Invariant 13: no corpus holds [MASK] before it is corrupted."""
    for tokenizer in TRAINED.values():
        ids, _, _ = encode_sentences(tokenizer, ["see [MASK] and [SEP] and [PAD]"])
        assert not {0, 2, 3, 4} & set(ids.tolist())


def test_arrays_have_their_types_when_there_is_nothing_too() -> None:
    for sentences in ([], [""], ["a dog"]):
        ids, lengths, starts = encode_sentences(TRAINED["wordpiece", False], sentences)
        assert (ids.dtype, lengths.dtype, starts.dtype) == (np.int32, np.int64, np.bool_)
        assert len(lengths) == len(sentences) and lengths.sum() == len(ids) == len(starts)
        ids += 1  # what is returned belongs to the caller


def test_vocabulary_survives_json_and_divides_the_ids() -> None:
    vocabulary = Vocabulary.of(TRAINED["wordpiece", False])
    assert Vocabulary.from_dict(vocabulary.as_dict()) == vocabulary
    assert vocabulary.special_ids == (0, 1, 2, 3, 4) and vocabulary.num_separators == 1
    assert vocabulary.ordinary_ids.tolist() == list(range(5, vocabulary.size))
    assert vocabulary.ordinary_ids.dtype == np.int64


def test_two_separators_stand_between_the_segments_of_roberta() -> None:
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    roberta = build_by_hand(processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False), **names)
    assert Vocabulary.of(roberta).num_separators == 2
    assert Vocabulary.of(build_by_hand(processors.BertProcessing(("</s>", 2), ("<s>", 0)), **names)).num_separators == 1
    assert Vocabulary.of(build_by_hand(None, **names)).num_separators == 1


def test_bos_and_eos_serve_as_cls_and_sep_only_where_the_tokenizer_frames_with_them(tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    framed = build_by_hand(processors.BertProcessing(("</s>", 2), ("<s>", 0)), **names)
    vocabulary = Vocabulary.of(framed)
    assert (vocabulary.cls_id, vocabulary.sep_id, vocabulary.unk_id) == (0, 2, None)
    build_by_hand(None, **names).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="lacks cls, sep: add"):
        load_tokenizer(str(tmp_path))


def test_every_missing_special_token_is_named_at_once(tmp_path: Path) -> None:
    build_by_hand(None, cls_token="<s>").save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"lacks pad, sep, mask: add with .*add_special_tokens.*'mask_token': '\[MASK\]'"
    ) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "./nowhere", "~/nowhere-at-all", "a/b/c", ""):
        with pytest.raises(UserError, match="does not exist") as caught:
            load_tokenizer(name)
        assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    for config in (None, BertConfig, RobertaConfig):
        if config is not None:
            config().save_pretrained(tmp_path)
        with pytest.raises(UserError, match="no tokenizer|no vocabulary") as caught:
            load_tokenizer(str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "\x00\x01"])
def test_a_broken_tokenizer_file_is_one_line(content: str, tmp_path: Path) -> None:
    TRAINED["wordpiece", False].save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_trained_says_why() -> None:
    with pytest.raises(UserError, match="known: wordpiece, bpe, unigram"):
        train_tokenizer(iter(TEXT), "wordpeice")
    with pytest.raises(UserError, match="at least 261"):
        train_tokenizer(iter(TEXT), "bpe", vocab_size=200)
    for kind in KINDS:
        with pytest.raises(CorpusError, match="no text"):
            train_tokenizer(iter(["", " \n"]), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_text_still_trains(kind: str) -> None:
    tokenizer = train_tokenizer(iter(["a dog"]), kind)
    assert 5 < len(tokenizer) < 400
    check_encoding(tokenizer, ["a dog", "the cat"])
