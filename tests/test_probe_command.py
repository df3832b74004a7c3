"""`python -m probes`: what it understands, what it refuses, and how it says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corpora.errors import UserError
from probes.__main__ import main
from probes.command import build_parser, describe_command, parse
from probes.members import Member, list_members

ROOT = Path(__file__).parent.parent


def make_folder(path: Path, objective: object = None, seed: int = 0) -> Path:
    """Make what looks like an exported run to the eye that has read nothing but file names and run.json."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    if objective is not None:
        (path / "run.json").write_text(json.dumps({"config": {"objective": objective, "seed": seed}}))
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for objective in ("mlm", "rtd"):
        for seed in (0, 1):
            make_folder(tmp_path / "runs" / f"{objective}-{seed}", objective, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_every_subcommand_and_option_is_in_the_help_within_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for name in ("minimal-pairs", "finetune", "explain", "--treebank", "--group_by", "Exit status: 0"):
        assert name in text
    for action in build_parser()._actions:
        assert action.help and all(name in text for name in action.option_strings)


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["minimal-pairs"], ["finetune"]])
def test_help_does_not_wait_for_torch(command: list[str]) -> None:
    argv = [*command, "--help"]
    code = f"import sys; from probes.__main__ import main\ntry: main({argv})\nexcept SystemExit: pass\n"
    check = code + "assert not {'torch', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules)"
    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no encoder was named"),
        (["runs/mlm-0", "--pooled", "cls"], "option --pooled is unknown; did you mean --pooling?"),
        (["runs/mlm-0", "--group-by", "objective"], "option --group-by is unknown; did you mean --group_by?"),
        (["runs/mlm-0", "--kind", "svm"], "'svm'"),
        (["runs/mlm-0", "--size", "many"], "'many'"),
        (["runs/mlm-0", "--size", "3"], "--size is 3; it must be at least 100"),
        (["runs/mlm-0", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["runs/mlm-0", "--suite", "treebank"], "wants --treebank FILES"),
        (["runs/mlm-9"], "there is no folder runs/mlm-9; did you mean runs/mlm-"),
        (["--group", "runs/mlm-0"], "write NAME=GLOB"),
        (["--group", "mlm=runs/sop-*"], "nothing is at 'runs/sop-*'"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, complaint = capsys.readouterr()
    assert out == "" and complaint.startswith("error: ") and complaint.count("\n") == 1
    assert said in complaint


def test_folders_without_an_encoder_are_all_named_before_any_work(runs: Path) -> None:
    (runs / "rtd-0" / "config.json").unlink()
    (runs / "mlm-0" / "config.json").unlink()
    (runs / "mlm-0" / "run.json").unlink()
    with pytest.raises(UserError) as raised:
        list_members(["runs/mlm-0", "runs/rtd-0", "runs/mlm-1/config.json", "runs/mlm-1"], [], None)
    assert str(raised.value).splitlines() == [
        "runs/mlm-0 has no config.json; give the folder of an encoder, as `save_pretrained` writes it",
        "the run in runs/rtd-0 has no encoder yet; finish it: python pretrain.py --resume runs/rtd-0",
        "runs/mlm-1/config.json is a file; give the folder of an encoder",
    ]


def test_encoders_are_grouped_by_glob_or_by_what_trained_them(runs: Path) -> None:
    by_glob = list_members(["bert-base-uncased"], ["masked=runs/mlm-*", "replaced=runs/rtd-*"], None)
    assert [(member.name, member.group) for member in by_glob] == [
        ("bert-base-uncased", "bert-base-uncased"),
        ("mlm-0", "masked"),
        ("mlm-1", "masked"),
        ("rtd-0", "replaced"),
        ("rtd-1", "replaced"),
    ]
    folders = [str(path) for path in sorted(runs.iterdir())]
    by_objective = list_members([*folders, "org/bert"], [], "objective")
    assert [member.group for member in by_objective] == ["mlm", "mlm", "rtd", "rtd", "org/bert"]
    assert by_objective[1] == Member(location=folders[1], name="mlm-1", group="mlm", objective="mlm", seed=1)


def test_one_encoder_belongs_to_one_group(runs: Path) -> None:
    with pytest.raises(UserError, match="is in the groups 'a' and 'b'"):
        list_members([], ["a=runs/mlm-0", "b=runs/*"], None)


def test_names_are_the_shortest_that_differ(tmp_path: Path) -> None:
    places = [str(make_folder(tmp_path / parent / "mlm")) for parent in ("small", "large")]
    places.append(str(make_folder(tmp_path / "small" / "rtd", {"mlm": {}, "nsp": {}})))
    members = list_members([places[0] + "/", *places[1:], places[0]], [], None)
    assert [member.name for member in members] == ["small/mlm", "large/mlm", "rtd"]
    assert members[2].objective == "mlm+nsp"


def test_a_broken_record_of_a_run_is_named(runs: Path) -> None:
    (runs / "mlm-0" / "run.json").write_text("{")
    with pytest.raises(UserError, match="mlm-0/run.json can't be read"):
        list_members(["runs/mlm-0"], [], None)


def test_the_suite_follows_from_what_is_given() -> None:
    assert parse(["a"]).suite == "raw"
    assert parse(["a", "--treebank", "train.conllu"]).suite == "all"
    assert parse(["a", "--treebank", "train.conllu", "--suite", "treebank"]).suite == "treebank"


def test_the_command_that_is_kept_has_no_folder_of_the_machine(runs: Path) -> None:
    command = describe_command([str(runs / "mlm-0"), "org/bert", "--corpus", "/home/me/a text.txt", "--size", "500"])
    assert command == "python -m probes mlm-0 org/bert --corpus 'a text.txt' --size 500"


def test_ctrl_c_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("probes.command.main", interrupt)
    assert main(["runs/mlm-0"]) == 130
    assert capsys.readouterr().err == "stopped\n"
