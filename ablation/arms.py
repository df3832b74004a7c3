"""The arms of a study: what a YAML file writes in a line, spelled out as settings of runs."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corpora.errors import UserError
from objectives.spec import parse_spec

from .results import Kind

UNTRAINED = "untrained"
OF_THE_STUDY = (
    "seed",
    "out",
    "max_steps",
    "max_minutes",
    "resume",
    "snapshots",
    "diagnose",
    "profile",
)  # what a study sets for each run
ONCE = ("cache", "threads", "mixed_precision", "workers", "loops", "trackers")  # what all runs have alike
LEARNED = ("objective", "recipe", "mix")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing that is compared, with the settings of its runs that differ from the common ones."""

    name: str
    kind: Kind = "trained"
    settings: Mapping[str, Any] = field(default_factory=dict)
    location: str = ""  # of a reference encoder


def read_arms(written: Any, problems: list[str], common: Mapping[str, Any] | None = None) -> list[Arm]:
    """Return the trained arms of `arms:`, a list of specifications or a mapping from names, grids expanded.

    What the runs learn is each arm's own, or else that of `common`, or else what the arm is called.
    """
    learned = {key: (common or {})[key] for key in LEARNED if key in (common or {})}
    heirs = 0
    named: list[tuple[str, Any]] = []
    if isinstance(written, Mapping):
        named = [(str(name), settings) for name, settings in written.items()]
    elif isinstance(written, list) and all(isinstance(each, str) for each in written):
        named = [(name_of_spec(each), {"objective": each}) for each in written]
    else:
        problems.append("arms must be a list of objectives, or a mapping from names to settings")
    arms: list[Arm] = []
    for name, settings in named:
        if isinstance(settings, str):
            settings = {"objective": settings}
        if settings is not None and not isinstance(settings, Mapping):
            problems.append(f"arm {name} is {settings!r}; write an objective, or a mapping of settings")
            continue
        inherited = _inherit(name, settings or {}, learned, problems)
        heirs += bool(inherited)
        arms += _expand(name, {**inherited, **(settings or {})}, problems)
    if learned and not heirs:
        problems.append(f"common: {next(iter(learned))} is learned by no arm; take it out")
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [
        f"two arms are called '{name}'; give each a name of its own: NAME: {{objective: ...}}" for name in twice
    ]
    problems += [
        f"arm '{name}' can't be the name of a folder; use letters, digits and _ . , = + -, at most 80"
        for name in names
        if not _NAME.fullmatch(name)
    ]
    if UNTRAINED in names:
        problems.append(f"'{UNTRAINED}' is the arm that learns nothing (untrained: true); call the other one otherwise")
    return arms


def _inherit(
    name: str, settings: Mapping[str, Any], learned: Mapping[str, Any], problems: list[str]
) -> Mapping[str, Any]:
    """Return what an arm takes of what is learned in common: nothing beside a recipe of its own.

    Beside another objective, which wins over a recipe's as in a run, it is the recipe.
    """
    from objectives import OBJECTIVES

    grid = settings.get("grid")
    own = [key for key in LEARNED if key in settings or (isinstance(grid, Mapping) and key in grid)]
    if "recipe" in own:
        return {}
    if own:
        return {key: value for key, value in learned.items() if key == "recipe"}
    shared = learned.get("objective")
    if learned and all(part in OBJECTIVES for part in name.split("+")) and name != shared:
        problems.append(
            f"arm {name} is called like an objective, and would learn the common one; "
            f"add objective: {name}, or call it otherwise"
        )
    return learned


def name_of_spec(spec: str) -> str:
    """Return a name for a folder of `rtd:mask_rate=0.25+nsp`: the same without what a folder can't be called."""
    return re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", spec.strip()).strip("-")


def _expand(name: str, settings: dict[str, Any], problems: list[str]) -> Iterator[Arm]:
    """Yield the arm, or one for each cell of its grid."""
    grid = settings.pop("grid", None)
    if not any(key in settings for key in LEARNED):
        settings["objective"] = name
    if grid is None:
        yield Arm(name=name, settings=settings)
        return
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) and values for values in grid.values()):
        problems.append(f"arm {name}: grid is {grid!r}; write {{OPTION: [VALUE, VALUE]}}")
        return
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        try:
            varied = vary(settings, chosen)
        except UserError as error:
            problems.append(f"arm {name}: grid: {error}")
            return
        cell = ",".join(f"{str(key).rpartition('.')[2]}={name_of_spec(str(value))}" for key, value in chosen.items())
        yield Arm(name=f"{name}-{cell}", settings=varied)


def vary(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with chosen values: of settings, of `OBJECTIVE.OPTION`, of `generator.OPTION`.

    An OPTION alone is the objective's where there is one objective. UserError where it is neither.
    """
    from training.config import Config

    varied = dict(settings)
    for key, value in chosen.items():
        if key in Config.__dataclass_fields__:
            varied[key] = value
            continue
        owner, _, option = str(key).rpartition(".")
        place = "generator" if owner == "generator" else "objective"
        if place not in varied and place == "objective":
            raise UserError(f"'{key}' varies an objective, and the arm has a recipe or a mixture; vary a setting")
        parsed = parse_spec(varied.get(place, Config.generator))
        owner = owner if place == "objective" and owner else next(iter(parsed))
        if owner not in parsed or ("." not in str(key) and len(parsed) > 1):
            raise UserError(f"'{key}' is no setting; write OBJECTIVE.OPTION, for one of {', '.join(parsed)}")
        varied[place] = parsed | {owner: parsed[owner] | {option: value}}
    return varied


def check_settings(arms: Sequence[Arm], common: Mapping[str, Any], problems: list[str]) -> None:
    """Note the settings that a study gives itself, and those that all runs must have alike."""
    for where, settings in [("common", common), *((f"arm {arm.name}", arm.settings) for arm in arms)]:
        for key in settings:
            if key in OF_THE_STUDY:
                problems.append(f"{where}: {key} is what the study sets for each run; take it out")
            elif key in ONCE and where != "common":
                problems.append(f"{where}: {key} is the same for all runs; put it under common:")
