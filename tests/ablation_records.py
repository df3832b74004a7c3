"""The made-up record of a small study, for what reads such records."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from ablation.results import (
    ArmRecord,
    CorpusRecord,
    CurvePoint,
    HypothesisRecord,
    RunRecord,
    StudyResults,
    TrajectoryPoint,
)
from probes.results import Comparison, EncoderRecord, ProbeRecord, Results, Score, Summary
from probes.statistics import holm, minimum_detectable_difference, welch

FLOORS = {"bigram_shift": 0.53, "casing": 0.6, "word_content": 0.2, "sentence_order": 0.52}
LAYERS = 3
STEPS = (1, 10, 100, 1000)
_TAUGHT = (0.1, 0.35, 0.2, 0.5, 0.05, 0.3, 0.42, 0.15)  # share of the way from the floor to 1, by arm and probe in turn


def make_study(
    arms: Sequence[str] = ("mlm", "rtd", "nsp"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    probes: Sequence[str] = tuple(FLOORS),
) -> StudyResults:
    """Return a study of these arms and an untrained one; the n-th seed is n / 1000 above the first."""
    records = [_make_arm(name, number) for number, name in enumerate(arms)]
    return StudyResults(
        name="small",
        title="A small study",
        created="2026-01-01T00:00:00+00:00",
        command="python ablate.py small.yaml",
        study={"title": "A small study", "seeds": len(seeds), "arms": {name: {"objective": name} for name in arms}},
        corpus=CorpusRecord(
            name="builtin", fingerprint="0123abcd", documents=90, sentences=9000, tokens=200_000, unigram_entropy=6.1
        ),
        machine="2 cores",
        versions={"torch": "2", "python": "3.12"},
        fairness="flops",
        budget="1e+12 FLOPs a run",
        seeds=tuple(seeds),
        arms=(*records, ArmRecord(name="untrained", kind="untrained")),
        runs=tuple(_make_run(arm, seed) for arm in records for seed in seeds),
        probes=_make_probes([*arms, "untrained"], seeds, probes) if probes else None,
        trajectories=tuple(_make_trajectories(records, seeds, probes)),
        hypotheses=tuple(_make_hypotheses(arms)),
        threats=("One corpus of 200,000 tokens: read 5 times over.",),
    )


def score_of(arm: int, probe: int, seed: int, floor: float) -> float:
    """Return the score that the study's encoders reach at their last layer; the last arm is the untrained one."""
    return floor + (1 - floor) * _TAUGHT[(3 * arm + 2 * probe) % len(_TAUGHT)] + seed / 1000


def _make_arm(name: str, number: int) -> ArmRecord:
    parts = {"encoder": 8e11, "heads": 2e11} if number else {"encoder": 7e11, "heads": 1e11, "generator": 2e11}
    return ArmRecord(
        name=name,
        objective=name,
        generator=None if number else "masked_lm",
        settings={"objective": name},
        steps=1000 + 100 * number,
        tokens=1_000_000 + 150_000 * number,
        flops=1e12 * (1 + 0.002 * number),
        flops_per_step=1e9,
        flops_by_part=parts,
        parameters={"encoder": 4_000_000, "heads": 60_000},
        command=f"python pretrain.py --config studies/small/runs/{name}/seed0.yaml",
    )


def _make_run(arm: ArmRecord, seed: int) -> RunRecord:
    loss = arm.objective
    points = [
        CurvePoint(
            step=step,
            tokens=1000 * step,
            flops=1e9 * step,
            seconds=0.06 * step,
            losses={loss: 9 - np.log10(step) + seed / 10},
            metrics={loss: {"accuracy": 0.1 * np.log10(step), "majority": 0.1}},
        )
        for step in STEPS
    ]
    return RunRecord(
        arm=arm.name,
        seed=seed,
        status="finished",
        folder=f"runs/{arm.name}/seed{seed}",
        steps=arm.steps,
        tokens=arm.tokens,
        flops=arm.flops,
        seconds=60.0 + 10 * len(arm.name) + seed,
        peak_memory=600_000_000,
        held_out={loss: {"loss": 6.0 + seed / 10, "accuracy": 0.3, "majority": 0.1}},
        chance={loss: {"unigram": 6.8, "ln V": 9.0}},
        curve=tuple(points),
        example=f"text: A cat sat.\nseen: A [MASK<-cat] sat.\n{loss}: cat" if seed == 0 else None,
    )


