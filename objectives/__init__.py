"""Self-supervised objectives: what is done to the text, and what must be told about it."""

from collections.abc import Mapping
from typing import Any

from corpora.errors import UserError

from .base import Corruption as Corruption
from .base import Objective as Objective
from .base import TextStatistics as TextStatistics
from .spec import build_plugin, parse_spec
from .table import FAMILIES as FAMILIES
from .table import OBJECTIVES as OBJECTIVES


def build_objectives(spec: str | Mapping[str, Any]) -> tuple[Objective, ...]:
    """Make the objectives of a composition such as `mlm+nsp`; at most one of them may arrange the text."""
    built = tuple(build_plugin("objective", name, options, OBJECTIVES) for name, options in parse_spec(spec).items())
    arranging = [objective.name for objective in built if objective.arranges()]
    if len(arranging) > 1:
        raise UserError(
            f"{' and '.join(arranging)} both decide which sentences stand where; one input can carry only one of them"
        )
    return built
