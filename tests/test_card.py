import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.card import write_card
from training.redact import redact_command, redact_settings, shorten_absolute_paths, shorten_path

HIDDEN = {"ln V": 9.01, "unigram": 6.89}


def make_record(**changes: Any) -> dict[str, Any]:
    config = {
        "objective": "rtd+nsp",
        "corpus": "/home/anna/private/wiki/train.txt.gz",
        "out": "/scratch/anna/runs/rtd",
        "cache": "/scratch/anna/cache",
        "encoder": "tiny",
        "generator": "masked_lm",
        "language": "en",
        "max_length": 128,
        "batch_size": 64,
        "seed": 3,
    }
    record = {
        "config": config,
        "command": "python /home/anna/code/pretrain.py --corpus /home/anna/private/wiki/train.txt.gz",
        "objectives": {"rtd": "ReplacedTokenDetection(mask_rate=0.15)", "nsp": "NextSentencePrediction(weight=1.0)"},
        "chance": {"rtd": {"ln 2": math.log(2)}, "nsp": {"ln 2": math.log(2)}, "rtd_generator": HIDDEN},
        "corpus": {"fingerprint": "ab" * 32, "documents": 1234, "tokens": 567890, "unigram_entropy": 6.89},
        "parameters": {"encoder": 1850000, "heads": 33000, "generators": 0},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "device": "x86_64",
        "steps_done": 1000,
        "tokens_seen": 8000000,
        "seconds": 3725.0,
    }
    return record | changes


def make_metrics() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(100, 1001, 100):
        losses = {"rtd": 0.7 / step**0.2, "nsp": 0.69, "rtd_generator": 9 / step**0.1}
        rows.append({"step": step, "tokens": step * 8000, "split": "train", "losses": losses, "learning_rate": 1e-3})
    figures = {
        "rtd": {"positive_rate": 0.0625, "auroc": 0.7123, "average_precision": 0.25, "f1": 0.2},
        "nsp": {"accuracy": 0.75, "majority": 0.5},
        "rtd_generator": {"accuracy": 0.31, "hidden_loss": 5.5, "hidden_accuracy": 0.21},
    }
    losses = {"rtd": 0.2, "nsp": 0.52, "rtd_generator": 4.5}
    rows.append({"step": 1000, "tokens": 8000000, "split": "held_out", "losses": losses, "metrics": figures})
    return rows


EXPORTED = {
    ".": {"class": "BertModel", "load_with": "AutoModel", "pooler_from": None, "untrained": ["pooler.dense.weight"]},
    "heads/rtd": {
        "class": "ElectraForPreTraining",
        "load_with": "AutoModelForPreTraining",
        "labels": {"is_replaced": ["original", "replaced"]},
        "num_segments": 1,
    },
    "heads/nsp": {
        "class": "BertForNextSentencePrediction",
        "load_with": "AutoModelForNextSentencePrediction",
        "labels": {"is_random_next": ["is_next", "is_random"]},
        "num_segments": 2,
    },
    "heads/own": {"class": None, "load_with": None, "labels": {"is_odd": ["even", "odd"]}},
    "generator": {"class": "BertForMaskedLM", "load_with": "AutoModelForMaskedLM"},
}


