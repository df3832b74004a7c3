"""The queue: places are filled, failures are noted, a signal stops everything and nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ablation import queue
from ablation.queue import Job, NotYet, Place, Queue, Stopped, read_last_words
from corpora.errors import UserError
from probes.progress import Progress

pytestmark = pytest.mark.slow

SLEEPER = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)));"
    "print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(queue, "_POLL_SECONDS", 0.02)


def make_job(folder: Path, name: str, code: str, after: tuple[str, ...] = ()) -> Job:
    return Job(
        name=name, kind="test", work=1.0, start=lambda: ["-c", code], log=folder / "logs" / f"{name}.log", after=after
    )


def make_queue(jobs: list[Job], places: int = 2) -> Queue:
    return Queue(jobs, [Place(environment={"PLACE": str(number)}) for number in range(places)], Progress(None))


def note(folder: Path, name: str, seconds: float = 0.0) -> str:
    return f"import os, time; open({str(folder / name)!r}, 'w').write(os.environ['PLACE']); time.sleep({seconds})"


def test_jobs_run_side_by_side_each_in_a_place_of_its_own(tmp_path):
    jobs = [make_job(tmp_path, name, note(tmp_path, name, 0.5)) for name in "abcd"]
    started = time.monotonic()
    assert make_queue(jobs, 4).run() == {}
    assert time.monotonic() - started < 1.9  # one after the other it would take 2 s
    assert sorted((tmp_path / name).read_text() for name in "abcd") == ["0", "1", "2", "3"]


def test_a_job_waits_for_those_that_it_needs(tmp_path):
    jobs = [make_job(tmp_path, "b", f"assert open({str(tmp_path / 'a')!r}).read()", ("a",))]
    jobs.append(make_job(tmp_path, "a", "import time; time.sleep(0.3); " + note(tmp_path, "a")))
    assert make_queue(jobs).run() == {}


def test_a_failure_is_noted_and_the_others_go_on(tmp_path):
    wrong = "import sys; print('error: the text is too small', file=sys.stderr); print('bye'); sys.exit(2)"
    jobs = [
        make_job(tmp_path, "bad", wrong),
        make_job(tmp_path, "behind", note(tmp_path, "behind"), ("bad",)),
        make_job(tmp_path, "traced", "1 / 0"),
        make_job(tmp_path, "good", note(tmp_path, "good")),
    ]
    assert make_queue(jobs).run() == {
        "bad": "the text is too small",
        "traced": "ZeroDivisionError: division by zero",
    }
    assert (tmp_path / "good").exists() and not (tmp_path / "behind").exists()


def test_what_can_not_be_started_is_tried_again_or_fails(tmp_path):
    calls = []

    def start() -> list[str]:
        calls.append(1)
        if len(calls) < 3:
            raise NotYet("in use by process 1")
        return ["-c", note(tmp_path, "late")]

    def refuse() -> list[str]:
        raise UserError("it holds another run")

    jobs = [make_job(tmp_path, "late", ""), make_job(tmp_path, "never", "")]
    jobs[0].start, jobs[1].start = start, refuse
    assert make_queue(jobs).run() == {"never": "it holds another run"}
    assert len(calls) == 3 and (tmp_path / "late").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_all_processes_save_and_starts_no_other(tmp_path, number):
    jobs = [make_job(tmp_path, name, SLEEPER) for name in "ab"] + [make_job(tmp_path, "c", note(tmp_path, "c"))]
    made = make_queue(jobs)

    def interrupt() -> None:
        while [log.read_text() for log in (tmp_path / "logs").glob("*")] != ["ready\n"] * 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stopped, match=f"stopped by {number.name}") as caught:
        made.run()
    thread.join()
    assert caught.value.exit_code == 128 + number
    assert {name: (tmp_path / "logs" / f"{name}.log").read_text() for name in "ab"} == dict.fromkeys(
        "ab", "ready\nsaved\n"
    )
    assert made.failed == {} and not (tmp_path / "c").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_killed_queue_takes_its_processes_with_it(tmp_path):
    code = f"""
from pathlib import Path
from tests.test_ablation_queue import SLEEPER, make_job, make_queue
make_queue([make_job(Path({str(tmp_path)!r}), "a", SLEEPER)]).run()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    log = tmp_path / "logs" / "a.log"
    while not (log.exists() and log.read_text() == "ready\n"):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while log.read_text() != "ready\nsaved\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_time_left_is_that_of_the_speed_so_far(tmp_path):
    jobs = [make_job(tmp_path, name, "") for name in "abcd"]
    made = make_queue(jobs)
    assert made.seconds_left() is None
    made.finished, made.worked, made.spent = {"a"}, {"test": 1.0}, {"test": 10.0}
    assert made.seconds_left() == 15.0  # three jobs of ten seconds in two places


def test_the_last_words_of_a_killed_process(tmp_path):
    assert read_last_words(tmp_path / "none", -9) == "ended by SIGKILL (out of memory?)"
    assert read_last_words(tmp_path / "none", 3) == "exit status 3"
    (tmp_path / "log").write_text("step 1\nerror: one\nerror: two\n\nlater\n")
    assert read_last_words(tmp_path / "log", 2) == "two"
