"""What the study found, in sentences that the records bear out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ablation.results import StudyResults
from probes.report import is_firm
from probes.statistics import welch

from .matrix import Row
from .measures import Gain, list_gains
from .notation import bounds, count, difference, plural, points

EQUAL_IN = {"flops": "equal FLOPs", "tokens": "equal tokens", "steps": "equal steps", "time": "equal time"}


def tell_finding(results: StudyResults, rows: Sequence[Row], gains: Mapping[str, Gain]) -> list[str]:
    """Return the sentences that open the report."""
    return [
        _tell_comparison(results, rows),
        *_tell_best(results, gains),
        *_tell_differences(results),
        *_tell_blind(rows),
        *_tell_hypotheses(results),
        *_tell_missing(results),
    ]


def _tell_comparison(results: StudyResults, rows: Sequence[Row]) -> str:
    trained = [arm.name for arm in results.arms if arm.kind == "trained"]
    others = [arm.name for arm in results.arms if arm.kind != "trained"]
    beside = f", beside {' and '.join(others)}" if others else ""
    judged = f", judged by {plural(len(rows), 'probe')}" if rows else ", not probed"
    return (
        f"{plural(len(trained), 'arm')} ({', '.join(trained)}){beside}, {plural(len(results.seeds), 'seed')} each, at "
        f"{EQUAL_IN[results.fairness]} ({results.budget}), on {count(results.corpus.tokens)} tokens of "
        f"{results.corpus.name}{judged}."
    )


def _tell_best(results: StudyResults, gains: Mapping[str, Gain]) -> Iterator[str]:
    ranked = sorted((gain for gain in gains.values() if gain.is_trained), key=lambda gain: -gain.value)
    if len(ranked) < 2 or results.probes is None:
        return
    first, second = ranked[:2]
    told = (
        f"The highest mean gain (the share of the way from what needs no encoder to 100) is {first.arm}'s, "
        f"{points(first.value)} {bounds(first.low, first.high)}".rstrip()
    )
    samples = [list_gains(results.probes, each.arm) for each in (first, second)]
    if min(map(len, samples)) < 2:
        yield f"{told}; next is {second.arm} with {points(second.value)}: one seed each, so another may turn it round."
        return
    found = welch(*samples)
    verdict = "the interval leaves out 0" if found.low > 0 else "not told apart"
    yield (
        f"{told}; over the next, {second.arm}, that is {difference(found.value)} {bounds(found.low, found.high)}: "
        f"{verdict}."
    )


def _tell_differences(results: StudyResults) -> Iterator[str]:
    compared = results.probes.comparisons if results.probes else ()
    if not compared:
        return
    firm = sum(map(is_firm, compared))
    tested = sum(each.p_holm is not None for each in compared)
    if tested == len(compared):
        how = "stand after Holm's correction"
    elif tested:
        how = f"stand, {tested:,} judged after Holm's correction and the rest, of fewer seeds, by their intervals"
    else:
        how = "have an interval that leaves out 0, without correction"
    told = f"Of {plural(len(compared), 'comparison')} of two arms on a probe {firm:,} {how}"
    least = [each.detectable for each in compared if each.detectable is not None]
    if least:
        told += f"; a true difference of {points(min(least))} to {points(max(least))} is found four times out of five"
    yield told + "."


def _tell_blind(rows: Sequence[Row]) -> Iterator[str]:
    blind = sum(not row.is_counted for row in rows)
    if blind:
        yield f"{blind} of {plural(len(rows), 'probe')} can't tell the arms apart or lack one, and count in no mean."


def _tell_hypotheses(results: StudyResults) -> Iterator[str]:
    if results.hypotheses:
        verdicts = Counter(each.verdict for each in results.hypotheses)
        told = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        yield f"Of {len(results.hypotheses)} {'hypothesis' if len(results.hypotheses) == 1 else 'hypotheses'}: {told}."


def _tell_missing(results: StudyResults) -> Iterator[str]:
    failed = [run for run in results.runs if run.status == "failed"]
    waiting = [run for run in results.runs if run.status == "waiting"]
    told = [f"{plural(len(failed), 'run')} failed"] if failed else []
    told += [f"{plural(len(waiting), 'run')} still to come"] if waiting else []
    told += [f"{plural(len(results.failures), 'result')} missing"] if results.failures else []
    if told:
        yield f"Not complete: {', '.join(told)}; named under “What is missing”."
