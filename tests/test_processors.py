"""How many processors a process takes."""

import os

import pytest

from corpora.processors import count_own_processors, count_processors


def test_a_share_of_those_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert count_processors() == count_own_processors() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (count_processors(), count_own_processors()) == (6, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert count_own_processors() == 1


def test_systems_that_tell_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert count_processors() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_processors() == 1
