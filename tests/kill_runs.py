"""Kill a run again and again at random moments until it is done.

One process forks a life after another, so that a life starts in no time.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from training.checkpoint import load_newest
from training.config import Config
from training.folders import verify_folder
from training.loop import pretrain


def live(settings: dict) -> int:
    """Fork a process that starts or resumes the run; return its number."""
    child = os.fork()
    if child:
        return child
    out = Path(settings["out"])
    resume = str(out) if (out / "run.json").exists() else None
    log = os.open(out.parent / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    try:
        pretrain(Config.from_dict({**settings, "resume": resume}))
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(9)
    os._exit(0)


def verify_all(out: Path) -> int:
    """Verify every checkpoint folder there is, and return how many half-made ones the last kill left beside them."""
    root = out / "checkpoints"
    if not root.exists():
        return 0
    for folder in root.glob("step-*"):
        verify_folder(folder)
    return len(list(root.glob(".tmp-*")))


def main(settings: dict, kills: int, seed: int) -> None:
    """Kill the run `kills` times, then let it finish; print what was seen."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    out = Path(settings["out"])
    killed = inside = early = 0
    while killed < kills:
        child = live(settings)
        if killed % 2:  # every second kill falls into a save
            deadline = time.monotonic() + chance.uniform(0.2, 2.0)
            while time.monotonic() < deadline and not list((out / "checkpoints").glob(".tmp-*")):
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.01))
        else:
            time.sleep(chance.uniform(0.05, 1.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, (out.parent / "stderr.txt").read_text()[-2000:]
            early += 1
            break
        killed += 1
        inside += verify_all(out) > 0
    _, status = os.waitpid(live(settings), 0)
    assert status == 0, (out.parent / "stderr.txt").read_text()[-2000:]
    newest = load_newest(out / "checkpoints")
    print(json.dumps({"kills": killed, "inside_saves": inside, "finished_early": early, "step": newest.step}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
