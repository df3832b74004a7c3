"""The record of a probing run, its table for the terminal and its page."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from corpora.errors import StorageError, UserError
from probes.report import print_table, render_page
from probes.results import (
    Comparison,
    EncoderRecord,
    ProbeRecord,
    Results,
    Score,
    Summary,
    read_results,
    write_results,
)

HOSTILE = "<img src=x onerror=alert(1)>"
FLOORS = {"bigram_shift": 0.5, "casing": 0.6, "word_content": 0.2}
REACHED = {  # (group, probe) -> score
    ("untrained", "bigram_shift"): 0.5,
    ("untrained", "casing"): 0.7,
    ("untrained", "word_content"): 0.36,
    ("mlm", "bigram_shift"): 0.5,
    ("mlm", "casing"): 0.8,
    ("mlm", "word_content"): 0.6,
    ("rtd", "bigram_shift"): 0.51,
    ("rtd", "casing"): 0.9,
    ("rtd", "word_content"): 0.4,
}


def make_results(**changes: object) -> Results:
    """Return the record of two encoders and an untrained one on three probes, bigram_shift at its floor for all."""
    encoders = [
        EncoderRecord(name=name, group=name, location=name, is_trained=name != "untrained", layers=2, width=128)
        for name in ("untrained", "mlm", "rtd")
    ]
    probes = [
        ProbeRecord(
            name=name,
            question="What is asked?",
            metric="accuracy",
            classes=("no", "yes"),
            items={"train": 600, "dev": 150, "test": 250},
            documents=40,
            floors={"majority": floor - 0.1, "bag_of_words": floor},
        )
        for name, floor in FLOORS.items()
    ]
    scores, summaries = [], []
    for (group, probe), reached in REACHED.items():
        flag = "floor" if probe == "bigram_shift" else ""
        for layer, below in enumerate((0.1, 0.05, 0.0)):
            scores.append(
                Score(
                    encoder=group,
                    probe=probe,
                    layer=layer,
                    score=reached - below,
                    low=reached - below - 0.03,
                    high=reached - below + 0.02,
                    dev=reached - below,
                    items=250,
                    is_chosen=layer == 2,
                    flag=flag,
                )
            )
        summaries.append(
            Summary(
                group=group,
                probe=probe,
                score=reached,
                low=reached - 0.03,
                high=reached + 0.02,
                seeds=1,
                layers=(2,),
                flag=flag,
            )
        )
    comparison = Comparison(
        probe="casing",
        a="rtd",
        b="mlm",
        difference=0.1,
        low=0.06,
        high=0.14,
        method="paired bootstrap over documents",
        seeds=(1, 1),
        claim="checkpoints",
    )
    made = Results(
        command="python -m probes mlm rtd",
        created="2026-01-01T00:00:00+00:00",
        settings={"kind": "linear"},
        sources={"Text": "12 documents that mlm held out"},
        versions={"torch": "2"},
        encoders=tuple(encoders),
        probes=tuple(probes),
        scores=tuple(scores),
        summaries=tuple(summaries),
        comparisons=(comparison,),
    )
    return replace(made, **changes)


def print_to_text(results: Results) -> str:
    stream = io.StringIO()
    print_table(results, Console(file=stream, width=80, force_terminal=False))
    return stream.getvalue()


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    results = make_results(skipped={"sentence_position": "too little text"}, failed={"sop": "no weights"})
    write_results(tmp_path / "deep" / "results.json", results)
    assert read_results(tmp_path / "deep" / "results.json") == results
    raw = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert raw["schema_version"] == 1
    assert [score for score in raw["scores"] if score["encoder"] == "rtd" and score["probe"] == "casing"][2] == {
        "encoder": "rtd",
        "probe": "casing",
        "layer": 2,
        "subset": "all",
        "metric": "accuracy",
        "score": 0.9,
        "low": 0.87,
        "high": 0.92,
        "dev": 0.9,
        "items": 250,
        "is_chosen": True,
        "flag": "",
        "control": None,
        "selectivity": None,
        "mdl_bits": None,
        "compression": None,
        "mix": None,
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"]


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    refused = {'{"schema_version": 2}': "schema_version 2", "[]": "schema_version None", "{": "can't be read"}
    for text, said in refused.items():
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_results(path)


def test_a_disk_that_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--out DIR"):
        write_results(tmp_path / "file" / "results.json", make_results())


def test_the_gain_leaves_out_probes_where_all_are_at_the_floor() -> None:
    results = make_results()
    assert results.list_counted() == ["casing", "word_content"]
    assert results.mean_gain("mlm") == pytest.approx(((0.8 - 0.6) / 0.4 + (0.6 - 0.2) / 0.8) / 2)
    assert results.mean_gain("rtd") == pytest.approx(((0.9 - 0.6) / 0.4 + (0.4 - 0.2) / 0.8) / 2)
    one_above = [replace(s, flag="") if s.group == "rtd" else s for s in results.summaries]
    assert replace(results, summaries=tuple(one_above)).list_counted() == ["bigram_shift", "casing", "word_content"]


def test_a_baseline_that_is_always_right_is_no_floor() -> None:
    probe = replace(make_results().probes[0], floors={"majority": 0.1, "length": 0.3, "words": 1.0})
    assert (probe.floor_name, probe.floor) == ("length", 0.3)
    assert (replace(probe, floors={}).floor_name, replace(probe, floors={}).floor) == ("nothing", 0.0)


def test_a_group_that_lacks_a_counted_probe_has_no_gain() -> None:
    results = make_results()
    fewer = [each for each in results.summaries if (each.group, each.probe) != ("untrained", "casing")]
    assert replace(results, summaries=tuple(fewer)).mean_gain("untrained") is None


def test_the_table_fits_eighty_columns_and_shows_floors_beside_scores() -> None:
    lines = print_to_text(make_results()).splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert rows["casing"] == ["60.0", "70.0", "80.0", "±2.5", "L2", "90.0", "±2.5", "L2"]
    assert rows["bigram_shift"] == ["50.0", "50.0", "50.0_±2.5", "L2", "51.0_±2.5", "L2"]
    assert rows["gain"] == ["0.0", "22.5", "50.0", "50.0"]
    assert "casing: rtd - mlm +10.0 [6.0, 14.0]" in "\n".join(lines)
    assert "These figures are about these checkpoints" in "\n".join(lines)


def test_many_encoders_make_several_tables_that_fit() -> None:
    results = make_results()
    names = [f"a run with a long name {number}" for number in range(7)]
    encoders = [replace(results.encoders[1], name=name, group=name) for name in names]
    summaries = [replace(s, group=name) for name in names for s in results.summaries if s.group == "mlm"]
    text = print_to_text(replace(results, encoders=(results.encoders[0], *encoders), summaries=tuple(summaries)))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\nword_content") == 3


def test_what_is_missing_is_named_first_in_table_and_page() -> None:
    results = make_results(failed={"sop": "its weights are broken"}, skipped={"sentence_position": "too little text"})
    lines = print_to_text(results).splitlines()
    assert lines[0] == "missing: sop: its weights are broken"
    assert lines[1] == "left out: sentence_position: too little text"
    page = render_page(results)
    assert page.index("Missing: sop.") < page.index("<h2>Scores</h2>")


def test_classes_that_were_too_rare_are_named_above_the_table() -> None:
    results = make_results()
    first = replace(results.probes[0], note="Universal tags of all words. Left out as too rare: SYM, X.")
    lines = print_to_text(replace(results, probes=(first, *results.probes[1:]))).splitlines()
    assert lines[0] == f"left out of {first.name}, as too rare: SYM, X"


def test_a_claim_about_objectives_wants_five_seeds_everywhere() -> None:
    results = make_results()
    assert results.claim == "checkpoints" and "about these checkpoints" in render_page(results)
    firm = replace(results.comparisons[0], claim="objective", seeds=(5, 5), p=0.001, p_holm=0.2, detectable=0.03)
    assert replace(results, comparisons=(firm,)).claim == "objective"
    page = render_page(replace(results, comparisons=(firm,)))
    assert "may speak about the objectives" in page and "<strong>+10.0</strong>" not in page  # p is not small enough
    assert replace(results, comparisons=(firm, results.comparisons[0])).claim == "checkpoints"


class _Tags(HTMLParser):
    """Collects tags, and attributes by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_obeys_the_policy_it_states() -> None:
    page = render_page(make_results())
    found = _Tags(page)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert "style" not in names and not any(name.startswith("on") for name in names)
    fetched = [value for name, value in found.attributes if name in ("src", "href", "xlink:href")]
    assert fetched and all(value.startswith("#") for value in fetched)
    assert "url(" not in re.sub(r"url\(#", "", page) and "@import" not in page
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [value for name, value in found.attributes if name == "content" and value and "default-src" in value]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_names_from_outside_are_escaped_in_text_and_pictures() -> None:
    results = make_results()
    encoders = [replace(each, name=HOSTILE, group=HOSTILE) if each.name == "rtd" else each for each in results.encoders]
    scores = [replace(each, encoder=HOSTILE) if each.encoder == "rtd" else each for each in results.scores]
    summaries = [replace(each, group=HOSTILE) if each.group == "rtd" else each for each in results.summaries]
    page = render_page(
        replace(
            results,
            encoders=tuple(encoders),
            scores=tuple(scores),
            summaries=tuple(summaries),
            failed={HOSTILE: HOSTILE},
            command=HOSTILE,
        )
    )
    assert "<img" not in page and "&lt;img src=x" in page


def test_every_picture_has_ids_of_its_own_and_a_line_for_each_encoder() -> None:
    page = render_page(make_results())
    pictures = re.findall(r'<svg [^>]*role="img".*?</svg>', page, re.DOTALL)
    assert len(pictures) == 3
    ids = [re.findall(r' id="([^"]+)"', picture) for picture in pictures]
    assert all(own for own in ids) and len(set(sum(ids, []))) == len(sum(ids, []))
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        colours = {element.get("stroke") for element in root.iter()}
        assert {"var(--series-0)", "var(--series-1)", "currentColor"} <= colours
        assert not [element for element in root.iter() if "style" in element.attrib]
