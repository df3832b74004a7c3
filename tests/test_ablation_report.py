"""The report of a study: its page, its figures, its tables, and what it says where something is missing."""

import base64
import csv
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ablation.report import write_report
from ablation.report.arms import list_against, split_marks
from ablation.report.cost import list_costs, list_terms
from ablation.report.drawing import list_lines
from ablation.report.finding import tell_finding
from ablation.report.latex import escape_latex, write_latex
from ablation.report.matrix import list_rows
from ablation.report.measures import (
    Outcomes,
    find_front,
    find_onset,
    list_columns,
    list_gains,
    list_mean_gains,
    list_quantities,
    list_unequal,
    mean_band,
    mean_interval,
)
from ablation.report.missing import list_missing, name_missing
from ablation.report.notation import count, power_of_ten, scientific
from ablation.report.onset import list_onsets
from ablation.report.tables import list_tables
from ablation.results import CellFailure, StudyResults, read_study_results

from .ablation_records import FLOORS, STEPS, make_study, score_of

HOSTILE = "<script>alert(1)</script> & \"<img src='https://x.test/y'>\" %_^\\"
TINY = {"arms": ("mlm", "rtd"), "seeds": (0, 1), "probes": ("casing",)}  # drawing takes most of the time


class Page(HTMLParser):
    """The tags of a page, the attributes by name, and the text of table cells by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self._is_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._is_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._is_cell = self._is_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.rows[-1][-1] += f" {data}" if self.rows[-1][-1] else data

    def find_row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResults, Path]:
    """Return a study of two arms and two seeds with hostile names in it, and the folder of its report."""
    study = make_study(**TINY)
    runs = [replace(run, example=f"text: {HOSTILE} [in<-on]") if run.example else run for run in study.runs]
    failure = CellFailure(arm="mlm", seed=0, probe="casing", step=10, error=HOSTILE)
    study = replace(study, title=HOSTILE, runs=tuple(runs), threats=(HOSTILE,), failures=(failure,))
    folder = tmp_path_factory.mktemp("report")
    assert write_report(study, folder) == folder / "index.html"
    return study, folder


def test_equal_results_give_equal_bytes(written: tuple[StudyResults, Path], tmp_path: Path) -> None:
    study, folder = written
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "of_an_arm_that_is_no_more.svg").write_text("")
    write_report(study, tmp_path)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(name) for name in names} >= {"index.html", "main.tex", "results.json", "tables/matrix.csv"}
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert read_study_results(folder / "results.json") == study


def test_text_of_the_corpus_shows_as_text(written: tuple[StudyResults, Path]) -> None:
    text = (written[1] / "index.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags
    assert (
        text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2 + 1 + 1 + 1 + 2
    )  # titles, failure, threat, cite, arms
    assert "<mark>[in&lt;-on]</mark>" in text


def test_nothing_leaves_the_page_and_its_policy_would_not_let_it(written: tuple[StudyResults, Path]) -> None:
    text = (written[1] / "index.html").read_text()
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on") or name == "src"]
    outward = [(tag, value) for tag, name, value in page.attributes if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for tag, value in outward if tag != "a")
    assert [value for _, value in outward if not value.startswith("#")] == ["https://arxiv.org/abs/2003.10555"]
    assert "@import" not in text and not re.findall(r"url\((?!#)", text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = [value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src")]
    assert policy == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(written: tuple[StudyResults, Path]) -> None:
    page = Page((written[1] / "index.html").read_text())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {value[1:] for tag, name, value in page.attributes if name in ("href", "xlink:href") and value[0] == "#"}
    assert wanted <= set(ids)


def test_figures_as_files_stand_alone(written: tuple[StudyResults, Path]) -> None:
    paths = sorted((written[1] / "figures").iterdir())
    names = ["cost", "differences", "hypotheses", "layers", "training-arm-1", "training-arm-2", "trajectories"]
    assert [path.stem for path in paths] == names
    for path in paths:
        text = path.read_text()
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") and "var(" not in text and "currentColor" not in text, path
        assert root[0].attrib["fill"] == "#ffffff"
    layers = (written[1] / "figures" / "layers.svg").read_text()
    assert "#0072b2" in layers and "#c8500a" in layers and ">untrained<" in layers  # both arms and the legend


def test_an_arm_has_one_colour_and_marker_in_every_figure() -> None:
    lines = list_lines(make_study(arms=[f"arm {number}" for number in range(20)], seeds=(0,), probes=()))
    looks = [(line.colour, line.marker) for line in lines.values()]
    assert len(set(looks)) == 21 and looks[-1] == ("currentColor", "x")


def test_tables_hold_what_the_records_hold() -> None:
    study = make_study()
    tables = {
        table.name: list(csv.DictReader(io.StringIO(table.write()))) for table in list_tables(study, list_rows(study))
    }
    assert study.probes is not None
    matrix = {(row["arm"], row["probe"]): row for row in tables["matrix"]}
    assert len(matrix) == 4 * 4
    for summary in study.probes.summaries:
        row = matrix[summary.group, summary.probe]
        assert [float(row[name]) for name in ("score", "low", "high")] == [summary.score, summary.low, summary.high]
        assert (row["seeds"], row["layers"], row["flag"]) == ("5", "2 2 2 2 2", summary.flag)
    assert [float(row["p_holm"]) for row in tables["differences"]] == [each.p_holm for each in study.probes.comparisons]
    assert [float(row["score"]) for row in tables["layers"]] == [score.score for score in study.probes.scores]
    assert sum(row["chosen"] == "yes" for row in tables["layers"]) == 4 * 5 * 4
    assert [float(row["flops"]) for row in tables["trajectories"]] == [each.flops for each in study.trajectories]
    assert [(row["arm"], row["seed"]) for row in tables["runs"]] == [(run.arm, str(run.seed)) for run in study.runs]
    assert tables["held_out"][0] == {"arm": "mlm", "seed": "0", "loss": "mlm", "figure": "loss", "value": "6.0"}
    assert tables["hypotheses"][2]["difference"] == "" and tables["hypotheses"][0]["difference"] == "0.1"
    assert [row["arm"] for row in tables["arms"]] == ["mlm", "rtd", "nsp", "untrained"]


def test_what_failed_says_so_in_page_tables_and_latex(tmp_path: Path) -> None:
    study = make_study(arms=("mlm", "rtd", "nsp"), seeds=(0, 1), probes=("casing", "word_content"))
    assert study.probes is not None
    runs = [
        replace(run, status="failed", error="loss is nan", steps=310, held_out={}) if run.arm == "nsp" else run
        for run in study.runs
    ]
    summaries = [
        replace(each, seeds=1) if (each.group, each.probe) == ("rtd", "casing") else each
        for each in study.probes.summaries
        if each.group != "nsp" and (each.group, each.probe) != ("mlm", "casing")
    ]
    compared = [each for each in study.probes.comparisons if "nsp" not in (each.a, each.b)]
    probes = replace(
        study.probes,
        encoders=tuple(each for each in study.probes.encoders if each.group != "nsp"),
        scores=tuple(each for each in study.probes.scores if not each.encoder.startswith("nsp")),
        summaries=tuple(summaries),
        comparisons=tuple(each for each in compared if (each.probe, each.a) != ("casing", "mlm")),
    )
    failures = tuple(CellFailure(arm="mlm", seed=seed, probe="casing", error="too little text") for seed in (0, 1))
    study = replace(study, runs=tuple(runs), probes=probes, failures=failures)
    write_report(study, tmp_path)
    page = Page((tmp_path / "index.html").read_text())
    casing = next(row for row in page.rows if row[0] == "casing accuracy")
    assert casing[1] == "failed" and casing[3] == "failed" and "1 of 2 seeds" in casing[2]
    assert page.find_row("nsp")[1:] == ["0, 1", "the run, stopped at step 310", "loss is nan"]
    assert page.find_row("mlm")[1:] == ["0, 1", "casing", "too little text"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "matrix.csv").read_text())))
    missing = {(row["arm"], row["probe"]): (row["score"], row["missing"]) for row in rows}
    assert missing["nsp", "word_content"] == ("", "failed") and missing["mlm", "casing"] == ("", "failed")
    assert r"\textit{failed}" in (tmp_path / "main.tex").read_text()
    assert "2 runs failed, 2 results missing" in (tmp_path / "index.html").read_text()


def test_a_run_to_come_is_no_failure() -> None:
    study = make_study(**TINY)
    runs = [replace(run, status="waiting") if run.arm == "mlm" else run for run in study.runs]
    waiting = replace(study, runs=tuple(runs))
    assert name_missing(waiting, "mlm", "casing", None) == "not run yet"
    assert name_missing(study, "mlm", "casing", None) == "not probed"
    assert [(each.arm, each.seeds, each.why) for each in list_missing(waiting)] == [("mlm", (0, 1), "not finished yet")]


@pytest.mark.parametrize("what", ["one arm", "one seed", "no trajectories", "no probes", "nothing ran"])
def test_a_report_of_little_is_written(what: str, tmp_path: Path) -> None:
    study = make_study(**(TINY | {"one arm": {"arms": ("mlm",)}, "one seed": {"seeds": (7,)}}.get(what, {})))
    if what == "no trajectories":
        study = replace(study, trajectories=(), hypotheses=(), threats=())
    if what in ("no probes", "nothing ran"):
        study = replace(study, probes=None, trajectories=())
    if what == "nothing ran":
        runs = [replace(run, status="waiting", curve=(), held_out={}, example=None, seconds=0) for run in study.runs]
        study = replace(study, runs=tuple(runs))
    write_report(study, tmp_path)
    text = (tmp_path / "index.html").read_text()
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    said = {
        "one seed": "it says nothing of other seeds",
        "no trajectories": "No encoder was probed on the way",
        "no probes": "No encoder was probed.",
        "nothing ran": "No encoder was probed: see what is missing, above.",
    }
    assert said.get(what, "<h2>Objectives by probes</h2>") in text
    assert ("trajectories" in figures) == (what in ("one arm", "one seed"))
    assert ("layers" in figures) == (what not in ("no probes", "nothing ran"))
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower().replace("finance", "")


def test_latex_prints_names_as_they_are() -> None:
    assert escape_latex("a_b & 50% #1 {x} $~^\\") == (
        r"a\_b \& 50\% \#1 \{x\} \$\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    study = make_study(arms=("mlm", "r&d_100%"))
    text = write_latex(study, list_rows(study), list_mean_gains(study))
    assert r"Probe & mlm & r\&d\_100\% & untrained & Floor \\" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 4, line
    score = 100 * score_of(0, 1, 2, FLOORS["casing"])
    assert re.search(rf"casing & (\\textbf{{)?{score:.1f}", text)


def test_many_arms_make_blocks_of_five() -> None:
    study = make_study(arms=[f"arm{number}" for number in range(8)], probes=("casing",))
    text = write_latex(study, list_rows(study), list_mean_gains(study))
    heads = [line for line in text.splitlines() if line.startswith("Probe")]
    assert [line.count("&") for line in heads] == [6, 5]  # five arms, then three and the untrained one, and the floor


def test_the_gain_of_an_arm_is_the_mean_way_from_floor_to_one() -> None:
    study = make_study(seeds=(0, 4))
    assert study.probes is not None
    assert set(study.probes.list_counted()) == set(FLOORS)
    ways = [
        [(score_of(1, number, seed, floor) - floor) / (1 - floor) for number, floor in enumerate(FLOORS.values())]
        for seed in (0, 4)
    ]
    assert list_gains(study.probes, "rtd") == pytest.approx([sum(way) / 4 for way in ways])
    gain = list_mean_gains(study)["rtd"]
    middle = sum(map(sum, ways)) / 8
    reach = 12.7062 * abs(sum(ways[1]) - sum(ways[0])) / 4 / 2  # t(1 degree) x the difference / root 2 / root 2
    assert (gain.value, gain.high - gain.value) == (pytest.approx(middle), pytest.approx(reach, rel=1e-5))


def test_a_band_is_over_seeds_from_three_on() -> None:
    study = make_study(seeds=(0, 1, 2), probes=("casing",))
    assert study.probes is not None
    scores = [score for score in study.probes.scores if score.encoder.startswith("mlm/") and score.layer == 2]
    assert mean_band(scores) == mean_interval([score.score for score in scores])
    two = mean_band(scores[:2])
    assert (two.value - two.low, two.high - two.value) == (pytest.approx(0.03), pytest.approx(0.03))


def test_the_front_holds_what_nothing_beats_at_its_price() -> None:
    points = {"dear": (3.0, 0.5), "cheap": (1.0, 0.2), "poor": (2.0, 0.1), "equal": (1.0, 0.1), "good": (2.0, 0.5)}
    assert find_front(points) == ["cheap", "good"]


def test_unequal_terms_are_named() -> None:
    study = make_study()
    quantities = {each.key: each for each in list_quantities(study)}
    assert list_unequal(quantities["flops"]) == [] and quantities["flops"].spread == pytest.approx(0.004)
    assert list_unequal(quantities["tokens"]) == [
        ("rtd", "mlm", pytest.approx(0.15)),
        ("nsp", "mlm", pytest.approx(0.3)),
        ("nsp", "rtd", pytest.approx(0.15 / 1.15)),
    ]
    assert quantities["time"].of_arm == {"mlm": 92.0, "rtd": 92.0, "nsp": 92.0}  # 90 s, and the mean seed
    terms = {each.quantity.key: (each.least, each.most, len(each.unequal), each.pairs) for each in list_terms(study)}
    assert terms["tokens"] == ("mlm", "nsp", 3, 3) and terms["flops"][2] == 0
    assert [cell for _, cell in list_costs(study, {})[2].cells] == [
        None, pytest.approx(0.3), pytest.approx(0.2), None, None,
    ]  # fmt: skip


def test_an_arm_beats_what_it_is_above_after_correction_only() -> None:
    study = make_study()
    assert study.probes is not None
    outcomes = Outcomes(study)
    found = outcomes.find("casing", "mlm", "rtd")
    turned = outcomes.find("casing", "rtd", "mlm")
    assert found is not None and turned is not None
    assert (turned.difference, turned.low, turned.high) == (-found.difference, -found.high, -found.low)
    above = "rtd" if found.difference < 0 else "mlm"
    assert above in ("rtd", "mlm") and outcomes.beaten_by("casing", above).count("untrained") == 1
    weak = [replace(each, p_holm=0.06) if each.probe == "casing" else each for each in study.probes.comparisons]
    weaker = replace(study, probes=replace(study.probes, comparisons=tuple(weak)))
    assert Outcomes(weaker).beaten_by("casing", above) == []
    against = {each.other: each for each in list_against(weaker, "mlm")}
    assert "casing" not in against["untrained"].above and against["untrained"].compared == 4


def test_columns_are_numbered_as_the_marks_say() -> None:
    study = make_study()
    assert list_columns(study) == ["mlm", "rtd", "nsp", "untrained"]
    for row in list_rows(study):
        scores = {cell.arm: cell.summary.score for cell in row.cells if cell.summary}
        for cell in row.cells:
            assert [list_columns(study)[number - 1] for number in cell.beats] == [
                other for other in list_columns(study) if scores[other] < scores[cell.arm] - 0.01
            ]


def test_a_probe_stands_from_the_step_after_which_it_never_falls_back() -> None:
    study = make_study(arms=("mlm",), seeds=(0, 1), probes=("casing",))
    points = [point for point in study.trajectories if point.seed == 0]
    lows = (0.7, 0.5, 0.7, 0.7)
    steps = [[replace(point, low=low)] for point, low in zip(points, lows, strict=True)]
    found = find_onset(steps, 0.6)
    assert found is not None and found[0].step == STEPS[2]
    assert find_onset(steps, 0.7) is None
    arms, rows = list_onsets(study)
    (cell,) = rows[0].cells
    end = score_of(0, 0, 0, FLOORS["casing"])  # of the lower seed; its intervals reach 0.02 down
    rise = (end - FLOORS["casing"] + 0.02) / 3
    first = next(place for place in range(4) if 0.6 - 0.02 + rise * place - 0.02 > 0.6005)
    assert arms == ["mlm"] and cell is not None and cell.share == STEPS[first] / 1000


def test_the_finding_claims_what_the_records_bear_out() -> None:
    study = make_study()
    gains = list_mean_gains(study)
    sentences = tell_finding(study, list_rows(study), gains)
    best = max((gain for gain in gains.values() if gain.is_trained), key=lambda gain: gain.value)
    assert sentences[0].startswith(
        "3 arms (mlm, rtd, nsp), beside untrained, 5 seeds each, at equal FLOPs (1e+12 FLOPs"
    )
    assert f"is {best.arm}'s, {100 * best.value:.1f} [" in sentences[1]
    assert study.probes is not None
    firm = sum(each.p_holm < 0.05 for each in study.probes.comparisons if each.p_holm is not None)
    assert sentences[2].startswith(
        f"Of 24 comparisons of two arms on a probe {firm} stand after Holm's correction; a true"
    )
    assert sentences[-1] == "Of 3 hypotheses: 1 reproduced, 1 undecided, 1 not run."
    few = make_study(seeds=(0, 1))
    assert "have an interval that leaves out 0, without correction" in tell_finding(few, list_rows(few), gains)[2]


def test_figures_are_written_as_people_read_them() -> None:
    assert [scientific(value) for value in (2.1e12, 950.0, 1e-5)] == ["2.10 × 10¹²", "950", "1e-05"]
    assert [count(value) for value in (999, 9999, 12_345, 1_234_567, 2.5e9)] == [
        "999",
        "9,999",
        "12.3 k",
        "1.23 M",
        "2.5 G",
    ]
    assert [power_of_ten(value) for value in (1e9, 3e10)] == ["10⁹", "3 × 10¹⁰"]
    assert split_marks("a [b<-c] [d] [e<-]") == [("a ", False), ("[b<-c]", True), (" [d] ", False), ("[e<-]", True)]
