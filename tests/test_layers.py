"""Who may import whom: downward only."""

import ast
from pathlib import Path

import pytest
import yaml

from training import yaml_settings

ROOT = Path(__file__).parent.parent
FLOORS = ["corpora", "objectives", "generators", "training"]


def imported_by(path: Path) -> set[str]:
    """Return the top-level names that a file imports absolutely."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_downward(floor):
    above = {*FLOORS[FLOORS.index(floor) + 1 :], "pretrain", "tests"}
    for path in sorted((ROOT / floor).glob("*.py")):
        assert not imported_by(path) & above, path.name


def test_corpora_needs_no_torch():
    for path in sorted((ROOT / "corpora").glob("*.py")):
        assert not imported_by(path) & {"torch", "accelerate"}, path.name


def test_nothing_unpickles():
    """No pickle is ever read from a run folder or a cache."""
    banned = {"pickle", "dill", "shelve", "marshal", "joblib"}
    for path in [*ROOT.glob("*.py"), *(p for floor in FLOORS for p in (ROOT / floor).glob("*.py"))]:
        assert not imported_by(path) & banned, path.name
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not {ast.unparse(call.func) for call in calls} & {"torch.load", "eval", "exec"}, path.name


def test_yaml_is_read_by_a_safe_loader():
    assert issubclass(yaml_settings._Loader, yaml.SafeLoader)
