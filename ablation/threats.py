"""What speaks against a study's results, as far as its own records tell."""

from collections.abc import Iterator

from probes.statistics import SEEDS_FOR_A_CLAIM

from .budget import UNITS, spread
from .plan import Plan
from .results import Fairness, StudyResults

_EQUAL = 0.01  # amounts that differ by less are equal
_FEW_DOCUMENTS = 30  # of a probe's test items: fewer make intervals that are none
_NAMES = {"flops": "FLOPs", "tokens": "tokens read", "steps": "steps", "time": "seconds of training"}


def list_threats(results: StudyResults, plan: Plan) -> Iterator[str]:
    """Yield sentences, the gravest first."""
    yield from _of_seeds(results)
    yield from _of_terms(results)
    yield from _of_text(results, plan)
    yield from _of_probes(results)
    yield from _of_what_is_missing(results)


def _of_seeds(results: StudyResults) -> Iterator[str]:
    count = len(results.seeds)
    if count < SEEDS_FOR_A_CLAIM:
        yield (
            f"{count} seed{'s' if count > 1 else ''} of each arm: differences are those of these checkpoints; to speak "
            f"of objectives takes {SEEDS_FOR_A_CLAIM} or more."
        )
    for arm in results.arms:
        if arm.kind == "reference":
            yield f"{arm.name} is one checkpoint, trained elsewhere on other text: a mark, and no arm of equal terms."


def _of_terms(results: StudyResults) -> Iterator[str]:
    """Yield what is equal among the arms and what is not: of unequal ones, the two that are farthest apart."""
    arms = [arm for arm in results.arms if arm.kind == "trained"]
    finished = [run for run in results.runs if run.status == "finished"]
    for unit in UNITS:
        amounts: dict[str, float] = {}
        for arm in arms:
            seconds = [run.seconds for run in finished if run.arm == arm.name]
            of: dict[Fairness, float] = {"flops": arm.flops, "tokens": arm.tokens, "steps": arm.steps}
            amounts[arm.name] = sum(seconds) / len(seconds) if unit == "time" and seconds else of.get(unit, 0.0)
        amounts = {name: amount for name, amount in amounts.items() if amount > 0}
        apart = spread(list(amounts.values()))
        if apart < _EQUAL:
            continue
        most, least = max(amounts, key=lambda name: amounts[name]), min(amounts, key=lambda name: amounts[name])
        if unit == results.fairness:
            yield (
                f"The arms were to be equal in {_NAMES[unit]}, and {most} has {apart:.1%} more than {least}: "
                "whole steps come no closer, or the machine was not as fast as it was measured to be."
            )
        else:
            more = f"{apart:.0%} more than" if apart < 1 else f"{1 + apart:.2g} times as many as"
            yield f"Arms are equal in {_NAMES[results.fairness]}, not in {_NAMES[unit]}: {most} has {more} {least}."


def _of_text(results: StudyResults, plan: Plan) -> Iterator[str]:
    epochs = {arm.name: arm.tokens / max(results.corpus.tokens, 1) for arm in results.arms if arm.kind == "trained"}
    if epochs and max(epochs.values()) > 1:
        most = max(epochs, key=lambda name: epochs[name])
        yield (
            f"The text was read more than once (by {most} {epochs[most]:.1f} times its "
            f"{results.corpus.tokens:,} tokens): what is learned may be this text."
        )
    yield (
        f"One text ({results.corpus.name}, {results.corpus.tokens:,} tokens), one tokenizer, one size of encoder: "
        "other texts, languages and sizes may order the arms otherwise."
    )
    others = [arm.name for arm in plan.arms if arm.start != plan.arms[0].start]
    if others:
        yield (
            f"{', '.join(others)} does not start from the encoder that {plan.arms[0].name} starts from: they differ in "
            "more than what is learned, and the untrained arm is the start of the latter."
        )
    counted = [arm.name for arm in plan.arms if arm.starts_from_counts]
    if counted:
        yield (
            f"Word tables start from vectors counted over the text ({', '.join(counted)}): what the untrained arm "
            "knows of words is in that start, and is no objective's doing."
        )
    if any("learning_rate" not in arm.settings for arm in results.arms if arm.kind == "trained"):
        yield "All arms have the learning rate and the batch that the study gives them; none was tuned by itself."
    if plan.spread >= _EQUAL and results.fairness == "flops":
        yield f"Whole steps leave the arms {plan.spread:.1%} apart in FLOPs; a larger budget would bring them closer."


def _of_probes(results: StudyResults) -> Iterator[str]:
    if results.probes is None:
        return
    flat = [probe.name for probe in results.probes.probes if probe.name not in results.probes.list_counted()]
    if flat:
        yield (
            f"All arms are at the floor or at the ceiling of {', '.join(flat)}, which therefore tell none from another."
        )
    few = [probe.name for probe in results.probes.probes if probe.documents < _FEW_DOCUMENTS]
    if few:
        yield f"The test items of {', '.join(few)} are of fewer than {_FEW_DOCUMENTS} documents: intervals are rough."
    for name, why in results.probes.skipped.items():
        yield f"{name} was not asked: {why}."


def _of_what_is_missing(results: StudyResults) -> Iterator[str]:
    for status, words in (("failed", "failed"), ("waiting", "are not done")):
        missing = [f"{run.arm} {run.seed}" for run in results.runs if run.status == status]
        if missing:
            yield f"{len(missing)} of {len(results.runs)} runs {words}: {', '.join(missing)}."
    cells = [each for each in results.failures if each.probe is not None]
    if cells:
        yield f"{len(cells)} cells failed, and are left out of the means of their arms."
