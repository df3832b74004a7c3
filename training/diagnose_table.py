"""What a diagnosis shows: tables of 80 columns, a verdict on each line, and what would help."""

import math
import textwrap
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from .causes import NARROW
from .config import Config
from .diagnose import BlockStart, Diagnosis, GeneratorStart, LossStart, diagnose

EVEN = 0.998  # entropy of attention from which on it is a mean over the row; stock weights at width 768 have .995
LITTLE = 0.005  # of the stream: what adds less is not seen through the norms; stock weights at width 768 add .009
STILL = 0.01  # of the largest block's gradient: a block that gets less hardly learns
FAR = 0.1  # from the level of chance that an untrained head is at
FAR_APART = 10.0  # times as large: a gradient that decides alone where a shared word table goes
EASY, RARE = 0.98, 0.05  # expected share of new tokens among those filled in


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """Print the tables, then what would help."""
    name = f"{found.encoder}, width {found.width}, weights of {found.init_range:.3f}"
    console.print(f"{name}, step {found.step:,}: nothing was trained")
    advice: dict[str, None] = {}
    for title, make in _TABLES.items():
        if make is not _generators or found.generators:
            console.print(f"\n{title}", style="bold")
            console.print(make(found, advice))
    console.print("\nwhat would help (docs/stuck.md):" if advice else "\nnothing looks wrong", style="bold")
    for line in advice:
        console.print(textwrap.fill(line, console.width, initial_indent="  ", subsequent_indent="    "))


def show_diagnosis(config: Config) -> None:
    """Look at the run that is asked for, and print what is seen."""
    found = diagnose(config)
    print_diagnosis(found, Console(width=min(Console().width, 80), highlight=False))


def judge_block(block: BlockStart) -> str:
    """Return what is wrong with a block, or "ok"."""
    said = []
    if block.entropy >= EVEN:
        said.append("attention is even")
    if block.attention < LITTLE:
        said.append("attention adds nothing")
    if block.feed_forward < LITTLE:
        said.append("feed-forward adds nothing")
    return ", ".join(said) or "ok"


def judge_loss(loss: LossStart) -> str:
    """Return how the first loss stands to the level of chance that an untrained head is at."""
    level, chance = next(iter(loss.chance.items()))
    if loss.loss < (1 - FAR) * min(loss.chance.values()):
        return "below chance: it has learned"
    if abs(loss.loss - chance) <= FAR * chance:
        return f"ok: {level}"
    return f"far from {level}" if loss.loss > chance else "ok: between its levels of chance"


def judge_generator(generator: GeneratorStart) -> str:
    """Return whether there is something to detect, and whether it is hard."""
    if generator.replaced < RARE:
        return "hardly anything is new"
    return "all is new: easy, as before training" if generator.replaced > EASY else "ok"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        is_number = 0 < place < len(columns) - 1
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number)
    return table


def _blocks(found: Diagnosis, advice: dict[str, None]) -> Table:
    table = _table("block", "entropy", "attention", "feed-forward", "")
    for place, block in enumerate(found.blocks):
        verdict = judge_block(block)
        table.add_row(
            str(place + 1), f"{block.entropy:.4f}", _show(block.attention), _show(block.feed_forward), verdict
        )
        if verdict != "ok":
            advice |= dict.fromkeys(_help_blocks(found))
    return table


def _help_blocks(found: Diagnosis) -> Iterator[str]:
    wanted = 1 / math.sqrt(found.width)
    if found.init_range < NARROW * wanted:
        yield f"--init_range width: weights of {wanted:.3f}, with which blocks mix tokens from the start"
    else:
        yield "a new encoder (--encoder tiny, ...), or a larger initializer_range in its config.json"


def _gradients(found: Diagnosis, advice: dict[str, None]) -> Table:
    table = _table("part", *found.losses, "")
    for part in next(iter(found.losses.values())).gradients:
        verdict = _judge_block_gradient(found, part) if part.startswith("block ") else "ok"
        leader = _leader_of_table(found) if part == "word table" else None
        if leader:
            verdict = f"{leader} leads"
            advice["--generator masked_lm:sharing=gdes: a word table for each of two unequal gradients"] = None
        table.add_row(part, *(_show(loss.gradients[part]) for loss in found.losses.values()), verdict)
    return table


def _judge_block_gradient(found: Diagnosis, part: str) -> str:
    for loss in found.losses.values():
        largest = max(norm for each, norm in loss.gradients.items() if each.startswith("block "))
        if loss.gradients[part] < STILL * largest:
            return "hardly any reaches it"
    return "ok"


def _leader_of_table(found: Diagnosis) -> str | None:
    """Return which loss, a generator's or its objective's, alone moves the table that they share, if one does."""
    for name, generator in found.generators.items():
        if generator.learns is not None and generator.shares_table:
            norms = {each: found.losses[each].gradients["word table"] for each in (name, generator.learns)}
            (_, small), (leader, large) = sorted(norms.items(), key=lambda each: each[1])
            if large > FAR_APART * small:
                return leader
    return None


def _losses(found: Diagnosis, advice: dict[str, None]) -> Table:
    table = _table("loss", "first", "chance", "logits", "")
    for name, loss in found.losses.items():
        verdict = judge_loss(loss)
        table.add_row(name, f"{loss.loss:.3f}", f"{next(iter(loss.chance.values())):.3f}", _show(loss.logits), verdict)
        if verdict.startswith("far"):
            advice[f"a smaller initializer_range: the logits of {name} start wide apart"] = None
    return table


def _generators(found: Diagnosis, advice: dict[str, None]) -> Table:
    table = _table("for", "filled", "new", "")
    for name, generator in found.generators.items():
        verdict = judge_generator(generator)
        table.add_row(name, f"{generator.filled:.3f}", f"{generator.replaced:.3f}", verdict)
        if generator.replaced < RARE:
            advice["--generator unigram, or a smaller one (width_rate, depth_rate): it guesses nearly all"] = None
    return table


def _scales(found: Diagnosis, advice: dict[str, None]) -> Table:
    table = _table("what", "scale", "")
    table.add_row("word table", _show(found.table), "ok")
    if found.positions is None:
        table.add_row("positions", "-", "ok: relative or rotary")
    else:
        table.add_row("positions", _show(found.positions), "learned absolute: order is learned late")
        advice["--encoder tiny, mini, small or base: rotary positions leave chance sooner"] = None
    table.add_row("what block 1 reads", _show(found.stream), "ok" if 0.3 < found.stream < 3 else "far from 1")
    return table


def _show(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else f"{value:.4f}" if value < 10 else f"{value:.1f}"


_TABLES: dict[str, Callable[[Diagnosis, dict[str, None]], Table]] = {
    "Blocks: entropy of attention (1: even over the row), what each part adds (share)": _blocks,
    "Gradient norm of each loss, with its weight in the sum": _gradients,
    "First loss, and how far its logits spread": _losses,
    "Generators: share of all tokens filled in, and of these expected to be new": _generators,
    "Scale of the embeddings: root mean square of an entry": _scales,
}
