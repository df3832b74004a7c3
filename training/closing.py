"""What a run says at its end: what was learned, beside chance, where it is, and what one may do next."""

import shlex

from corpora.console import format_seconds

from .guard import stand
from .setup import Run


def closing_words(run: Run) -> str:
    """Return the last lines of a run, at most 80 columns wide but for its commands."""
    folder = shlex.quote(str(run.folder))
    lines = ["", f"{run.folder}: {run.step:,} steps, {run.tokens:,} tokens, {format_seconds(run.seconds)} of training"]
    for name, figures in run.figures.items():
        loss = figures.get("hidden_loss", figures["loss"])
        level, chance = min(run.chance[name].items(), key=lambda each: each[1])
        where = " at hidden tokens" if "hidden_loss" in figures else ""
        lines.append(
            f"  {name}: held-out loss {loss:.3f}{where}, {chance - loss:+.3f} below chance ({level} {chance:.3f})"
        )
        if "auroc" in figures:
            lines.append(f"    AUROC {figures['auroc']:.3f} (chance .500)")
        elif "majority" in figures:
            lines.append(f"    accuracy {figures['accuracy']:.3f} (majority {figures['majority']:.3f})")
        if all(each.sits for each in stand(figures, run.chance[name])):
            lines.append("    at chance: docs/stuck.md says what may help")
    return "\n".join([*lines, "", "next:", *(f"  {command}" for command in next_commands(run, folder))])


def next_commands(run: Run, folder: str) -> list[str]:
    """Return three commands to try.

    Look at what was learned, learn something else from the same text, look at one's own text.
    """
    names = [objective.name for objective in run.objectives]
    masked = f"heads/{names[0]}" if names[0] == "mlm" else "generator" if run.model.generators else None
    mask = run.corpus.load_tokenizer().mask_token
    if masked is not None and (run.folder / masked / "config.json").is_file():
        code = (
            f"from transformers import pipeline; print(*pipeline('fill-mask', '{run.folder / masked}')"
            f"('The name of the {mask} is given.'), sep='\\n')"
        )
        look = f'python -c "{code}"'
    else:
        look = f"python -m json.tool {folder}/run.json"
    other = "rtd" if "rtd" not in names else "mlm+nsp"
    return [
        look,
        f"python pretrain.py --objective {other} --corpus {shlex.quote(run.config.corpus)} --max_minutes 10",
        "python -m corpora YOUR_TEXT.txt",
    ]
