"""What a study's files say: answers, items, verdicts and threats, each read as it was written."""

from dataclasses import replace

import numpy as np
import pytest

from ablation.answers import EVERY, Answers, read_answers, write_answers
from ablation.hypotheses import Hypothesis, find_hypothesis_problems, judge
from ablation.probe_sets import load_sets, save_sets
from ablation.results import CellFailure, RunRecord, read_study_results, write_study_results
from ablation.threats import list_threats
from corpora.errors import CheckpointError, UserError
from probes.build import Built
from probes.groups import compare_groups
from probes.results import EncoderRecord, Score
from probes.statistics import Resampled, welch
from tests.ablation_records import make_study
from tests.test_ablation_study import make_plan
from tests.test_probe_suite import make_probe


def test_results_are_read_as_they_were_written(tmp_path):
    study = make_study()
    write_study_results(tmp_path / "results.json", study)
    assert read_study_results(tmp_path / "results.json") == study
    bare = make_study(probes=())
    write_study_results(tmp_path / "results.json", bare)
    assert read_study_results(tmp_path / "results.json") == bare and bare.probes is None
    (tmp_path / "results.json").write_text('{"schema_version": 1, "encoders": []}')
    with pytest.raises(UserError, match="this version reads 1 of a study"):
        read_study_results(tmp_path / "results.json")


def test_answers_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    draws = Resampled(value=1 / 3, draws=rng.random(1000), jackknife=rng.random(17))
    score = Score(encoder="mlm 0", probe="p", layer=2, score=1 / 3, low=0.1, high=0.7, dev=0.2, items=9)
    answers = Answers(
        encoder=EncoderRecord(name="mlm 0", group="mlm", location="seed0", seed=0),
        scores=(score, replace(score, layer="mix", mix=(0.25, 0.75))),
        chosen={"p": (2, draws)},
        failures={"q": "too few items"},
        example="text: <b>one</b>\nasked: é",
    )
    write_answers(tmp_path / "mlm" / "seed0.npz", answers)
    found = read_answers(tmp_path / "mlm" / "seed0.npz")
    assert replace(found, chosen={}) == replace(answers, chosen={})
    layer, again = found.chosen["p"]
    assert layer == 2 and again.value == draws.value
    assert np.array_equal(again.draws, draws.draws) and np.array_equal(again.jackknife, draws.jackknife)
    assert [path.name for path in (tmp_path / "mlm").iterdir()] == ["seed0.npz"]


def test_answers_that_are_cut_are_told(tmp_path):
    path = tmp_path / "seed0.npz"
    write_answers(path, Answers(failures={EVERY: "no weights"}))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="seed0.npz can't be read: .*; remove it, and the probes are asked again"):
        read_answers(path)


def test_the_items_of_probes_are_the_same_when_they_are_read_again(tmp_path):
    built = Built(probes=[make_probe(), make_probe("other", is_random=True)], sources={"Text": "t"}, skipped={"x": "y"})
    save_sets(tmp_path / "sets", built)
    again = load_sets(tmp_path / "sets")
    assert again.sources == built.sources and again.skipped == built.skipped
    for one, other in zip(built.probes, again.probes, strict=True):
        for name, value in vars(one).items():
            found = getattr(other, name)
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, found) and value.dtype == found.dtype, name
            elif name == "subsets":
                assert value.keys() == found.keys() and all(np.array_equal(value[key], found[key]) for key in value)
            else:
                assert value == found and type(value) is type(found), name
    (tmp_path / "sets" / "probes.json").write_text("{}")
    with pytest.raises(CheckpointError):
        load_sets(tmp_path / "sets")


def ask(measure: str, better: str = "rtd", worse: str = "mlm") -> Hypothesis:
    return Hypothesis(name=measure, claim="c", source="s", better=better, worse=worse, measure=measure)


def scores_of(study, arm: str, probe: str, *, last: bool) -> list[float]:
    found = []
    for encoder in study.probes.encoders:
        if encoder.group == arm:
            layers = study.probes.list_layers(encoder.name, probe)
            found.append(layers[-1].score if last else next(score.score for score in layers if score.is_chosen))
    return found


@pytest.mark.parametrize(("measure", "last"), [("casing", False), ("casing@best", False), ("casing@last", True)])
def test_a_verdict_is_welchs_over_seeds(measure, last):
    study = make_study()
    (record,) = judge([ask(measure)], study)
    tested = welch(*(scores_of(study, arm, "casing", last=last) for arm in ("rtd", "mlm")))
    assert (record.difference, record.low, record.high) == pytest.approx((tested.value, tested.low, tested.high))
    assert record.p == pytest.approx(tested.p_value) and "after Holm over 1 hypotheses" in record.why
    wanted = "reproduced" if tested.value > 0 else "not reproduced"
    assert record.verdict == (wanted if tested.p_value < 0.05 else "undecided")
    (turned,) = judge([ask(measure, "mlm", "rtd")], study)
    assert turned.difference == pytest.approx(-record.difference)
    assert {record.verdict, turned.verdict} in ({"reproduced", "not reproduced"}, {"undecided"})


