"""Asking encoders: one after the other, each probe by itself, so that one that fails leaves the others."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from probes.build import Built
from probes.encoder import load_encoder
from probes.feature_store import FeatureStore
from probes.members import Member
from probes.probe import Probe
from probes.suite import HowToProbe, describe_encoder, describe_probe, score_probe

from .answers import EVERY, Answers, write_answers
from .arms import UNTRAINED
from .folder import EncoderPlace, RunPlace, StudyFolder
from .probe_sets import load_sets
from .questions import Probing


def probe_places(study: StudyFolder, places: Sequence[EncoderPlace], run: RunPlace | None = None) -> None:
    """Ask every encoder that has not been, and write its answers; with the run's finished encoder goes an example."""
    left = [place for place in places if not place.answers.is_file()]
    if not left:
        return
    built = load_sets(study.sets)
    probing = study.study.probing
    for place in left:
        asked = choose_probes(built, probing, is_snapshot=place.step is not None)
        answers = ask(place, asked, probing)
        is_shown = run is not None and (place.arm, place.step, place.seed) == (run.arm, None, study.study.seeds[0])
        if run is not None and is_shown:
            answers = replace(answers, example=show_example(run))
        write_answers(place.answers, answers)


def choose_probes(built: Built, probing: Probing, *, is_snapshot: bool) -> list[Probe]:
    """Return the probes that an encoder is asked: a snapshot those of the trajectory."""
    only = probing.trajectory_only if is_snapshot else ()
    return [probe for probe in built.probes if not only or probe.name in only]


def how_to_probe(probing: Probing) -> HowToProbe:
    """Return what is fitted to the vectors."""
    return HowToProbe(kind=probing.kind, pooling=probing.pooling, mix=probing.mix, twins=0)


def ask(place: EncoderPlace, probes: Sequence[Probe], probing: Probing) -> Answers:
    """Return what an encoder answers. What fails, for whatever reason, is noted in its place."""
    try:
        encoder = load_encoder(place.location)
        store = FeatureStore(encoder, probes, pooling=probing.pooling)
    except Exception as error:  # of the encoder's library, of memory, ours: the other encoders are asked all the same
        return Answers(failures={EVERY: describe_error(error)})
    name = f"{place.arm} {place.seed}" + ("" if place.step is None else f" after {place.step}")
    member = Member(location=place.location, name=name, group=place.arm, seed=place.seed)
    twin = None if place.arm == UNTRAINED else UNTRAINED
    record = replace(describe_encoder(encoder, member), is_trained=place.arm != UNTRAINED, twin=twin)
    scores: list[Any] = []
    chosen = {}
    failures = {}
    how = replace(how_to_probe(probing), mix=probing.mix and place.step is None)
    for probe in probes:
        try:
            found, draws = score_probe(record, probe, describe_probe(probe), store, how)
        except Exception as error:
            failures[probe.name] = describe_error(error)
            continue
        scores += found
        chosen[probe.name] = (next(int(score.layer) for score in found if score.is_chosen), draws)
    record = replace(record, texts_truncated=store.num_truncated)
    return Answers(encoder=record, scores=tuple(scores), chosen=chosen, failures=failures)


def describe_error(error: Exception) -> str:
    """Return an error in a line, without the paths of this machine where it is one of ours."""
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def show_example(run: RunPlace) -> str | None:
    """Return what the run made of its first passage, as plain text; its generator is the trained one."""
    from training.examples import make_examples

    config = dataclasses.replace(run.config, resume=str(run.folder))
    with contextlib.suppress(Exception):  # an example is an ornament: a study is not lost for one
        lines = []
        for example in make_examples(config, first=0, count=1):
            for text in example.texts:
                words = "".join((" " if token.space else "") + token.marked for token in text.tokens).strip()
                lines.append(f"{text.title}: {words}")
            lines += [f"{question.title}: {question.answer}" for question in example.questions]
        return "\n".join(lines)
    return None