def read_card(folder: Path, record: dict[str, Any], metrics: list[dict[str, Any]], exported: Any = EXPORTED) -> str:
    folder.mkdir(exist_ok=True)
    if exported:
        (folder / "export.json").write_text(json.dumps({"format": 1, "folders": exported}))
    write_card(folder, record, metrics)
    return (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    return read_card(tmp_path_factory.mktemp("card") / "run", make_record(), make_metrics())


def read_rows(card: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]


def test_the_front_matter_is_what_the_hub_reads(card):
    _, matter, _ = card.split("---\n", 2)
    assert yaml.safe_load(matter) == {
        "language": "en",
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["pretext", "self-supervised", "pretraining", "rtd", "nsp", "tiny"],
    }


def test_held_out_figures_stand_beside_chance(card):
    rows = read_rows(card)
    base_rate = -0.0625 * math.log(0.0625) - 0.9375 * math.log(0.9375)
    for row in (
        ["`rtd`", "loss (nats)", "0.200", f"ln 2 0.693, base rate {base_rate:.3f}"],
        ["`rtd`", "AUROC", "0.712", "0.500"],
        ["`rtd`", "average precision", "0.250", "0.062 (the share of positives)"],
        ["`rtd`", "F1 at probability .5", "0.200", "0.118 (always yes)"],
        ["`nsp`", "accuracy", "0.750", "0.500 (the larger class)"],
        ["`rtd_generator`", "loss at hidden tokens (nats)", "5.500", "ln V 9.010, unigram 6.890"],
    ):
        assert row in rows


def test_figures_of_hidden_tokens_are_left_out_where_every_token_asked_was_hidden(tmp_path):
    metrics = make_metrics()
    metrics[-1]["metrics"]["rtd_generator"]["hidden_loss"] = metrics[-1]["losses"]["rtd_generator"]
    assert "hidden tokens" not in read_card(tmp_path / "run", make_record(), metrics)


def test_the_run_is_described(card):
    rows = dict(row for row in read_rows(card) if len(row) == 2)
    assert rows["Corpus"] == "train.txt.gz, 1,234 documents, 567,890 tokens"
    assert rows["Corpus fingerprint"] == f"`{'ab' * 32}`"
    assert rows["Parameters"] == "encoder 1,850,000, heads 33,000"
    assert rows["Time"] == "1 h 2 min"
    assert rows["Tokens seen"] == "8,000,000"
    assert rows["Seed"] == "3"
    assert "ReplacedTokenDetection(mask_rate=0.15)" in rows["Objective"]


def test_each_folder_has_its_labels_and_a_snippet_that_is_python(card):
    assert "0 = `original`, 1 = `replaced`" in card
    assert "0 = `is_next`, 1 = `is_random`" in card
    snippets = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(snippets) == len(EXPORTED)
    for path, snippet in zip(EXPORTED, snippets, strict=True):
        compile(snippet, path, "exec")
        assert ('"run"' if path == "." else f'"run/{path}') in snippet
    assert '"A first text.", "A second one."' in snippets[2]


def test_the_snippets_of_an_export_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel

    from corpora.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(iter(["Some text, and more of it. " * 20]), vocab_size=100)
    BertModel(
        BertConfig(vocab_size=100, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    card = read_card(tmp_path / "run", make_record(), make_metrics(), {".": EXPORTED["."]})
    monkeypatch.chdir(tmp_path)
    snippet = card.split("```python\n")[1].split("```")[0].rstrip()
    *setup, last = snippet.split("\n")
    names: dict[str, Any] = {}
    exec("\n".join(setup), names)
    with torch.no_grad():
        assert eval(last, names).shape[-1] == 8


def test_untrained_poolers_and_unknown_heads_are_named(card, tmp_path):
    assert "pooler is untrained" in card
    assert "`heads/own` holds the head's tensors alone" in card
    trained = {".": EXPORTED["."] | {"pooler_from": "nsp", "untrained": []}}
    card = read_card(tmp_path / "run", make_record(), make_metrics(), trained)
    assert "pooler is untrained" not in card
    assert "the hidden layer of the `nsp` head" in card


def test_the_picture_is_a_png_that_grows_with_the_losses(tmp_path):
    heights = []
    for names in (("rtd",), ("rtd", "nsp", "rtd_generator")):
        metrics = [row | {"losses": {name: row["losses"][name] for name in names}} for row in make_metrics()]
        card = read_card(tmp_path / "run", make_record(), metrics)
        assert "](curves.png)" in card
        content = (tmp_path / "run" / "curves.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        heights.append(struct.unpack(">I", content[20:24])[0])
    assert heights[1] > 1.5 * heights[0]


def test_nothing_of_the_machine_or_its_secrets_is_in_the_card(tmp_path):
    config = make_record()["config"] | {
        "tokenizer": "/home/anna/private/tokenizer",
        "encoder": "/home/anna/models/mine",
        "hub_token": "hf_abcdefghijklmnop",
        "objective": {"rtd": {"weight": 3, "table": "/home/anna/table.npy"}},
    }
    command = "WANDB_API_KEY=abc123 python /home/anna/pretrain.py --hub_token xyz789"
    command += " --out=/home/anna/o --corpus '/home/a b/c'"
    record = make_record(
        config=config, command=command, hardware="host:/home/anna/gpu", objectives={"rtd": "X('/home/anna/table.npy')"}
    )
    card = read_card(tmp_path / "run", record, make_metrics())
    for hidden in ("anna", "/home", "/scratch", "private", "abc123", "xyz789", "hf_", str(tmp_path)):
        assert hidden not in card
    assert "train.txt.gz" in card
    assert "WANDB_API_KEY=*** python pretrain.py --hub_token *** --out=o --corpus c" in card


def test_paths_lose_their_folders_and_other_names_stay():
    for value, expected in {
        "/data/wiki.txt": "wiki.txt",
        "~/wiki/": "wiki",
        "../texts/*.txt": "*.txt",
        "file:///data/wiki.txt": "wiki.txt",
        "builtin": "builtin",
        "wikimedia/wikipedia:20231101.en": "wikimedia/wikipedia:20231101.en",
        "articles/a.jsonl": "a.jsonl",
        "https://me:pass@example.org/a/b": "https://example.org/a/b",
        "rtd:mask_rate=0.25+nsp": "rtd:mask_rate=0.25+nsp",
    }.items():
        assert shorten_path(value) == expected
    assert redact_settings({"a": ["/x/y"], "tokenizer": "t", "api_key": 7}) == {
        "a": ["y"],
        "tokenizer": "t",
        "api_key": "***",
    }
    assert redact_command("python 'a b.py' --x '") == "python ''\"'\"'a' 'b.py'\"'\"'' --x ''\"'\"''"
    text = "see https://arxiv.org/abs/1 and </details>, 1 / 2, and/or `/a/b/c.txt`"
    assert shorten_absolute_paths(text) == "see https://arxiv.org/abs/1 and </details>, 1 / 2, and/or `c.txt`"


@pytest.mark.parametrize("record", [{}, {"config": {}}, {"config": {"objective": "mlm"}, "corpus": {}, "versions": {}}])
def test_what_a_record_lacks_is_left_out(record, tmp_path):
    card = read_card(tmp_path / "run", record, [], exported=None)
    assert card.startswith("---\n")
    assert not (tmp_path / "run" / "curves.png").exists()
    assert "](curves.png)" not in card
    assert "Nothing was held out" in card
    assert "None" not in card


def test_losses_that_are_not_numbers_do_not_stop_the_card(tmp_path):
    metrics = [
        {"step": 1, "split": "train", "losses": {"mlm": math.nan}},
        {"step": 2, "split": "train", "losses": {"mlm": 8.0}},
        {"step": 2, "split": "held_out", "losses": {"mlm": None}, "metrics": {}},
    ]
    card = read_card(tmp_path / "run", make_record(chance={"mlm": HIDDEN}), metrics)
    assert ["`mlm`", "loss (nats)", "–", "ln V 9.010, unigram 6.890"] in read_rows(card)


@pytest.mark.slow
def test_a_second_card_replaces_the_first_and_leaves_nothing_beside_it(tmp_path):
    for seed in (1, 2):
        record = make_record()
        record["config"]["seed"] = seed
        card = read_card(tmp_path / "run", record, make_metrics())
    assert "of one seed (2)" in card
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"README.md", "curves.png", "export.json"}
