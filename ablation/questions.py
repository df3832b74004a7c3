"""What a study asks of its encoders: which probes, of what text, at which steps."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.published_data import NOTHING, PublishedData, choose_suite

_PROBE_KEYS = (
    "suite",
    "only",
    "corpus",
    "treebank",
    "senteval",
    "discoeval",
    "size",
    "language",
    "kind",
    "pooling",
    "mix",
    "trajectory",
)
_TRAJECTORY_KEYS = ("steps", "only")


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What the finished encoders are asked, and which of it the unfinished ones are."""

    suite: Literal["raw", "treebank", "all", "published", "none"] = "raw"
    only: tuple[str, ...] = ()  # names of the suite's probes; none: all of them
    corpus: str | None = None  # None: what the first arm's runs hold out
    treebank: tuple[str, ...] = ()
    published: PublishedData = NOTHING  # asked beside the suite
    size: int = 4000
    language: str = "en"
    kind: Literal["linear", "mlp"] = "linear"
    pooling: Literal["mean", "cls"] = "mean"
    mix: bool = False
    trajectory: tuple[int, ...] | Literal["log", "none"] = "log"  # after which steps
    trajectory_only: tuple[str, ...] = ()  # none: the same as at the end

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of all probes that finished encoders are asked."""
        return (*(self.only or list_suite(self.suite)), *self.published.names)


def list_suite(suite: str) -> list[str]:
    """Return the names of a suite's probes."""
    from probes.raw_text import RAW_PROBES
    from probes.treebank import TREEBANK_PROBES

    raw = list(RAW_PROBES) if suite in ("raw", "all") else []
    return [*raw, *(TREEBANK_PROBES if suite in ("treebank", "all") else ())]


def read_probing(written: Mapping[str, Any], problems: list[str]) -> Probing:
    """Return what `probes:` of a study's file asks for, and add what is wrong with it to `problems`."""
    asked = read_mapping(written, "probes", problems)
    found = check_keys(asked, _PROBE_KEYS, "probes")
    trajectory = asked.pop("trajectory", "log")
    steps: Any = trajectory
    only: Any = ()
    if isinstance(trajectory, Mapping):
        found += check_keys(trajectory, _TRAJECTORY_KEYS, "probes: trajectory")
        steps, only = trajectory.get("steps", "log"), trajectory.get("only", ())
    steps = tuple(steps) if isinstance(steps, list) else "none" if steps in (False, None) else steps
    if steps not in ("log", "none") and not (
        isinstance(steps, tuple) and all(type(step) is int and step > 0 for step in steps)
    ):
        found.append(f"probes: trajectory is {trajectory!r}; write log, none, or a list of steps")
    for key, allowed in _CHOICES.items():
        if key in asked and asked[key] not in allowed:
            found.append(f"probes: {key} is {asked[key]!r}; it must be one of {', '.join(map(str, allowed))}")
    for key in ("corpus", "language"):
        if not isinstance(asked.get(key, ""), str):
            found.append(f"probes: {key} is {asked[key]!r}; it must be a text")
    size = asked.get("size", 4000)
    if type(size) is not int or size < 100:
        found.append(f"probes: size is {size!r}; it must be a whole number of at least 100")
    lists = {key: _names(asked.get(key), f"probes: {key}", found) for key in ("only", "treebank")}
    published = _read_published(asked.pop("senteval", None), asked.pop("discoeval", None), found)
    others = bool(asked.get("corpus") or lists["only"])
    suite = asked.get("suite") or choose_suite(published, treebank=bool(lists["treebank"]), others=others)
    chosen = _names(only, "probes: trajectory: only", found)
    found += _check_published(suite, published)
    found += _check_names(suite, lists, chosen, published)
    problems += found
    if found:
        return Probing()
    read = {"suite": suite, "published": published, "trajectory": steps, "trajectory_only": chosen}
    return Probing(**(asked | lists | read))


def _read_published(files: Any, folders: Any, problems: list[str]) -> PublishedData:
    """Return the published data of a study's file: a list of SentEval's files, {task: folder} of DiscoEval's."""
    if folders is not None and not (
        isinstance(folders, Mapping) and all(isinstance(each, str) for pair in folders.items() for each in pair)
    ):
        problems.append(f"probes: discoeval is {folders!r}; write a mapping, TASK: FOLDER")
        folders = None
    named = _names(files, "probes: senteval", problems)
    return PublishedData(senteval=named, discoeval=tuple((folders or {}).items()))


def _check_published(suite: str, published: PublishedData) -> list[str]:
    """Return what is wrong with published data, as far as the names of tasks and files tell."""
    if suite == "published" and not published:
        return ["probes: suite published wants senteval: [FILE, ...] or discoeval: {TASK: FOLDER}"]
    if suite == "none" and published:
        return ["probes: suite none asks nothing, and senteval or discoeval something; write suite: published"]
    return [f"probes: {problem}" for problem in published.list_problems()] if published else []


def _check_names(
    suite: str, lists: Mapping[str, tuple[str, ...]], chosen: Sequence[str], published: PublishedData
) -> list[str]:
    """Return what is wrong with the names of probes."""
    known = list_suite(suite)
    found = [f"probe '{name}' is unknown{suggest(name, known)}" for name in lists["only"] if name not in known]
    asked = [*(lists["only"] or known), *published.names]
    found += [
        f"probes: trajectory: '{name}' is not among the probes of the study{suggest(name, asked)}"
        for name in chosen
        if name not in asked
    ]
    if suite in ("treebank", "all") and not lists["treebank"]:
        found.append(f"probes: suite {suite} wants treebank: [FILE, ...], of CoNLL-U")
    found += [f"probes: treebank: there is no file {file}" for file in lists["treebank"] if not Path(file).is_file()]
    return found


def _names(written: Any, where: str, problems: list[str]) -> tuple[str, ...]:
    """Return a list of names, or a text with commas between them."""
    if isinstance(written, str):
        written = [name.strip() for name in written.split(",")]
    if written is None or (isinstance(written, list | tuple) and all(isinstance(name, str) for name in written)):
        return tuple(written or ())
    problems.append(f"{where} is {written!r}; write a list of names")
    return ()


def check_keys(written: Mapping[str, Any], known: Sequence[str], where: str) -> list[str]:
    """Return a line for each key that is none of `known`."""
    return [f"{where}: {key} is unknown{suggest(str(key), known)}" for key in written if key not in known]


def suggest(word: str, known: Sequence[str]) -> str:
    """Return what may have been meant: the nearest known word, or all of them."""
    near = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def read_mapping(written: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    """Return the mapping under a key, empty where there is none."""
    value = written.get(key)
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    problems.append(f"{key} is {value!r}; write a mapping, NAME: VALUE")
    return {}


_CHOICES: dict[str, tuple[Any, ...]] = {
    "suite": ("raw", "treebank", "all", "published", "none"),
    "kind": ("linear", "mlp"),
    "pooling": ("mean", "cls"),
    "mix": (True, False),
}
