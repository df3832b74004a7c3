"""The tables of the positive controls, on draws that were written down."""

import numpy as np
import pytest

from benchmarks.positive_controls import CLAIMS, build_parser, write_tables
from corpora.errors import UserError
from probes.groups import compare_groups, summarise
from probes.results import EncoderRecord, ProbeRecord, Results
from probes.statistics import Resampled

PROBES = tuple(dict.fromkeys(probe for probe, *_ in CLAIMS))
REACHED = {  # what the first seed of each group scores
    "mlm": {"replacement_token": 0.55, "sentence_ordering": 0.52, "masked_readout": 0.30},
    "rtd": {"replacement_token": 0.70, "sentence_ordering": 0.53, "masked_readout": 0.20},
    "shuffle": {"replacement_token": 0.52, "sentence_ordering": 0.51, "masked_readout": 0.10},
}


def make_results(seeds: int) -> Results:
    rng = np.random.default_rng(0)
    encoders = [
        EncoderRecord(name=f"{group} {seed}", group=group, location=group) for group in REACHED for seed in range(seeds)
    ]
    chosen = {}
    for encoder in encoders:
        for probe in PROBES:
            value = REACHED[encoder.group][probe] + 0.002 * int(encoder.name[-1])
            noise, apart = 0.01 * rng.normal(size=500), 0.001 * rng.normal(size=50)
            chosen[encoder.name, probe] = (4, Resampled(value=value, draws=value + noise, jackknife=value + apart))
    records = [
        ProbeRecord(
            name=name, question="", metric="accuracy", classes=(), items={}, documents=50, floors={"majority": 0.05}
        )
        for name in PROBES
    ]
    return Results(
        command="",
        created="",
        settings={},
        sources={"Text": "50 documents"},
        versions={},
        encoders=tuple(encoders),
        probes=tuple(records),
        scores=(),
        summaries=tuple(summarise(chosen, encoders, records)),
        comparisons=tuple(compare_groups(chosen, encoders, records)),
    )


def test_one_seed_speaks_of_these_checkpoints() -> None:
    lines = list(write_tables(make_results(1)))
    assert lines[2].startswith("| replacement_token: rtd > mlm | +15.0 | [")
    assert lines[2].endswith("| – | 1, 1 | holds, of these checkpoints |")
    assert lines[3].endswith("| not to be told, of these checkpoints |")  # one point, of two documents' noise
    assert lines[4].startswith("| masked_readout: mlm > rtd | +10.0 | [")  # the comparison's sign is turned
    assert "These figures are about these checkpoints" in lines[-1]


def test_five_seeds_speak_of_objectives_and_are_corrected() -> None:
    results = make_results(5)
    lines = list(write_tables(results))
    tested = {(each.probe, each.a): each for each in results.comparisons}
    assert len(tested) == 6 and all(each.p_holm is not None for each in tested.values())
    p = tested["sentence_ordering", "shuffle"].p_holm
    assert lines[2].endswith("| 0.000 | 5, 5 | holds |")
    assert lines[3].endswith(f"| {p:.3f} | 5, 5 | does not hold |")  # it scores one point less
    assert lines[9].startswith("| replacement_token | 5.0 | 55.4 [")


def test_a_group_without_a_folder_is_a_mistake() -> None:
    with pytest.raises(UserError, match="--shuffle"):
        build_parser().read(["--mlm", "a", "--rtd", "b"])
