"""The command line, in process and as a process."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pretrain
from corpora.errors import TrainingError
from generators import GENERATORS
from objectives import FAMILIES
from training.command import CommandError, parse, read_meanings
from training.config import GROUPS, HARMLESS, Config
from training.epilog import read_table
from training.recipes import RECIPES
from training.yaml_settings import read_yaml, write_yaml

ROOT = Path(pretrain.__file__).parent


def write(folder: Path, text: str, name: str = "run.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def problems_of(*argv: str) -> list[str]:
    with pytest.raises(CommandError) as caught:
        parse(argv)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def record_run(folder: Path, **given_settings: object) -> str:
    config = Config(out=str(folder), **given_settings)  # type: ignore[arg-type]  # of any setting
    write(folder, json.dumps({"config": config.as_dict(), "finished": False}), "run.json")
    return str(folder)


def test_nothing_given_is_the_defaults() -> None:
    assert parse([]) == Config()


def test_options_have_the_types_of_their_settings() -> None:
    argv = "--max_steps 7 --learning_rate 1e-3 --weight_decay=0 --corpus 2024 --tokenizer null --max_minutes 2"
    config = parse([*argv.split(), "--lowercase", "--trackers", "tensorboard", "wandb", "--seed", str(2**63 - 1)])
    expected = Config(max_steps=7, learning_rate=0.001, weight_decay=0.0, corpus="2024", max_minutes=2.0)
    trackers = ("tensorboard", "wandb")
    assert config == dataclasses.replace(expected, lowercase=True, trackers=trackers, seed=2**63 - 1)
    assert type(config.weight_decay) is float and type(config.max_minutes) is float


def test_trackers_may_stand_with_commas_and_switches_with_a_value() -> None:
    config = parse(["--trackers", "tensorboard, wandb", "--lowercase", "false"])
    assert config.trackers == ("tensorboard", "wandb") and config.lowercase is False


@pytest.mark.parametrize(
    "spec", ["mlm", "mlm+nsp", "rtd:mask_rate=0.25+nsp:weight=0.5", "rtd: mask_rate=0.25", "rtd:mask_rate=1e-1"]
)
def test_a_specification_reaches_the_configuration_as_written(spec: str) -> None:
    assert parse(["--objective", spec]).objective == spec
    assert parse([f"--objective={spec}"]).objective == spec


def test_a_specification_may_be_a_mapping_on_the_command_line() -> None:
    assert parse(["--objective", "{rtd: {mask_rate: 0.25}}"]).objective == {"rtd": {"mask_rate": 0.25}}


def test_yaml_gives_settings_and_options_win_wherever_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, "objective: {rtd: {mask_rate: 0.25}, nsp: {weight: 0.5}}\nmax_steps: 5\nseed: 3\n")
    expected = Config(objective={"rtd": {"mask_rate": 0.25}, "nsp": {"weight": 0.5}}, max_steps=9, seed=3)
    assert parse(["--config", path, "--max_steps", "9"]) == expected
    assert parse(["--max_steps", "9", "--config", path]) == expected


def test_a_later_yaml_file_wins(tmp_path: Path) -> None:
    first, second = write(tmp_path, "seed: 1\nkeep: 3"), write(tmp_path, "seed: 2", "second.yaml")
    assert parse(["--config", first, "--config", second]) == Config(seed=2, keep=3)


def test_an_empty_yaml_file_changes_nothing(tmp_path: Path) -> None:
    assert parse(["--config", write(tmp_path, "# nothing yet\n")]) == Config()


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", ".001", "0.001", "'1e-3'", "1E-3"])
def test_yaml_numbers_are_numbers_however_written(tmp_path: Path, written: str) -> None:
    assert parse(["--config", write(tmp_path, f"learning_rate: {written}")]).learning_rate == 0.001


def test_yaml_words_are_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "mixed_precision: no\nlanguage: no\ntext_column: on\nlowercase: true\ntrackers: [a, b]\n")
    config = parse(["--config", path])
    assert config == Config(mixed_precision="no", language="no", text_column="on", lowercase=True, trackers=("a", "b"))


def test_one_misspelt_option_is_one_line() -> None:
    assert problems_of("--max_step", "5") == ["--max_step is unknown; did you mean --max_steps?"]
    assert problems_of("--max-steps", "5") == ["--max-steps is unknown; did you mean --max_steps?"]
    assert problems_of("--zzzz=5") == ["--zzzz is unknown; --help shows every option"]


def test_one_misspelt_name_in_yaml_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, "max_step: 5")
    assert problems_of("--config", path) == [f"{path}: max_step is unknown; did you mean max_steps?"]


def test_an_abbreviation_is_not_guessed() -> None:
    assert problems_of("--see", "3") == ["--see is unknown; did you mean --seed?"]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "learning_rat: 1\nbatch_size: 1.5\ncorpus: 2024\nseed:\nobjective: [mlm]\nlr: {a: b}\n")
    argv = "--max_step 5 --max_steps abc --keep 0 --encoder tinny --generator unifrm --objective rdt+nsp:wieght=2"
    found = problems_of("--config", path, *argv.split())
    assert [problem.split("; ")[0] for problem in found] == [
        "--max_step is unknown",
        f"{path}: learning_rat is unknown",
        f"{path}: batch_size is '1.5'",
        f"{path}: corpus is '2024'",
        f"{path}: seed is empty",
        f"{path}: objective is '['mlm']'",
        f"{path}: lr is unknown",
        "--max_steps is 'abc'",
        "objective 'rdt' is unknown",
        "objective 'nsp' has no option 'wieght'",
        "generator 'unifrm' is unknown",
        "encoder 'tinny' is unknown",
        "--keep is 0",
    ]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--seed", "abc"], "--seed is 'abc'; it must be a whole number"),
        (["--batch_size", "1.5"], "--batch_size is '1.5'; it must be a whole number"),
        (["--max_steps", "1e4"], "--max_steps is '1e4'; it must be a whole number: 10000"),
        (["--max_steps", "0"], "--max_steps is 0; it must be at least 1"),
        (["--max_steps", ""], "--max_steps is ''; it must be a whole number"),
        (["--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--seed", "true"], "--seed is 'true'; it must be a whole number"),
        (["--seed", str(2**63)], f"--seed is {2**63}; it must be at most {2**63 - 1}"),
        (["--dropout", "-1e-3"], "--dropout is -0.001; it must be in [0, 1)"),
        (["--learning_rate", "nan"], "--learning_rate is 'nan'; it must be a number"),
        (["--learning_rate", "fast"], "--learning_rate is 'fast'; it must be a number"),
        (["--lowercase", "maybe"], "--lowercase is 'maybe'; it must be true or false"),
        (["--seed"], "--seed needs a value: a whole number"),
        (["--config"], "--config needs a value: a text; in YAML, put it in quotes"),
        (["rtd"], "'rtd' belongs to no option; every setting is written --NAME VALUE"),
        (
            ["--corpus", "a.txt", "b.txt"],
            "--corpus takes one value, found a.txt b.txt (a glob, or a text with spaces, needs quotes)",
        ),
    ],
)
def test_a_value_of_no_use_is_one_line(argv: list[str], problem: str) -> None:
    assert problems_of(*argv) == [problem]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"seed: 1\nkeep: [1, 2\nmax_steps: 3\n", ", line 3: not YAML: "),
        (b"seed: 1\n\tkeep: 2\n", ", line 2: not YAML: "),
        (b"seed: 1\nkeep: 2\nseed: 3\n", ", line 3: not YAML: 'seed' stands there again"),
        (b"seed: !!python/object:os.system {}\n", ", line 1: not YAML: "),
        (b"seed: 1\x00", ": not YAML: "),
        (b"- mlm\n", " holds no settings; write one NAME: VALUE a line"),
        (b"mlm\n", " holds no settings; write one NAME: VALUE a line"),
        (b"seed: 1 # \xff\n", " is not UTF-8 at byte 10"),
    ],
)
def test_a_yaml_file_that_does_not_parse_is_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    (found,) = problems_of("--config", str(tmp_path / "run.yaml"))
    assert f"{tmp_path / 'run.yaml'}{problem}" in found


def test_a_yaml_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert problems_of("--config", f"{tmp_path}/x.yaml") == [f"--config {tmp_path}/x.yaml: No such file or directory"]
    assert problems_of("--config", str(tmp_path)) == [f"--config {tmp_path}: Is a directory"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--objective", "{rtd: {mask_rate: 0.25}, nsp: }", "--trackers", "tensorboard", "--out", "1e5"],
        ["--corpus", "no", "--tokenizer", "1_0", "--text_column", "null", "--mixed_precision", "no", "--cache", "~"],
        ["--learning_rate", "1e-5", "--adam_epsilon", "1e-12", "--max_minutes", "3", "--seed", str(2**63 - 1)],
    ],
)
def test_the_printed_configuration_reads_back_equal(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([*argv, "--print_config"])
    assert caught.value.code == 0
    assert parse(["--config", write(tmp_path, capsys.readouterr().out)]) == parse(argv)


def test_a_wrong_configuration_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert problems_of("--print_config", "--seed", "x") == ["--seed is 'x'; it must be a whole number"]
    assert capsys.readouterr().out == ""


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(st.text(), st.from_regex(r"[-+.0-9eE_~:xnoytrufals]{1,8}", fullmatch=True)), st.floats(), st.integers()
)
def test_any_value_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: float, count: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    written = {"corpus": text, "learning_rate": number, "seed": count, "objective": {text: {"weight": None}}}
    path.write_text(write_yaml(written), encoding="utf-8")
    assert repr(read_yaml(str(path))) == repr(written)  # repr: nan is nan, 1 is not 1.0


def test_resume_takes_the_settings_of_the_run(tmp_path: Path) -> None:
    run = record_run(tmp_path, objective="rtd:mask_rate=0.25", seed=3, trackers=("tensorboard",), log_every=7)
    config = parse(["--resume", run])
    assert config == Config.from_dict(
        {**Config(objective="rtd:mask_rate=0.25", seed=3, log_every=7).as_dict(), "trackers": ["tensorboard"]}
        | {"out": run, "resume": run}
    )


@pytest.mark.parametrize("name", sorted(HARMLESS - {"resume", "trackers", "cache", "snapshots"}))
def test_what_changes_nothing_that_is_learned_may_change(tmp_path: Path, name: str) -> None:
    run = record_run(tmp_path, objective="rtd")
    value = "numpy" if name == "loops" else True if getattr(Config(), name) is False else 9
    config = parse(["--resume", run, f"--{name}", str(value).lower()])
    assert config == dataclasses.replace(Config(objective="rtd", out=run, resume=run), **{name: value})


def test_everything_else_is_listed_with_old_and_new(tmp_path: Path) -> None:
    run = record_run(tmp_path, objective="rtd", max_steps=100)
    yaml_file = write(tmp_path, "max_steps: 200\nkeep: 5\n")
    argv = ["--resume", run, "--config", yaml_file, "--seed", "1", "--objective", "mlm", "--out", "elsewhere"]
    assert problems_of(*argv) == [
        f"--resume {run} can't change {change}; a new --out starts another run"
        for change in ("max_steps: 100 -> 200", "seed: 0 -> 1", "objective: rtd -> mlm", f"out: {run} -> elsewhere")
    ]


def test_the_same_setting_written_otherwise_is_the_same(tmp_path: Path) -> None:
    run = record_run(tmp_path, objective={"rtd": {"mask_rate": 0.25}}, generator="masked_lm:width_rate=0.5")
    argv = ["--objective", "rtd:mask_rate=.25", "--generator", "{masked_lm: {width_rate: 0.5}}", "--seed", "0"]
    assert parse(["--resume", run, *argv, "--out", f"{run}/../{tmp_path.name}"]).out == run


def test_a_run_that_was_moved_goes_on_where_it_is(tmp_path: Path) -> None:
    record_run(tmp_path)
    moved = tmp_path.rename(tmp_path.with_name("moved_run"))
    assert parse(["--resume", str(moved)]).out == str(moved)
    assert parse(["--resume", str(moved), "--out", str(moved)]).out == str(moved)
    moved.rename(tmp_path)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (None, "it has no run.json, so there is no run to go on with"),
        ("{", "run.json can't be read: "),
        ("[]", "run.json has no settings under 'config'"),
        ('{"config": 3}', "run.json has no settings under 'config'"),
        ('{"config": {"seeed": 3}}', "run.json: seeed is unknown; did you mean seed?"),
        ('{"config": {"seed": "x"}}', "run.json: seed is 'x'; it must be a whole number"),
    ],
)
def test_a_folder_that_holds_no_run_is_one_line(tmp_path: Path, record: str | None, problem: str) -> None:
    if record is not None:
        write(tmp_path, record, "run.json")
    (found,) = problems_of("--resume", str(tmp_path))
    assert problem in found and str(tmp_path) in found


def test_a_run_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    problem = f"--resume {tmp_path}/x: there is no such folder"
    assert problems_of("--resume", f"{tmp_path}/x", "--keep", "x") == [
        "--keep is 'x'; it must be a whole number",
        problem,
    ]


def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(["--seed", "x", "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_shows_every_setting_with_its_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys)
    words, meanings = " ".join(text.split()), read_meanings()
    assert list(meanings) == [field.name for field in dataclasses.fields(Config)]
    for field in dataclasses.fields(Config):
        shown = "" if field.default in (None, "", ()) else f" Default: {str(field.default).replace('False', 'false')}."
        assert re.search(rf" --{field.name} \S+ {re.escape(meanings[field.name] + shown)} ", words), field.name
    assert all(f"\n{title}:\n" in text for title in GROUPS.values())
    assert "python pretrain.py --objective rtd" in text and "torchrun --nproc_per_node 2" in text


def test_help_fits_a_narrow_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, help_text(capsys).splitlines())) <= 80


def test_help_names_every_objective_by_family_every_generator_and_every_recipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_text(capsys).partition("\nobjectives, composed")[2]
    families, generators, recipes = re.split(r"\n(?:generators|recipes),.*\n", text)
    found = {
        family: " ".join(names.split()).split(", ")
        for family, names in re.findall(r"^  (\S.*)\n((?: {6}.*\n)+)", families + "\n", flags=re.MULTILINE)
    }
    assert found == {family: list(members) for family, members in FAMILIES.items() if members}
    assert " ".join(generators.split()).split(", ") == list(GENERATORS)
    for name, recipe in RECIPES.items():
        described = re.search(rf"^  {name} (.*\n(?: {{15}}.*\n)*)", recipes, flags=re.MULTILINE)
        settings = ", ".join(f"{key}={value}" for key, value in recipe.settings.items())
        assert described and " ".join(described[1].split()) == settings


def test_a_table_that_is_not_there_is_a_bug(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text("KNOWN: dict = {}\n")
    assert read_table(tmp_path / "table.py", "KNOWN") == {}
    with pytest.raises(LookupError, match="has no table FAMILIES"):
        read_table(tmp_path / "table.py", "FAMILIES")


def replace_training(monkeypatch: pytest.MonkeyPatch, train: Callable[[Config], object]) -> None:
    module = ModuleType("training.loop")
    module.pretrain = train  # type: ignore[attr-defined]  # as the real one has
    monkeypatch.setitem(sys.modules, "training.loop", module)


def test_a_configuration_without_mistakes_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Config] = []
    replace_training(monkeypatch, trained.append)
    assert pretrain.main(["--seed", "4"]) == 0
    assert trained == [Config(seed=4)]


def test_mistakes_are_one_line_each_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main(["--seed", "x", "--sed", "4"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: --sed is unknown; did you mean --seed?\nerror: --seed is 'x'; it must be a whole number\n",
    )


def test_an_error_of_training_keeps_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Config) -> Path:
        raise TrainingError("not finite")

    replace_training(monkeypatch, fail)
    assert pretrain.main([]) == 3
    assert capsys.readouterr().err == "error: not finite\n"


def test_ctrl_c_before_training_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: Config) -> Path:
        raise KeyboardInterrupt

    replace_training(monkeypatch, interrupt)
    assert pretrain.main([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Config) -> Path:
        raise ZeroDivisionError

    replace_training(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        pretrain.main([])


def run_process(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_process_exits_with_two_and_no_traceback() -> None:
    done = run_process(["pretrain.py", "--max_step", "5", "--encoder", "tinny"])
    assert done.returncode == 2 and done.stdout == ""
    assert [line.split(";")[0] for line in done.stderr.splitlines()] == [
        "error: --max_step is unknown",
        "error: encoder 'tinny' is unknown",
    ]


@pytest.mark.slow
def test_help_and_a_missing_run_do_not_wait_for_what_trains() -> None:
    script = "import sys, pretrain; pretrain.main(['--resume', 'nowhere']); print(*sys.modules)"
    loaded = run_process(["-c", script]).stdout.split()
    assert "training.command" in loaded and not {"objectives", "generators", "training.loop", "accelerate"} & set(
        loaded
    )


@pytest.mark.slow
def test_ctrl_c_while_the_process_waits_for_its_settings_exits_with_130(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.yaml")
    argv = [sys.executable, "pretrain.py", "--config", str(tmp_path / "run.yaml")]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as process:
        with open(tmp_path / "run.yaml", "w"):  # opens when the process opens it to read
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err == "interrupted\n"
