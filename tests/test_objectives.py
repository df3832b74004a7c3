"""The contract, for every objective of the table and for compositions that people train: see tests/contract.py."""

from functools import lru_cache

import pytest

from corpora.tables import Tables
from objectives import OBJECTIVES
from tests.contract import CHECKS, Bench, check_learns, make_model, open_stream

__all__ = ["make_model", "open_stream"]  # what the tests of the families start from

COMPOSITIONS = ("mlm+nsp", "rtd+sentence_shuffle", "mlm+sentence_shuffle", "rtd+nsp", "mlm+rtd")


@pytest.fixture(scope="module")
def open_bench(corpus):
    """Return a function from a composition to its bench; the last is kept, as its checks follow each other."""
    tables = Tables(corpus)
    return lru_cache(maxsize=1)(lambda spec: Bench(spec, corpus, tables))


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        pytest.param(spec, check, id=f"{spec}-{check.__name__.removeprefix('check_')}")
        for spec in (*OBJECTIVES, *COMPOSITIONS)
        for check in CHECKS
        if spec in OBJECTIVES or check is not check_learns
    ],
)
def test_the_contract_holds(open_bench, spec, check):
    """Invariants 1, 10, 39, 40 and 50 among them, of everything that can be trained."""
    check(open_bench(spec))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_goes_by_its_name_in_the_table(name):
    assert OBJECTIVES[name].name == name
