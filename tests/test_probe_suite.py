"""The suite: every layer of every encoder on the same items, beside untrained twins; groups compared."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from corpora.errors import UserError
from probes.__main__ import main
from probes.build import Built, build_treebank, choose_names, find_text
from probes.encoder import load_encoder
from probes.feature_store import FeatureStore
from probes.fit import fit_linear
from probes.groups import compare_groups, summarise
from probes.members import Member
from probes.probe import Probe
from probes.progress import Progress
from probes.results import MIX, EncoderRecord, ProbeRecord, Results, read_results
from probes.statistics import Resampled, interval, minimum_detectable_difference
from probes.suite import HowToProbe, run_suite

WORDS = [first + second for first in "bdfgklmn" for second in ("ar", "ei", "olu", "anto", "ish")]


def save_encoder(folder: Path, *, seed: int = 0, width: int = 16, layers: int = 2) -> Path:
    """Save an untrained BERT whose tokenizer knows WORDS."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special).save_pretrained(folder)
    torch.manual_seed(100 + seed)  # an untrained twin's seed is 0, 1, ...
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": width}
    BertModel(BertConfig(vocab_size=len(names), max_position_embeddings=32, **shape)).save_pretrained(folder)
    return folder


def make_probe(name: str = "marker", *, is_random: bool = False, num_items: int = 240) -> Probe:
    """Ask which of three words a sentence of six holds: written in the embeddings. Or ask at random."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=num_items)
    rows = rng.integers(3, len(WORDS), size=(num_items, 6))
    rows[np.arange(num_items), rng.integers(6, size=num_items)] = labels
    texts = tuple(" ".join(WORDS[word] for word in row) for row in rows)
    places = np.stack([np.arange(num_items), *2 * [np.full(num_items, -1)]], axis=1)[:, None]
    return Probe(
        name=name,
        question="Which of three words is there?",
        texts=texts,
        places=places,
        labels=rng.permutation(labels) if is_random else labels,
        label_names=("a", "b", "c"),
        split=np.repeat([0, 1, 2], [num_items // 2, num_items // 4, num_items // 4]).astype(np.int8),
        groups=np.arange(num_items) // 4,
        subsets={"even": np.arange(num_items) % 2 == 0},
        control_labels=rng.integers(3, size=num_items),
        surface={"words": 0.4},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    narrow = {name: save_encoder(root / name, seed=seed) for seed, name in enumerate(["a", "b", "c", "d"])}
    return narrow | {"wide": save_encoder(root / "wide", width=24, layers=1)}


def member(folders: dict[str, Path], name: str, group: str | None = None) -> Member:
    return Member(location=str(folders[name]), name=name, group=group or name)


@pytest.fixture(scope="module")
def results(folders: dict[str, Path]) -> Results:
    """Two encoders of one architecture and one of another, with two untrained twins of each."""
    members = [member(folders, name) for name in ("a", "wide", "b")]
    built = Built(probes=[make_probe(), make_probe("chance", is_random=True)])
    return run_suite(members, built, HowToProbe(twins=2, mix=False))


def test_every_layer_is_scored_on_the_same_items_and_dev_chooses(folders: dict[str, Path], results: Results) -> None:
    probe = make_probe()
    layers = results.list_layers("a", "marker")
    assert [score.layer for score in layers] == [0, 1, 2]
    store = FeatureStore(load_encoder(folders["a"]), [probe])
    fitted = fit_linear(store.features_for(probe), probe.labels, probe.split, control_labels=probe.control_labels)
    assert [score.score for score in layers] == pytest.approx(fitted.test.tolist())
    assert [score.is_chosen for score in layers] == [layer == int(np.argmax(fitted.dev)) for layer in range(3)]
    assert all(score.items == 60 and score.low <= score.score <= score.high for score in layers)
    assert fitted.control is not None
    expected = (fitted.test - fitted.control.test).tolist()
    assert [score.selectivity for score in layers] == pytest.approx(expected)


@pytest.mark.slow
def test_beside_layers_stand_mixes_subsets_and_code_lengths_in_bits(folders: dict[str, Path]) -> None:
    results = run_suite([member(folders, "a")], Built(probes=[make_probe()]), HowToProbe(code_lengths=True))
    of_a = [score for score in results.scores if score.encoder == "a"]
    (mix,) = [score for score in of_a if score.layer == MIX]
    assert mix.mix is not None and len(mix.mix) == 3 and sum(mix.mix) == pytest.approx(1, abs=1e-5)
    assert not mix.is_chosen
    (subset,) = [score for score in of_a if score.subset == "even"]
    assert subset.items == 30 and subset.is_chosen
    for score in results.list_layers("a", "marker"):
        assert score.mdl_bits is not None and score.compression is not None
        assert score.mdl_bits * score.compression == pytest.approx(120 * np.log2(3))
    assert not [score for score in results.scores if score.encoder != "a" and score.layer == MIX]


def test_a_probe_of_nothing_is_at_its_floor_and_one_of_a_word_is_not(results: Results) -> None:
    found = {summary.probe: summary for summary in results.summaries if summary.group == "a"}
    assert found["marker"].flag != "floor" and found["marker"].low > 0.45
    assert found["chance"].flag == "floor"
    assert results.list_counted() == ["marker"]
    labels = make_probe("chance", is_random=True).labels
    majority = float((labels[180:] == np.bincount(labels[:120]).argmax()).mean())
    assert results.find_probe("chance").floors == {"majority": majority, "words": 0.4}


def test_encoders_of_one_architecture_share_an_untrained_twin(results: Results) -> None:
    assert [(each.name, each.group, each.twin) for each in results.encoders] == [
        ("untrained bert 2x16 0", "untrained bert 2x16", None),
        ("untrained bert 2x16 1", "untrained bert 2x16", None),
        ("a", "a", "untrained bert 2x16"),
        ("untrained bert 1x24 0", "untrained bert 1x24", None),
        ("untrained bert 1x24 1", "untrained bert 1x24", None),
        ("wide", "wide", "untrained bert 1x24"),
        ("b", "b", "untrained bert 2x16"),
    ]
    assert results.groups == ["a", "wide", "b"]
    assert len({each.weights for each in results.encoders}) == 7


@pytest.mark.slow
def test_an_encoder_that_fails_is_named_and_leaves_nothing_behind(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = BertModel.from_pretrained(folders["wide"])
    broken.encoder.layer[0].output.dense.weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folders["wide"] / name).read_bytes())
    failing = Member(location=str(tmp_path), name="broken", group="broken")
    results = run_suite([failing, member(folders, "a")], Built(probes=[make_probe()]), HowToProbe(mix=False))
    assert list(results.failed) == ["broken"] and "NaN" in results.failed["broken"]
    assert "broken" not in {each.encoder for each in results.scores} | {each.name for each in results.encoders}
    assert results.find_summary("a", "marker") is not None
    with pytest.raises(UserError, match="NaN"):
        run_suite([failing], Built(probes=[make_probe()]), HowToProbe())


@pytest.mark.slow
def test_a_cache_is_used_again(folders: dict[str, Path], tmp_path: Path) -> None:
    how = HowToProbe(cache=tmp_path / "cache", mix=False)
    first = run_suite([member(folders, "a")], Built(probes=[make_probe()]), how)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the encoder's vectors and its twin's
    assert run_suite([member(folders, "a")], Built(probes=[make_probe()]), how).scores == first.scores


# Groups, on draws that were written down.

PROBE = ProbeRecord(
    name="p", question="", metric="accuracy", classes=("0", "1"), items={}, documents=50, floors={"majority": 0.5}
)


def make_draws(*values: float) -> list[Resampled]:
    rng = np.random.default_rng(0)
    noise, apart = rng.normal(scale=0.01, size=500), rng.normal(scale=0.001, size=50)
    return [Resampled(value=value, draws=value + noise, jackknife=value + apart) for value in values]


def make_groups(**values: list[float]) -> tuple[dict[tuple[str, str], tuple[int, Resampled]], list[EncoderRecord]]:
    encoders, chosen = [], {}
    for group, reached in values.items():
        for number, draws in enumerate(make_draws(*reached)):
            name = f"{group}-{number}"
            encoders.append(EncoderRecord(name=name, group=group, location=name))
            chosen[name, "p"] = (number, draws)
    return chosen, encoders


def test_two_checkpoints_are_compared_over_documents() -> None:
    chosen, encoders = make_groups(mlm=[0.6], rtd=[0.7])
    (found,) = compare_groups(chosen, encoders, [PROBE])
    expected = interval(chosen["rtd-0", "p"][1] - chosen["mlm-0", "p"][1])
    assert (found.a, found.b, found.claim, found.seeds) == ("rtd", "mlm", "checkpoints", (1, 1))
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, expected.low, expected.high))
    assert found.p is None and found.p_holm is None and found.detectable is None


def test_a_few_seeds_give_an_interval_and_what_they_could_find_but_no_test() -> None:
    chosen, encoders = make_groups(mlm=[0.60, 0.62], rtd=[0.70, 0.74, 0.72])
    (found,) = compare_groups(chosen, encoders, [PROBE])
    assert found.method == "bootstrap over seeds and documents" and found.claim == "checkpoints" and found.p is None
    assert found.difference == pytest.approx(0.11)
    deviation = np.sqrt((np.var([0.60, 0.62], ddof=1) + np.var([0.70, 0.74, 0.72], ddof=1)) / 2)
    assert found.detectable == pytest.approx(minimum_detectable_difference(deviation, 2))
    assert [(s.group, s.seeds, s.layers) for s in summarise(chosen, encoders, [PROBE])] == [
        ("mlm", 2, (0, 1)),
        ("rtd", 3, (0, 1, 2)),
    ]


def test_five_seeds_are_tested_and_corrected_for_all_comparisons() -> None:
    reached = {"mlm": [0.60, 0.61, 0.62, 0.60, 0.63], "rtd": [0.64, 0.63, 0.66, 0.62, 0.65], "sop": [0.6] * 4 + [0.61]}
    chosen, encoders = make_groups(**reached)
    found = {each.a: each for each in compare_groups(chosen, encoders, [PROBE])}
    p = {a: stats.ttest_ind(reached[a], reached["mlm"], equal_var=False).pvalue for a in ("rtd", "sop")}
    assert {a: each.p for a, each in found.items()} == pytest.approx(p)
    assert found["rtd"].p_holm == pytest.approx(2 * p["rtd"])  # the smaller of two
    assert found["sop"].p_holm == pytest.approx(p["sop"])
    assert {each.claim for each in found.values()} == {"objective"}


def test_a_group_at_the_floor_by_its_interval_is_flagged() -> None:
    chosen, encoders = make_groups(low=[0.51], high=[0.60], top=[0.999])
    flags = {each.group: each.flag for each in summarise(chosen, encoders, [PROBE])}
    assert flags == {"low": "floor", "high": "", "top": "ceiling"}


# What is built, and of what.


def test_a_probe_that_is_unknown_or_wants_a_treebank_is_named() -> None:
    assert choose_names("casing, bigram-shift", "raw") == (["bigram_shift", "casing"], [])
    assert choose_names("pos,casing", "all") == (["casing"], ["pos"])
    with pytest.raises(UserError, match="'pos' is unknown here .it wants --treebank FILES.; known: sentence_length"):
        choose_names("pos", "raw")


def test_a_treebank_is_all_named_by_parts_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each must have one of train, dev and test in its name"):
        build_treebank(["pos"], ["en-train.conllu", "more.conllu"], progress=Progress(None))


def write_text(path: Path, num_documents: int = 70) -> Path:
    """Write documents of three paragraphs of five sentences over WORDS."""
    rng = np.random.default_rng(1)

    def sentence() -> str:
        return " ".join(WORDS[word] for word in rng.integers(len(WORDS), size=rng.integers(6, 12))).capitalize() + "."

    documents = ["\n".join(" ".join(sentence() for _ in range(5)) for _ in range(3)) for _ in range(num_documents)]
    path.write_text("\n\n".join(documents) + "\n")
    return path


def write_run(folder: Path, text: Path, held_out_rate: float) -> str:
    config = {"corpus": str(text), "documents": "blank_line", "text_column": "text", "errors": "strict"}
    config |= {"held_out_rate": held_out_rate}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"config": config, "corpus": {"documents": 70}}))
    return str(folder)


def test_the_text_is_what_the_first_run_held_out_and_others_are_named(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    first, second, third = (
        write_run(tmp_path / name, text, rate) for name, rate in [("a", 0.3), ("b", 0.3), ("c", 0.1)]
    )
    documents, source = find_text(None, ["bert-base-uncased", first, second, third])
    assert 10 < len(documents) < 32 and all(len(document) == 3 for document in documents)
    assert source == f"{len(documents)} documents that a, b held out; bert-base-uncased, c may have read them"
    documents, source = find_text(str(text), [first])
    assert len(documents) == 70 and source == "text.txt; whether an encoder has read it is not known"


@pytest.mark.slow
def test_the_command_writes_a_table_a_record_and_a_page(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_text(tmp_path / "text.txt")
    asked = ["--corpus", str(text), "--probes", "bigram_shift,sentence_position", "--size", "500"]
    out = tmp_path / "out"
    assert main([str(folders["a"]), str(folders["b"]), *asked, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(out), "").splitlines())) <= 80
    results = read_results(out / "results.json")
    assert [probe.name for probe in results.probes] == ["bigram_shift"]
    assert list(results.skipped) == ["sentence_position"] and "left out: sentence_position" in printed
    assert (
        results.command
        == "python -m probes a b --corpus text.txt --probes bigram_shift,sentence_position --size 500 --out out"
    )
    assert str(tmp_path) not in (out / "results.json").read_text() + (out / "report.html").read_text()
    (folders["d"] / "model.safetensors").write_bytes(b"")
    assert main([str(folders["c"]), str(folders["d"]), *asked, "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "missing: d: " in captured.out and "d can't be probed: " in captured.err


def test_progress_says_how_long_it_will_take_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("probes.progress.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start(10)
    clock[0] = 1.0
    progress.advance("the first")
    assert stream.getvalue() == ""
    clock[0] = 20.0
    progress.advance("the second")
    assert stream.getvalue() == " 20% 1:20 left  the second\n"
    progress.skip(6)
    clock[0] = 36.0
    progress.advance("the third")
    assert stream.getvalue().splitlines()[1] == " 75% 0:12 left  the third"