def _make_probes(groups: Sequence[str], seeds: Sequence[int], names: Sequence[str]) -> Results:
    probes = [
        ProbeRecord(
            name=name,
            question="What is asked?",
            metric="accuracy",
            classes=("no", "yes"),
            items={"train": 600, "dev": 150, "test": 250},
            documents=40,
            floors={"majority": FLOORS.get(name, 0.5) - 0.1, "bag_of_words": FLOORS.get(name, 0.5)},
            source="made up",
        )
        for name in names
    ]
    encoders, scores, summaries, comparisons = [], [], [], []
    reached: dict[tuple[str, str], list[float]] = {}
    for number, group in enumerate(groups):
        for seed in seeds:
            name = f"{group}/seed{seed}"
            is_trained = group != "untrained"
            encoders.append(
                EncoderRecord(
                    name=name, group=group, location=name, is_trained=is_trained, seed=seed, layers=2, width=128
                )
            )
            for order, probe in enumerate(probes):
                best = score_of(number, order, seed, probe.floor) if is_trained else probe.floor + seed / 1000
                reached.setdefault((group, probe.name), []).append(best)
                scores += _make_layers(name, probe.name, best)
        for probe in probes:
            summaries.append(_summarise(group, probe, reached[group, probe.name]))
    for probe in probes:
        for a, b in combinations(groups, 2):
            comparisons.append(_compare(probe.name, a, b, reached[a, probe.name], reached[b, probe.name]))
    tested = [each.p for each in comparisons if each.p is not None]
    corrected = iter(holm(tested).tolist())
    return Results(
        command="",
        created="2026-01-01T00:00:00+00:00",
        settings={},
        sources={"Text": "12 documents that no run read"},
        versions={},
        encoders=tuple(encoders),
        probes=tuple(probes),
        scores=tuple(scores),
        summaries=tuple(summaries),
        comparisons=tuple(each if each.p is None else replace(each, p_holm=next(corrected)) for each in comparisons),
    )


def _make_layers(encoder: str, probe: str, best: float) -> list[Score]:
    return [
        Score(
            encoder=encoder,
            probe=probe,
            layer=layer,
            score=best - 0.02 * (LAYERS - 1 - layer),
            low=best - 0.02 * (LAYERS - 1 - layer) - 0.03,
            high=best - 0.02 * (LAYERS - 1 - layer) + 0.03,
            dev=best,
            items=250,
            is_chosen=layer == LAYERS - 1,
        )
        for layer in range(LAYERS)
    ]


def _summarise(group: str, probe: ProbeRecord, reached: Sequence[float]) -> Summary:
    mean = float(np.mean(reached))
    return Summary(
        group=group,
        probe=probe.name,
        score=mean,
        low=mean - 0.02,
        high=mean + 0.02,
        seeds=len(reached),
        layers=(LAYERS - 1,) * len(reached),
        flag="floor" if mean - 0.02 <= probe.floor else "",
    )


def _compare(probe: str, a: str, b: str, first: Sequence[float], second: Sequence[float]) -> Comparison:
    difference = float(np.mean(first) - np.mean(second))
    low, high, p, detectable = difference - 0.01, difference + 0.01, None, None
    if len(first) > 1:
        found = welch(first, second)
        low, high = found.low, found.high
        p = found.p_value if len(first) >= 5 else None
        detectable = minimum_detectable_difference(float(np.std(first, ddof=1)), len(first))
    return Comparison(
        probe=probe,
        a=a,
        b=b,
        difference=difference,
        low=low,
        high=high,
        method="Welch's t over seeds" if p is not None else "bootstrap over seeds and documents",
        seeds=(len(first), len(second)),
        claim="objective" if p is not None else "checkpoints",
        p=p,
        detectable=detectable,
    )


def _make_trajectories(arms: Sequence[ArmRecord], seeds: Sequence[int], probes: Sequence[str]) -> list[TrajectoryPoint]:
    """Return points that rise from the floor, evenly over the logarithm of the steps."""
    points = []
    for number, arm in enumerate(arms):
        for order, probe in enumerate(probes):
            floor = FLOORS.get(probe, 0.5)
            for seed in seeds:
                for place, step in enumerate(STEPS):
                    end = score_of(number, order, seed, floor)
                    score = floor - 0.02 + (end - floor + 0.02) * place / (len(STEPS) - 1)
                    points.append(
                        TrajectoryPoint(
                            arm=arm.name,
                            seed=seed,
                            step=step,
                            tokens=1000 * step,
                            flops=1e9 * step,
                            probe=probe,
                            layer=2,
                            score=score,
                            low=score - 0.02,
                            high=score + 0.02,
                        )
                    )
    return points


def _make_hypotheses(arms: Sequence[str]) -> list[HypothesisRecord]:
    first, last = arms[0], arms[-1]
    return [
        HypothesisRecord(
            name="first over last",
            claim=f"{first} teaches more word order than {last}",
            source="Somebody et al., 2020, section 3, https://arxiv.org/abs/2003.10555",
            a=first,
            b=last,
            measure="bigram_shift@best",
            verdict="reproduced",
            difference=0.1,
            low=0.05,
            high=0.15,
            p=0.001,
            why="the interval lies above 0",
        ),
        HypothesisRecord(
            name="last over first",
            claim=f"{last} teaches more casing than {first}",
            source="Nobody, 2021",
            a=last,
            b=first,
            measure="casing@last",
            verdict="undecided",
            difference=0.01,
            low=-0.02,
            high=0.04,
            why="the interval holds 0",
        ),
        HypothesisRecord(
            name="absent", claim="nothing was run", source="", a="absent", b=first, measure="casing", why="no arm of it"
        ),
    ]
