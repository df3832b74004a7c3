"""`python -m corpora`: what it prints, and what it says of a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corpora.__main__ import build_parser, main

ROOT = Path(__file__).parent.parent
TEXT = "The river ran past the mill. It was cold.\n\nLetters came on Monday. They stayed in the hall.\n"


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_the_report_is_printed(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), "--vocab_size", "90"]) == 0
    printed = capsys.readouterr().out
    assert "documents" in printed and "unigram entropy" in printed
    assert str(tmp_path / "cache") in printed.splitlines()[-1]


def test_json_is_one_object_and_nothing_else(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), "--vocab_size", "90", "--json", "--samples", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["documents"] == 2 and printed["sentences"] == 4 and len(printed["samples"]) == 1


def test_options_reach_the_preparation(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--documents",
        "line",
        "--tokenizer_kind",
        "bpe",
        "--vocab_size=300",
        "--lowercase",
        "--held_out_rate",
        "0",
    ]
    assert main([str(text), *options, "--cache", str(tmp_path / "other"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["held_out_documents"] == 0
    assert printed["folder"].startswith(str(tmp_path / "other"))
    metadata = json.loads(Path(printed["folder"], "metadata.json").read_text())
    settings = metadata["settings"]
    assert (settings["tokenizer_kind"], settings["vocab_size"], settings["lowercase"]) == ("bpe", 300, True)
    assert settings["source"]["documents"] == "line"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--docments", "file"], "option --docments is unknown; did you mean --documents?"),
        (["--held-out-rate", "0.1"], "option --held-out-rate is unknown; did you mean --held_out_rate?"),
        (["--xyzzy"], "option --xyzzy is unknown; --help shows every option"),
        (["--documents", "page"], "'page'"),
        (["--vocab_size", "many"], "--vocab_size is 'many'; it must be a whole number"),
        (["--held_out_rate", "1.5"], "held_out_rate is 1.5"),
        (["--vocab_size", "3"], "vocabulary of 3 is too small"),
        (["--language", "tlh"], "language 'tlh'"),
        (["another.txt"], "2 places were given"),
        (["--tokenizer", "./nothing"], "./nothing"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], said: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(text), *arguments]) == 2
    out, complaint = capsys.readouterr()
    assert out == "" and complaint.startswith("error: ") and complaint.count("\n") == 1
    assert said in complaint
    assert not list(tmp_path.glob("cache/.tmp-*"))


def test_missing_and_empty_text_are_told_in_one_line(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text.write_text("\n\n  \n")
    for path in (text, tmp_path / "absent.txt"):
        assert main([str(path)]) == 2
        complaint = capsys.readouterr().err
        assert complaint.splitlines()[-1].startswith("error: ") and str(path) in complaint


def test_a_cache_that_cannot_be_written_exits_with_4(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(text), "--cache", str(text / "below-a-file")]) == 4
    assert "--cache DIR" in capsys.readouterr().err


def test_help_says_what_every_option_is_for_in_eighty_columns() -> None:
    help_text = build_parser().format_help()
    assert max(map(len, help_text.splitlines())) <= 80
    for action in build_parser()._actions:
        assert action.help and all(name in help_text for name in action.option_strings)


@pytest.mark.slow
def test_the_command_runs_as_a_module(text: Path) -> None:
    command = [sys.executable, "-m", "corpora", str(text), "--vocab_size", "90"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "sentences" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_closes_early_is_no_error(text: Path) -> None:
    command = [sys.executable, "-m", "corpora", str(text), "--vocab_size", "90"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert complaint == ""
