"""Run under torchrun.

Write down which examples each step reads and what was made of them, or the gradients of a step.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.contract import parts_of
from tests.small_runs import make_run
from training.config import Config
from training.loop import accumulate, batches_by_step, reduce_sums, warm_up


def digest(batch) -> str:
    """Return a hash of everything that the device is given."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in parts_of(batch, torch.Tensor))).hexdigest()


def write_trace(config: Config, out: Path, num_steps: int) -> None:
    """Append (step, micro-batch, examples, digest) of this process's micro-batches."""
    run = make_run(config)
    assert run.accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    lines = []
    for batches in batches_by_step(run, 0, num_steps):
        for number, batch in batches:
            examples = run.train.examples_of(number)
            lines.append(json.dumps([number, examples.tolist(), digest(batch)]))
    (out / f"trace-{run.accelerator.process_index}.txt").write_text("\n".join(lines))


def write_gradients(config: Config, out: Path) -> None:
    """Write the gradients of one step, added up over the processes."""
    run = make_run(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for head in run.model.heads.values():
            for parameter in head.parameters():
                parameter.normal_(std=0.1)
    if run.accelerator.num_processes > 1:
        warm_up(run)
    (batches,) = batches_by_step(run, 3, 4)
    names = list(run.model.weights)
    local = [run.model.count_targets(batch) for _, batch in batches]
    counts = reduce_sums(run, [float(sum(each[name] for each in local)) for name in names])
    accumulate(run, batches, dict(zip(names, counts, strict=True)))
    if run.accelerator.is_main_process:
        save_file({name: p.grad for name, p in run.model.named_parameters()}, out / "gradients.safetensors")


def main(settings: dict, out: Path, num_steps: int) -> None:
    """Write what a run sees, or its gradients where there are no steps; for several by name, each in its folder."""
    if "corpus" not in settings:
        for name, each in settings.items():
            main(each, out / name, num_steps)
        return
    out.mkdir(parents=True, exist_ok=True)
    if num_steps:
        write_trace(Config.from_dict(settings), out, num_steps)
    else:
        write_gradients(Config.from_dict(settings), out)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
