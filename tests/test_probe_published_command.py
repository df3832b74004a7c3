"""`--senteval` and `--discoeval`: published data as a run and a study name them, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ablation.probe_sets import build_sets
from ablation.study import read_study
from corpora.errors import UserError
from probes.__main__ import main
from probes.command import describe_command, parse
from probes.progress import Progress
from probes.results import read_results
from tests.test_probe_suite import WORDS, save_encoder, write_text

COUNTS = {"train": 120, "valid": 40, "test": 60}


def write_shifts(path: Path) -> Path:
    """Write SentEval's lines: a sentence of which the first word tells the label."""
    rng = np.random.default_rng(2)
    lines = []
    for partition, count in zip(("tr", "va", "te"), COUNTS.values(), strict=True):
        for i in range(count):
            words = [WORDS[word] for word in rng.integers(4, len(WORDS), size=6)]
            lines.append(f"{partition}\t{'OI'[i % 2]}\t{' '.join([WORDS[i % 2], *words])}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pairs(folder: Path) -> Path:
    """Write DiscoEval's pairs of sentences in their order: the first of them begins with one of two words."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    for stem, count in COUNTS.items():
        drawn = rng.integers(4, len(WORDS), size=(count, 2, 5))
        pairs = [[" ".join(WORDS[word] for word in words) for words in pair] for pair in drawn]
        (folder / f"{stem}.txt").write_text("".join(f"{WORDS[i % 2]} {a}\t{b}\n" for i, (a, b) in enumerate(pairs)))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both kinds of data and an encoder, worked in."""
    write_shifts(tmp_path / "bigram_shift.txt")
    write_pairs(tmp_path / "bso")
    save_encoder(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_published_data_that_stand_alone_are_all_that_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--senteval", "bigram_shift.txt", "--discoeval", f"bso={here}/bso", "--size", "300"]
    assert main(["runs/a", *given]) == 0
    results = read_results(here / "probed" / "results.json")
    assert [probe.name for probe in results.probes] == ["senteval_bigram_shift", "discoeval_bso"]
    assert [sum(probe.items.values()) for probe in results.probes] == [220, 298]  # of 220 and 440: `--size`
    assert list(results.sources) == ["SentEval", "DiscoEval"]
    assert results.sources["DiscoEval"] == "bso (bso); whether an encoder has read them is not known"
    assert results.find_summary("a", "senteval_bigram_shift").score > 0.8
    assert results.find_summary("a", "discoeval_bso").score > 0.8
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "senteval_bigram_shift" in printed
    assert str(here) not in (here / "probed" / "results.json").read_text()


@pytest.mark.slow
def test_beside_a_suite_both_are_asked(here: Path) -> None:
    write_text(here / "text.txt")
    given = ["--probes", "bigram_shift", "--corpus", "text.txt", "--senteval", "bigram_shift.txt", "--size", "400"]
    assert main(["runs/a", *given]) == 0
    results = read_results(here / "probed" / "results.json")
    assert [probe.name for probe in results.probes] == ["bigram_shift", "senteval_bigram_shift"]
    assert list(results.sources) == ["Text", "SentEval"]


def test_the_suite_beside_published_data_is_what_else_is_named(here: Path) -> None:
    data = ["--senteval", "bigram_shift.txt"]
    assert parse(["a", *data]).suite == "published"
    assert parse(["a", *data, "--suite", "raw"]).suite == "raw"
    assert parse(["a", *data, "--corpus", "text.txt"]).suite == "raw"
    assert parse(["a", *data, "--probes", "casing"]).suite == "raw"
    assert parse(["a", *data, "--treebank", "train.conllu"]).suite == "all"
    assert parse(["a", "--discoeval", "bso=bso"]).published.names == ("discoeval_bso",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--senteval", "shift.txt"], "there is no file 'shift.txt'; name a file of the data set"),
        (["--senteval", "notes.txt"], "notes.txt: task 'notes' is unknown; the file's name says which it is: sen"),
        (["--senteval"], "--senteval: expected at least one argument"),
        (["--senteval", *2 * ["bigram_shift.txt"]], "senteval_bigram_shift is asked of two places; name one of them"),
        (["--discoeval", "bso"], "--discoeval is 'bso'; write TASK=FOLDER, as in --discoeval bso=wiki/bso"),
        (["--discoeval", "bos=bso"], "DiscoEval task 'bos' is unknown; known: bso, sp, dc, ssp"),
        (["--discoeval", "bso=bsow"], "there is no folder 'bsow' of DiscoEval's bso; name one that holds train.txt"),
        (["--discoeval", "bso=runs"], "runs has no train.txt; DiscoEval's folders hold train.txt, valid.txt and test"),
        (["--discoeval", "sp=bso"], "bso/train.txt, line 1: 2 columns, not the 6 of SP; mend the line"),
        (["--senteval", "past_present.txt"], "past_present.txt, line 2: 2 columns, not the 3 of SentEval"),
        (["--suite", "published"], "--suite published wants --senteval FILES or --discoeval TASK=FOLDER"),
        (
            ["--senteval", "bigram_shift.txt", "--probes", "senteval_bigram_shift"],
            "probe 'senteval_bigram_shift' is unknown here (published data that are given are always asked); known: ",
        ),
    ],
)
def test_a_mistake_in_published_data_is_told_in_one_line(
    arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "notes.txt").write_text("tr\tO\tA sentence .\n")
    (here / "past_present.txt").write_text("tr\tPAST\tIt was .\nPRES\tIt is .\n")
    assert main(["runs/a", *arguments]) == 2
    out, complaint = capsys.readouterr()
    assert out == "" and complaint.startswith("error: ") and complaint.count("\n") == 1
    assert said in complaint
    assert not (here / "probed").exists()


def test_the_command_that_is_kept_names_no_folder_of_the_machine(here: Path) -> None:
    command = describe_command(["runs/a", "--discoeval", f"bso={here}/bso", "--group", "rtd=/home/me/runs/rtd-*"])
    assert command == "python -m probes a --discoeval bso=bso --group 'rtd=rtd-*'"


def write_study(folder: Path, **probes: object) -> str:
    (folder / "study.yaml").write_text(yaml.safe_dump({"arms": ["mlm", "rtd"], "budget": "10m", "probes": probes}))
    return str(folder / "study.yaml")


def test_a_study_asks_published_data_once_for_all_its_encoders(here: Path) -> None:
    data = {"senteval": ["bigram_shift.txt"], "discoeval": {"bso": "bso"}}
    study = read_study(write_study(here, **data, size=300, trajectory={"only": ["discoeval_bso"]}))
    assert study.probing.suite == "published" and study.probing.trajectory_only == ("discoeval_bso",)
    built = build_sets(study.probing, study.config_of(study.arms[0]), 0, Progress(None))
    assert [(probe.name, len(probe.labels)) for probe in built.probes] == [
        ("senteval_bigram_shift", 220),
        ("discoeval_bso", 298),
    ]
    assert list(built.sources) == ["SentEval", "DiscoEval"]
    assert read_study(write_study(here, **data, suite="raw")).probing.suite == "raw"
    assert read_study(write_study(here, **data, only=["casing"])).probing.suite == "raw"


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ({"discoeval": {"bso": "nowhere"}}, "probes: there is no folder 'nowhere' of DiscoEval's bso; name one that"),
        ({"discoeval": {"bos": "bso"}}, "probes: DiscoEval task 'bos' is unknown; known: bso, sp, dc, ssp"),
        ({"discoeval": ["bso"]}, "probes: discoeval is ['bso']; write a mapping, TASK: FOLDER"),
        ({"senteval": ["tense.txt"]}, "probes: there is no file 'tense.txt'; name a file of the data set"),
        ({"senteval": 3}, "probes: senteval is 3; write a list of names"),
        ({"suite": "published"}, "probes: suite published wants senteval: [FILE, ...] or discoeval: {TASK: FOLDER}"),
        ({"suite": "none", "discoeval": {"bso": "bso"}}, "probes: suite none asks nothing, and senteval or discoeval"),
        (
            {"discoeval": {"bso": "bso"}, "trajectory": {"only": ["discoeval_sp"]}},
            "probes: trajectory: 'discoeval_sp' is not among the probes of the study; did you mean discoeval_bso?",
        ),
    ],
)
def test_a_study_with_a_mistake_in_its_published_data_is_refused_in_one_line(
    probes: dict[str, object], said: str, here: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read_study(write_study(here, **probes))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(said)


def test_a_hypothesis_may_name_them_and_one_that_names_what_is_not_asked_is_refused(here: Path) -> None:
    claim = dict.fromkeys(("name", "claim", "source"), "order") | {"better": "rtd", "worse": "mlm"}
    settings = {"arms": ["mlm", "rtd"], "budget": "10m", "probes": {"discoeval": {"bso": "bso"}}}

    def read(measure: str) -> object:
        text = yaml.safe_dump(settings | {"hypotheses": [claim | {"measure": measure}]})
        (here / "study.yaml").write_text(text)
        return read_study(str(here / "study.yaml")).hypotheses[0].measure

    assert read("discoeval_bso@last - discoeval_bso") == "discoeval_bso@last - discoeval_bso"
    assert read("held_out:mlm.loss") == "held_out:mlm.loss"
    with pytest.raises(UserError, match="^hypothesis order: measure names the probe discoeval_sp, which the study"):
        read("discoeval_bso - discoeval_sp")