def test_verdicts_are_corrected_for_one_another():
    study = make_study()
    alone = judge([ask("casing")], study)[0]
    both = judge([ask("casing"), ask("casing@last", "mlm", "rtd")], study)
    assert sum(record.p for record in both) >= alone.p and max(record.p for record in both) <= 1
    assert all("over 2 hypotheses" in record.why for record in both)


def test_a_difference_of_two_measures_is_taken_seed_by_seed():
    study = make_study()
    (record,) = judge([ask("casing - bigram_shift")], study)
    sides = []
    for arm in ("rtd", "mlm"):
        one, other = (scores_of(study, arm, probe, last=False) for probe in ("casing", "bigram_shift"))
        sides.append([a - b for a, b in zip(one, other, strict=True)])
    assert record.difference == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))


def test_what_seeds_or_runs_do_not_decide_is_undecided_or_not_run():
    (few,) = judge([ask("casing")], make_study(seeds=(0, 1, 2)))
    assert few.verdict == "undecided" and few.p is None and few.why == "3 seeds; a verdict takes 5 of each arm"
    assert few.low < few.difference < few.high
    (one,) = judge([ask("casing")], make_study(seeds=(0,)))
    assert one.verdict == "undecided" and one.low is None
    (none,) = judge([ask("acceptability")], make_study())
    assert (none.verdict, none.why) == ("not run", "acceptability was not measured of rtd and mlm")
    study = make_study()
    runs = [replace(run, held_out={run.arm: {"auroc": 0.5 + run.seed / 100}}) for run in study.runs]
    (measured,) = judge([ask("held_out:rtd.auroc", "rtd", "mlm")], replace(study, runs=tuple(runs)))
    assert measured.why == "held_out:rtd.auroc was not measured of mlm"


def test_a_hypothesis_names_arms_and_a_measure():
    problems: list[str] = []
    good = {"name": "n", "claim": "c", "source": "s", "better": "rtd", "worse": "mlm", "measure": "casing@last"}
    assert find_hypothesis_problems([good], ["mlm", "rtd"], problems) == (Hypothesis(**good),)
    assert not problems
    find_hypothesis_problems(
        [good | {"better": "rdt"}, good | {"measure": "casing@first"}, good | {"clam": "c"}, "rtd"],
        ["rtd", "mlm"],
        problems,
    )
    assert problems[0] == "hypothesis n: better is 'rdt', which is no arm; did you mean rtd?"
    assert problems[1].startswith("hypothesis n: measure is 'casing@first'; write a probe's name")
    assert problems[2] == "hypothesis n: clam is unknown; did you mean claim?"
    assert problems[3].startswith("hypothesis 4 is 'rtd'; write a mapping with name, claim")


def test_groups_are_compared_pair_by_pair():
    rng = np.random.default_rng(0)
    encoders = [
        EncoderRecord(name=f"{group} {seed}", group=group, location="x", is_trained=group != "untrained", seed=seed)
        for group in ("a", "b", "untrained")
        for seed in range(2)
    ]
    draws = {
        (e.name, "p"): (1, Resampled(value=rng.random(), draws=rng.random(50), jackknife=rng.random(5)))
        for e in encoders
    }
    probes = make_study().probes.probes[:1]
    probes = [replace(probes[0], name="p")]
    asked = [("a", "b"), ("a", "untrained"), ("a", "absent")]
    found = compare_groups(draws, encoders, probes, asked)
    assert [(each.a, each.b) for each in found] == asked[:2]
    value = {
        group: np.mean([draws[f"{group} {seed}", "p"][1].value for seed in range(2)]) for group in ("a", "untrained")
    }
    assert found[1].difference == pytest.approx(value["a"] - value["untrained"])
    assert [(each.a, each.b) for each in compare_groups(draws, encoders, probes)] == [("b", "a")]


def threats_of(study) -> str:
    return "\n".join(list_threats(study, make_plan()))


def test_threats_say_what_the_records_know():
    study = make_study(seeds=(0, 1))
    assert threats_of(study).startswith("2 seeds of each arm: differences are those of these checkpoints")
    many = make_study()
    assert "seeds of each arm" not in threats_of(many)
    arms = [replace(arm, flops=1e12, steps=100, tokens=10**6) for arm in many.arms if arm.kind == "trained"]
    arms[1] = replace(arms[1], flops=1.05e12, tokens=3 * 10**6)
    told = threats_of(replace(many, arms=tuple(arms), corpus=replace(many.corpus, tokens=10**6)))
    assert f"The arms were to be equal in FLOPs, and {arms[1].name} has 5.0% more than" in told
    assert f"not in tokens read: {arms[1].name} has 3 times as many as" in told
    assert "not in steps" not in told
    assert f"The text was read more than once (by {arms[1].name} 3.0 times its 1,000,000 tokens)" in told


def test_threats_name_what_is_missing():
    study = make_study()
    runs = (RunRecord(arm="mlm", seed=0, status="failed", error="disk"), *study.runs[1:])
    cell = CellFailure(arm="rtd", seed=1, probe="casing", error="too few")
    told = threats_of(replace(study, runs=runs, failures=(cell,)))
    assert f"1 of {len(runs)} runs failed: mlm 0." in told
    assert "1 cells failed, and are left out of the means of their arms." in told
