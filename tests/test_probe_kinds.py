"""Kinds of probes: a planted tree and a planted token are found in the rows of the results, and noise is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from corpora.errors import UserError
from probes.build import Built
from probes.encoder import load_encoder
from probes.feature_store import FeatureStore
from probes.kinds import DISTANCES, KINDS, LOSS
from probes.members import Member
from probes.probe import TEST, Kind, Probe
from probes.reached import HowToProbe
from probes.results import ALL, Results, read_results, write_results
from probes.suite import describe_probe, run_suite
from probes.treebank_trees import find_sentences
from probes.trees import linear_chain_uuas

WORDS = [first + second for first in "bdfgklmn" for second in ("ar", "ei", "olu")]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
LENGTH = 6  # words of a sentence


def save_encoder(folder: Path, mask: str | None = "[MASK]") -> Path:
    """Save an untrained BERT whose tokenizer knows WORDS, and whose layers hold no more than its embeddings do."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=mask, **SPECIAL).save_pretrained(folder)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=32, initializer_range=0.2, **shape)
    BertModel(config).save_pretrained(folder)
    return folder


def plant_trees(num_sentences: int = 240) -> Probe:
    """Sentences of six words in which all others hang from the first of WORDS, wherever it stands."""
    rng = np.random.default_rng(0)
    texts, places, labels, marks = [], [], [], []
    for number in range(num_sentences):
        others = rng.choice(len(WORDS) - 1, size=LENGTH - 1, replace=False) + 1
        order = rng.permutation([0, *others])  # the list's first word is the root
        words = [WORDS[word] for word in order]
        head = int(np.flatnonzero(order == 0)[0])
        begin = 0
        for place, word in enumerate(words):
            places.append([(number, begin, begin + len(word))])
            labels.append(0 if place == head else head + 1)
            marks.append(False)
            begin += len(word) + 1
        texts.append(" ".join(words))
    split = np.repeat([0, 1, 2], [num_sentences // 2, num_sentences // 4, num_sentences // 4])
    heads, starts = np.array(labels) - 1, np.arange(0, LENGTH * num_sentences + 1, LENGTH)
    return Probe(
        name="dependency_tree",
        question="Which words are joined?",
        texts=tuple(texts),
        places=np.array(places),
        labels=np.array(labels),
        label_names=("root", *map(str, range(1, LENGTH + 1))),
        split=np.repeat(split, LENGTH).astype(np.int8),
        groups=np.repeat(np.arange(num_sentences) // 4, LENGTH),
        kind="structural",
        metric="uuas",
        subsets={"punctuation": np.array(marks)},
        surface={"linear_chain": linear_chain_uuas(heads, starts)},
    )


def plant_tokens(num_texts: int = 300, is_random: bool = False) -> Probe:
    """Texts that repeat one word: who reads the neighbours of a hidden token knows it."""
    rng = np.random.default_rng(1)
    rows = rng.integers(8, size=(num_texts, 1)).repeat(8, axis=1)
    rows = rng.integers(8, size=(num_texts, 8)) if is_random else rows
    return Probe(
        name="masked_readout",
        question="Which token is hidden?",
        texts=tuple(" ".join(WORDS[word] for word in row) for row in rows),
        places=np.array([[(number, -1, -1)] for number in range(num_texts)]),
        labels=np.zeros(num_texts, dtype=np.int64),
        label_names=("its tokens",),
        split=np.repeat([0, 1, 2], [num_texts // 2, num_texts // 6, num_texts // 3]).astype(np.int8),
        groups=np.arange(num_texts) // 4,
        kind="readout",
        metric="top1",
        surface={"commonest_word": 1 / 8},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    probes = [plant_trees(), plant_tokens()]
    return run_suite([Member(location=str(folder), name="a", group="a")], Built(probes=probes), HowToProbe(mix=False))


def test_every_kind_is_in_the_table() -> None:
    assert set(KINDS) == set(Kind.__args__)


@pytest.mark.slow
def test_a_planted_tree_is_a_row_of_every_layer(results: Results) -> None:
    layers = results.list_layers("a", "dependency_tree")
    assert [score.layer for score in layers] == [0, 1]
    assert max(score.score for score in layers) > 0.95
    assert all(score.metric == "uuas" and score.items == 60 * (LENGTH - 1) for score in layers)
    assert all(score.low <= score.score <= score.high for score in layers)
    record = results.find_probe("dependency_tree")
    assert record.floors == {"linear_chain": pytest.approx(0.33, abs=0.03)} and record.documents == 15
    (distances,) = [s for s in results.scores if (s.encoder, s.subset) == ("a", DISTANCES)]
    assert distances.metric == "spearman" and distances.items == 60 and 0.5 < distances.score <= 1
    assert distances.low <= distances.score <= distances.high


@pytest.mark.slow
def test_a_token_that_its_neighbours_tell_is_named_and_its_loss_explained(results: Results) -> None:
    (named, explained) = [s for s in results.scores if (s.encoder, s.probe) == ("a", "masked_readout")]
    assert (named.subset, named.layer, named.metric) == (ALL, 1, "top1") and (explained.subset) == LOSS
    assert named.items == explained.items == 100  # one token of each text
    assert named.score > 0.97 and named.flag == "ceiling"
    assert explained.metric == "explained" and 0.5 < explained.score < 1
    summary = results.find_summary("a", "masked_readout")
    assert summary is not None and summary.score == named.score and summary.layers == (1,)


@pytest.mark.slow
def test_tokens_at_random_explain_nothing(folder: Path) -> None:
    probe = plant_tokens(is_random=True)
    store = FeatureStore(load_encoder(folder), [probe])
    named, explained = KINDS["readout"](probe, store, HowToProbe(), False)
    assert named.draws.value < 0.35
    assert explained.draws.value < 0.02


def test_a_readout_is_not_encoded_for_its_vectors(folder: Path) -> None:
    store = FeatureStore(load_encoder(folder), [plant_trees(8), plant_tokens()])
    assert store.texts_encoded == len(set(plant_trees(8).texts))
    assert FeatureStore(load_encoder(folder), [plant_tokens()]).texts_encoded == 0


def test_sentences_that_read_the_same_stay_apart() -> None:
    assert find_sentences(np.array([0, 0, 0, 1, 1, 4])).tolist() == [0, 3, 5, 6]


def test_a_tokenizer_without_a_mask_is_said(tmp_path: Path) -> None:
    encoder = load_encoder(save_encoder(tmp_path, mask=None))
    with pytest.raises(UserError, match="has no mask token"):
        KINDS["readout"](plant_tokens(), FeatureStore(encoder, []), HowToProbe(), False)


@pytest.mark.slow
def test_a_tree_s_test_items_are_the_same_for_an_encoder_that_reads_less(folder: Path) -> None:
    probe = plant_trees()
    texts = [text + (" bar" * 60 if number >= 200 else "") for number, text in enumerate(probe.texts)]
    longer = Probe(**{**vars(probe), "texts": tuple(texts)})
    described = describe_probe(longer)
    reached = KINDS["structural"](longer, FeatureStore(load_encoder(folder), [longer]), HowToProbe(), False)
    assert reached[0].items == 60 * (LENGTH - 1) and described.items["test"] == int((probe.split == TEST).sum())


@pytest.mark.slow
def test_the_record_reads_back(results: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json").scores == results.scores
    assert results.find_probe("masked_readout").floors == {"commonest_word": 0.125}
