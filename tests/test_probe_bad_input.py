"""What can't be used, through every command of the probes: one line each, and nothing that looks like a result."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import BertForMaskedLM, BertForTokenClassification, PreTrainedTokenizerFast

from probes.__main__ import main
from tests.small_heads import make_config, make_tokenizer, save_encoder, save_model
from tests.test_probe_suite import write_text

NAMES = {0: "O", 1: "B-LOC", 2: "I-LOC"}
TEXT = "Oslo lives in Rome ."
COMMANDS = {  # what each command is asked of a folder
    "probes": ["--corpus", "text.txt", "--probes", "bigram_shift", "--size", "500"],
    "minimal-pairs": ["--pairs", "pairs"],
    "finetune": ["--train", "ok.conll", "--dev", "ok.conll", "--out", "tuned"],
    "explain": [TEXT],
}


def copy_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return PreTrainedTokenizerFast(tokenizer_object=deepcopy(tokenizer.backend_tokenizer), **special)


def take_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def take_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def put_other_tokenizer(folder: Path) -> None:
    tokenizer = copy_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(folder)


def put_other_cls(folder: Path) -> None:
    tokenizer = copy_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("[SEP]", "[UNK]")}
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(*list(ids.items()))
    tokenizer.save_pretrained(folder)


def put_nan(folder: Path) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    model.bert.encoder.layer[1].output.dense.bias.data[0] = float("nan")
    model.save_pretrained(folder)


SPOILT = {
    take_weights: ("can't be loaded", "can't be loaded", "has no weights", "has no weights"),
    take_tokenizer: ("tokenizer of 'bad'",) * 4,
    put_other_tokenizer: ("has 320 tokens and the encoder rows for 120; give the folder with",) * 4,
    put_other_cls: ("begins a text with '[UNK]' and not with its cls token '[CLS]'; give a tokenizer",) * 4,
    put_nan: ("returns NaN or infinity", *3 * ("bert.encoder.layer.1.output.dense.bias holds NaN or infinity",)),
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a masked LM, a tagger and an encoder, and with something to ask them."""
    root = tmp_path_factory.mktemp("room")
    torch.manual_seed(0)
    save_model(root / "mlm", BertForMaskedLM(make_config("bert")))
    labels = {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}
    save_model(root / "tagger", BertForTokenClassification(make_config("bert", **labels)))
    save_encoder(root / "encoder")
    write_text(root / "text.txt", num_documents=150)
    (root / "pairs").mkdir()
    pair = {"sentence_good": TEXT, "sentence_bad": "Oslo in lives Rome .", "linguistics_term": "order", "UID": "order"}
    (root / "pairs" / "order.jsonl").write_text("".join(json.dumps(pair | {"pairID": str(n)}) + "\n" for n in range(4)))
    (root / "ok.conll").write_text("Oslo B-LOC\nlives O\n\n" * 6)
    return root


@pytest.fixture
def here(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(room, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a command says of arguments that it can't use."""
    assert main(arguments) == 2
    out, complaint = capsys.readouterr()
    lines = [line for line in complaint.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in complaint
    assert "│" not in out and "─" not in out and "gain" not in out  # no table
    assert not list(Path().glob("**/results.json"))
    return lines[0]


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("spoil", list(SPOILT), ids=lambda spoil: spoil.__name__)
def test_a_folder_that_is_not_whole_is_refused_by_every_command(spoil, command, here, capsys) -> None:
    shutil.copytree(here / "mlm", here / "bad")
    spoil(here / "bad")
    first = [] if command == "probes" else [command]
    said = refuse([*first, "bad", *COMMANDS[command]], capsys)
    assert SPOILT[spoil][list(COMMANDS).index(command)] in said and "bad" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["finetune", "encoder", "--train", "gap.conll", "--dev", "ok.conll"],
            "gap.conll:3: 3 columns where",
        ),
        (
            ["finetune", "encoder", "--train", "ok.conll", "--dev", "per.conll"],
            "per.conll:1: in the sentence",
        ),
        (
            ["finetune", "tagger", "--dev", "per.conll", "--epochs", "0"],
            "'B-PER', which the head does not know",
        ),
        (
            ["explain", "tagger", "Anders lives", "--labels", "B-PER O"],
            "'B-PER' is none of the head's classes: O",
        ),
        (["encoder", "--treebank", "gap.conllu", "--suite", "treebank"], "gap.conllu, line 2: 9 columns where CoNLL-U"),
        (
            ["minimal-pairs", "mlm", "--pairs", "long.jsonl"],
            "a text of 102 tokens is longer than the 32 that fit",
        ),
    ],
)
def test_data_that_do_not_fit_are_named_by_file_and_line(arguments, said, here, capsys) -> None:
    Path("gap.conll").write_text("Oslo B-LOC\nlives O\nin O O\n\n")
    Path("per.conll").write_text("Anders B-PER\nlives O\n\n")
    Path("gap.conllu").write_text("1\tOslo\t_\tPROPN\t_\t_\t0\troot\t_\t_\n2\tlives\t_\tVERB\t_\t_\t1\tdep\t_\n\n")
    pair = {"sentence_good": "Oslo " * 50, "sentence_bad": "Rome " * 50, "linguistics_term": "order", "UID": "order"}
    Path("long.jsonl").write_text(json.dumps(pair | {"pairID": "0"}) + "\n")
    assert said in refuse(arguments, capsys)


def test_a_text_that_is_too_long_is_said_to_be_before_any_figure(here, capsys) -> None:
    assert main(["explain", "tagger", "Oslo " * 60]) == 0
    out = capsys.readouterr().out
    assert out.index("longer than the encoder's positions: its last 45 words") < out.index("Prob.")
