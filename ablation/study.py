"""A study as it is written down: one YAML file, every mistake in it told before anything slow is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.errors import UserError
from training.config import Config
from training.yaml_settings import read_yaml

from .arms import LEARNED, UNTRAINED, Arm, check_settings, read_arms
from .budget import UNITS, Budget, parse_budget
from .hypotheses import Hypothesis, find_hypothesis_problems, find_unasked
from .questions import Probing, check_keys, read_mapping, read_probing, suggest
from .results import Fairness

_KEYS = (
    "title",
    "common",
    "arms",
    "seeds",
    "budget",
    "fairness",
    "anchor",
    "untrained",
    "reference",
    "probes",
    "hypotheses",
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared with what, how often, at what cost, and what it is asked."""

    title: str
    arms: tuple[Arm, ...]  # trained ones first, in the order in which they are written; then untrained, reference
    common: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budget: Budget
    fairness: Fairness = "flops"
    anchor: str  # the arm whose cost a budget in another unit is taken from
    probing: Probing = field(default_factory=Probing)
    hypotheses: tuple[Hypothesis, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)  # the YAML

    @property
    def trained(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if arm.kind == "trained")

    @property
    def has_untrained(self) -> bool:
        return any(arm.kind == "untrained" for arm in self.arms)

    def settings_of(self, arm: Arm) -> dict[str, Any]:
        """Return the settings of the arm's runs, as they are written."""
        return {"threads": 1, **self.common, **arm.settings}

    def config_of(self, arm: Arm) -> Config:
        """Return the configuration that the arm's runs share; the study has been checked."""
        from training.command import make_config

        return make_config(self.settings_of(arm), arm.name)[0]


def read_study(path: str) -> Study:
    """Read a study's file. UserError tells everything that is wrong with it, one line each."""
    if not Path(path).is_file():
        raise UserError(f"there is no study at {path}; give a YAML file (docs/studies has some), or --objectives")
    return make_study(read_yaml(path), path)


def make_study(written: Mapping[str, Any], where: str) -> Study:
    """Make a study of what a file or a command line says. UserError tells everything that is wrong."""
    from training.command import make_config

    problems: list[str] = check_keys(written, _KEYS, where)
    written_common = read_mapping(written, "common", problems)
    arms = read_arms(written.get("arms"), problems, written_common) if "arms" in written else []
    common = {key: value for key, value in written_common.items() if key not in LEARNED}  # now each arm's
    if not arms and not problems:
        problems.append(f"{where} has no arms; write arms: [mlm, rtd]")
    check_settings(arms, common, problems)
    own = {key: value for key, value in common.items() if not any(f"common: {key}" in each for each in problems)}
    shared = {key: value for key, value in written_common.items() if key in LEARNED}
    wrong = make_config(shared, "YAML")[1] if shared else []
    problems += [f"common: {problem}" for problem in wrong]
    for number, arm in enumerate(arms):
        settings = {**({} if number else own), **arm.settings}  # what is common need be told once
        found = make_config(settings, "YAML")[1]
        problems += [f"arm {arm.name}: {problem}" for problem in found if problem not in wrong]
    anchor = str(written.get("anchor", arms[0].name if arms else ""))
    if arms and anchor not in [arm.name for arm in arms]:
        problems.append(f"anchor '{anchor}' is no arm{suggest(anchor, [arm.name for arm in arms])}")
    budget = _collect(lambda: parse_budget(written.get("budget")), problems)
    seeds = _read_seeds(written.get("seeds", 5), problems)
    fairness = written.get("fairness", "flops")
    if fairness not in UNITS:
        problems.append(f"fairness is {fairness!r}; it must be one of {', '.join(UNITS)}")
    arms += _others(written, [arm.name for arm in arms], problems)
    probing = read_probing(written, problems)
    hypotheses = find_hypothesis_problems(written.get("hypotheses"), [arm.name for arm in arms], problems)
    if not problems:
        problems += find_unasked(hypotheses, probing.asked)
    if problems or budget is None:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return Study(
        title=str(written.get("title") or f"{', '.join(arm.name for arm in arms)} compared"),
        arms=tuple(arms),
        common=common,
        seeds=seeds,
        budget=budget,
        fairness=fairness,
        anchor=anchor,
        probing=probing,
        hypotheses=hypotheses,
        written=dict(written),
    )


def _collect(read: Callable[[], Budget], problems: list[str]) -> Budget | None:
    try:
        return read()
    except UserError as error:
        problems.append(str(error))
        return None


def _read_seeds(written: Any, problems: list[str]) -> tuple[int, ...]:
    if type(written) is int and written > 0:
        return tuple(range(written))
    if isinstance(written, list) and written and all(type(seed) is int and seed >= 0 for seed in written):
        if len(set(written)) == len(written):
            return tuple(written)
    problems.append(f"seeds is {written!r}; write how many, or a list of different whole numbers from 0 on")
    return ()


def _others(written: Mapping[str, Any], taken: Sequence[str], problems: list[str]) -> list[Arm]:
    """Return the arms that nothing is trained for: the untrained encoder, and a reference."""
    others = []
    untrained, reference = written.get("untrained", True), written.get("reference")
    if not isinstance(untrained, bool):
        problems.append(f"untrained is {untrained!r}; it must be true or false")
    if untrained is True:
        others.append(Arm(name=UNTRAINED, kind="untrained"))
    if reference is not None:
        name = Path(str(reference)).name
        is_path = str(reference).startswith((".", "/", "~")) or str(reference).count("/") > 1
        if is_path and not (Path(str(reference)).expanduser() / "config.json").is_file():
            problems.append(f"reference: {reference} has no config.json; give a `transformers` folder, or a name")
        if name in [*taken, UNTRAINED]:
            problems.append(f"the reference {reference} has the name of an arm; call the arm otherwise")
        others.append(Arm(name=name, kind="reference", location=str(reference)))
    return others
