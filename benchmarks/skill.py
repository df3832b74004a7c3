"""How much of an objective is learned after how many tokens: held-out skill of finished runs, as one picture.

    python -m benchmarks.skill runs/*/seed* --out skill.svg

Skill is 0 at chance and 1 where nothing is wrong: of an accuracy a, (a - m) / (1 - m) with the share m of the commonest
class; of an area under the ROC curve A, 2 A - 1. Runs that differ in their seed alone are one curve, their median, with
their range around it. Objectives with one label for a text are drawn solid, with one for each token dashed.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from corpora.console import run_command

from .finished import read_options, read_run, write_picture

SAME = ("seed", "out", "cache", "max_steps", "max_minutes", "resume")  # what runs of one curve may differ in
Curve = dict[int, list[float]]  # tokens -> a skill for each seed


def skill_of(figures: Mapping[str, float], examples: int) -> tuple[float, bool] | None:
    """Return the skill of a loss's held-out figures over so many examples, and whether each token has its label.

    None for a loss that is neither a class nor yes or no.
    """
    if "auroc" in figures:
        return 2 * figures["auroc"] - 1, figures["targets"] > examples
    if "majority" in figures and figures["majority"] < 1:
        skill = (figures["accuracy"] - figures["majority"]) / (1 - figures["majority"])
        return skill, figures["targets"] > examples
    return None


def read_curves(folders: Iterable[Path]) -> dict[tuple[str, bool], Curve]:
    """Return the curve of each loss of each kind of run, by its name and whether each token has its label.

    Two kinds whose objectives read alike are told apart by the folders that they lie in.
    """
    found: dict[tuple[str, bool, str], dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    places: dict[tuple[str, bool, str], str] = {}
    for folder in folders:
        record, rows = read_run(folder)
        config = record["config"]
        kind = json.dumps({name: value for name, value in config.items() if name not in SAME}, sort_keys=True)
        for row in rows:
            for name, figures in row["metrics"].items():
                skill = skill_of(figures, config["eval_examples"])
                if skill is not None:
                    key = (label_of(name, config["objective"]), skill[1], kind)
                    places[key] = folder.parent.name
                    found[key][row["step"]].append((row["tokens"], skill[0]))
    labels = Counter((label, by_token) for label, by_token, _ in found)
    return {
        (label if labels[label, by_token] == 1 else f"{label}, {places[label, by_token, kind]}", by_token): _by_tokens(
            curve
        )
        for (label, by_token, kind), curve in found.items()
    }


def label_of(name: str, objective: str | Mapping[str, Any]) -> str:
    """Return what a curve is called: its objective with its options, and what was learned beside it."""
    if isinstance(objective, str):
        parts = [part.strip() for part in objective.split("+")]
    else:
        options = {key: ",".join(f"{k}={v}" for k, v in (given or {}).items()) for key, given in objective.items()}
        parts = [f"{key}:{given}" if given else key for key, given in options.items()]
    own = next((part for part in parts if part.partition(":")[0] == name), None)
    beside = [part.partition(":")[0] for part in parts if part is not own]
    return (own or name) + (f" (with {', '.join(beside)})" if beside else "")


def _by_tokens(curve: Mapping[int, list[tuple[int, float]]]) -> Curve:
    return {int(np.median([t for t, _ in seeds])): [skill for _, skill in seeds] for seeds in curve.values()}


def draw(curves: Mapping[tuple[str, bool], Curve], path: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    axes = figure.subplots()
    for (name, is_by_token), curve in sorted(curves.items(), key=lambda each: -np.median(each[1][max(each[1])])):
        tokens = [0, *sorted(curve)]
        seeds = [[0.0], *(curve[place] for place in tokens[1:])]
        (line,) = axes.plot(
            tokens, [float(np.median(each)) for each in seeds], "--" if is_by_token else "-", marker=".", label=name
        )
        if max(map(len, seeds)) > 1:
            low, high = [min(each) for each in seeds], [max(each) for each in seeds]
            axes.fill_between(tokens, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="tokens read", ylabel="held-out skill (0: chance, 1: perfect)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(
        title="solid: one label a text; dashed: one a token",
        fontsize=9,
        frameon=False,
        loc="outside lower center",
        ncols=2 if len(curves) > 1 else 1,
    )
    write_picture(figure, path)


def run(argv: list[str]) -> int:
    """Read the runs, print the last skill of each curve, and draw them all."""
    options = read_options("skill", __doc__ or "", argv)
    curves = read_curves(options.runs)
    for (name, _), curve in sorted(curves.items()):
        seeds = curve[max(curve)]
        print(f"{name:44} {max(curve):>11,} tokens  skill {np.median(seeds):.3f}  seeds {len(seeds)}")
    draw(curves, options.out)
    return 0


def main(argv: list[str]) -> int:
    """Run the command and return its exit status."""
    return run_command(run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
