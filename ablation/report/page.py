"""The report as one HTML page: no script, nothing fetched, everything of the records escaped."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup, escape

from ablation.results import StudyResults
from probes.figures import METRICS, draw_sample
from probes.pages import open_templates, state_policy

from . import notation
from .arms import ArmPart, describe_arm
from .cost import draw_cost, list_costs, list_terms
from .curves import draw_layers, draw_trajectories, explain_bands
from .drawing import Picture, list_lines, rename_ids, stand_alone
from .finding import EQUAL_IN, tell_finding
from .matrix import Row
from .measures import Gain, find_baseline, list_columns, list_quantities
from .missing import list_missing
from .onset import list_onsets
from .overview import draw_differences, draw_hypotheses

_FILTERS = (
    *(notation.points, notation.difference, notation.scientific, notation.count, notation.duration),
    *(notation.megabytes, notation.figure, notation.chance, notation.plain, notation.bounds, notation.plural),
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Every figure of the page, and the same as files by name."""

    differences: Picture | None
    cost: Sequence[Picture]
    layers: Sequence[Picture]
    trajectories: Sequence[Picture]
    hypotheses: Picture | None
    arms: Sequence[ArmPart]
    files: Mapping[str, str]


def draw_all(results: StudyResults, rows: Sequence[Row], gains: Mapping[str, Gain]) -> Drawn:
    """Draw the figures that the records allow."""
    lines = list_lines(results)
    layers, all_layers = draw_layers(results)
    trajectories, all_trajectories = draw_trajectories(results)
    cost, all_costs = draw_cost(results, gains)
    arms = [
        describe_arm(results, arm, f"arm-{number}", lines[arm.name])
        for number, arm in enumerate((each for each in results.arms if each.kind == "trained"), 1)
    ]
    single = {
        "differences": draw_differences(results, rows),
        "hypotheses": draw_hypotheses(results.hypotheses),
        **{f"training-{part.anchor}": part.training for part in arms},
    }
    files = {name: picture.markup for name, picture in single.items() if picture is not None}
    grids = {"cost": all_costs, "layers": all_layers, "trajectories": all_trajectories}
    files |= {name: markup for name, markup in grids.items() if markup}
    return Drawn(
        differences=single["differences"],
        cost=cost,
        layers=layers,
        trajectories=trajectories,
        hypotheses=single["hypotheses"],
        arms=arms,
        files={name: stand_alone(markup) for name, markup in files.items()},
    )


def render_page(results: StudyResults, rows: Sequence[Row], gains: Mapping[str, Gain], drawn: Drawn) -> str:
    """Return the page."""
    environment = open_templates("ablation.report")
    environment.filters |= {each.__name__: each for each in _FILTERS}
    environment.filters |= {"within": rename_ids, "breakable": _let_break, "svg": _inline}
    style = environment.get_template("study.css.j2").render()
    columns = list_columns(results)
    kinds = {arm.name: arm for arm in results.arms}
    onset_arms, onsets = list_onsets(results)
    return environment.get_template("study.html.j2").render(
        results=results,
        style=Markup(style),
        policy=state_policy(style),
        finding=tell_finding(results, rows, gains),
        equal_in=EQUAL_IN[results.fairness],
        columns=columns,
        baseline=find_baseline(results),
        rows=rows,
        gains=gains,
        drawn=drawn,
        legend=[(line, draw_sample(line)) for line in list_lines(results).values()],
        bands=explain_bands(results),
        quantities=list_quantities(results),
        costs=list_costs(results, gains),
        terms=list_terms(results),
        onset_arms=onset_arms,
        onsets=onsets,
        others=[kinds[name] for name in columns if name in kinds and kinds[name].kind != "trained"],
        missing=list_missing(results),
        methods=_list_methods(results),
        tested=sum(each.p_holm is not None for each in results.probes.comparisons) if results.probes else 0,
        metrics=METRICS,
        study=_write_yaml(results.study),
    )


def _inline(picture: Picture) -> Markup:
    return Markup(picture.markup)


def _let_break(name: str) -> Markup:
    """Return a name, escaped, that a narrow column may break behind _, + and :."""
    return Markup(re.sub(r"([_+:])", r"\1<wbr>", str(escape(name))))


def _list_methods(results: StudyResults) -> list[str]:
    compared = results.probes.comparisons if results.probes else ()
    return list(dict.fromkeys(each.method for each in compared))


def _write_yaml(study: Mapping[str, Any]) -> str:
    return yaml.safe_dump(json.loads(json.dumps(study)), sort_keys=False, allow_unicode=True).rstrip()
