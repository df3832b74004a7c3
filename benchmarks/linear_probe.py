"""How much faster the batched linear probe is than scikit-learn's, at 50,000 x 256, and how far their scores are apart.

    OMP_NUM_THREADS=1 python benchmarks/linear_probe.py [--items 50000] [--width 256] [--classes 17]

Both fit the same strengths of regularisation on the same standardised features and choose on dev; ours fits a control
task in the same solve, for which scikit-learn needs as many fits again.
"""

import argparse
import resource
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from probes.fit import L2_GRID, fit_linear  # noqa: E402


def make_items(count: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features like an encoder's (correlated, a few directions of large variance), labels, and a control's."""
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, size=count, p=(chances := 1 / np.arange(1, classes + 1)) / chances.sum())
    centres = rng.normal(size=(classes, width)) * (np.arange(width) < width // 4)
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -1.5, width)
    items = (centres[labels] + 2.5 * rng.normal(size=(count, width))) @ mixing
    return items.astype(np.float32), labels, rng.permutation(labels)


def cpu_seconds() -> float:
    """Return the processor time of this process, which other work on the machine doesn't change much."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print both times, their ratio and both test scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("items", 50_000), ("width", 256), ("classes", 17)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    test = options.items // 5
    items, labels, control = make_items(options.items + 2 * test, options.width, options.classes)
    split = np.repeat([0, 1, 2], [options.items, test, test]).astype(np.int8)

    begin = cpu_seconds()
    alone = fit_linear(items[None], labels, split)
    ours = cpu_seconds() - begin
    begin = cpu_seconds()
    fit_linear(items[None], labels, split, control_labels=control)
    with_control = cpu_seconds() - begin

    warnings.simplefilter("ignore", ConvergenceWarning)
    begin, best = cpu_seconds(), (-1.0, 0.0, 0.0)
    train = items[split == 0]
    standard = (items - train.mean(axis=0)) / train.std(axis=0)
    for l2 in L2_GRID:
        fitted = LogisticRegression(C=1 / (l2 * options.items), max_iter=1000)
        fitted.fit(standard[split == 0], labels[split == 0])
        dev, found = (fitted.score(standard[split == number], labels[split == number]) for number in (1, 2))
        best = max(best, (dev, found, l2))
    theirs = cpu_seconds() - begin

    print(f"{options.items:,} x {options.width}, {options.classes} classes, {len(L2_GRID)} strengths; CPU seconds")
    print(f"scikit-learn  {theirs:6.2f} s   test {best[1]:.4f} (l2 {best[2]:g})")
    found = f"test {alone.test[0]:.4f} (l2 {alone.l2[0]:g})"
    print(f"fit_linear    {ours:6.2f} s   {found}   {theirs / ours:.1f} times as fast")
    print(f"with control  {with_control:6.2f} s   {2 * theirs / with_control:.1f} times as fast as two such fits")


if __name__ == "__main__":
    main()
