"""Kill a study at random moments until it has been killed often enough, then let it end; compare with one left alone.

python -m tests.kill_study FOLDER KILLS [SEED]
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.small_study import without_times, write_study

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("matrix.csv", "differences.csv", "layers.csv", "trajectories.csv", "hypotheses.csv")


def live(study: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start a process that begins the study or goes on with it."""
    log = (out.parent / "stderr.txt").open("ab")
    command = [sys.executable, str(ROOT / "ablate.py"), str(study), "--out", str(out), "--jobs", "2"]
    with log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)


def finish(study: Path, out: Path) -> float:
    """Let the study end; return the seconds that it took."""
    started = time.monotonic()
    status = live(study, out).wait()
    assert status == 0, (out.parent / "stderr.txt").read_text()[-3000:]
    return time.monotonic() - started


def read_tables(out: Path) -> dict[str, str]:
    """Return every file of the study that no clock has a part in."""
    tables = {name: (out / "report" / "tables" / name).read_text() for name in TABLES}
    plain = json.dumps(without_times(json.loads((out / "results.json").read_text())), indent=1)
    return tables | {"results.json": plain, "main.tex": (out / "report" / "main.tex").read_text()}


def main(folder: Path, kills: int, seed: int) -> None:
    """Run the study twice, once with kills; print what was seen, and fail where the tables differ."""
    study = write_study(folder)
    for name in ("straight", "killed"):
        (folder / name).mkdir()
    duration = finish(study, folder / "straight" / "study")
    chance = random.Random(seed)
    out = folder / "killed" / "study"
    killed: list[str] = []
    while len(killed) < kills:
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        life = live(study, out)
        try:
            life.wait(chance.uniform(0.1, duration * 0.6))
        except subprocess.TimeoutExpired:
            life.send_signal(number)
            life.wait()
            killed.append(number.name)
            continue
        break  # it was done before
    finish(study, out)
    ends = [read_tables(folder / name / "study") for name in ("straight", "killed")]
    differing = [name for name in ends[0] if ends[0][name] != ends[1][name]]
    print(json.dumps({"killed": killed, "differing": differing, "seconds": round(duration, 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
