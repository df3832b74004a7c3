"""A study that is killed and started again is the study that was left alone."""

import json

import pytest

from tests.test_processes import finish, start

pytestmark = pytest.mark.slow


def test_a_killed_study_ends_with_the_same_tables(tmp_path):
    out, _ = finish(start(["-m", "tests.kill_study", str(tmp_path), 3, 1]), timeout=1800)
    seen = json.loads(out.splitlines()[-1])
    assert len(seen["killed"]) == 3 and set(seen["killed"]) == {"SIGKILL", "SIGTERM"}
    assert seen["differing"] == []
