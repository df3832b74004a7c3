"""The distribution holds exactly our packages, each of them, and nothing stray."""

import importlib.util
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed_and_lies_here():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = settings["tool"]["setuptools"]["packages"]
    lying = [
        path.parent.relative_to(ROOT).parts for path in (*ROOT.glob("*/__init__.py"), *ROOT.glob("*/*/__init__.py"))
    ]
    here = [".".join(parts) for parts in lying if not parts[0].startswith((".", "tests"))]
    assert sorted(listed) == sorted(here)
    for name in [*listed, *settings["tool"]["setuptools"]["py-modules"]]:
        origin = importlib.util.find_spec(name).origin
        assert Path(origin).is_relative_to(ROOT), f"another '{name}' hides ours: {origin}"


def test_the_generic_names_cannot_be_uploaded():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Private :: Do Not Upload" in settings["project"]["classifiers"]
    assert settings["project"]["license"] == "Apache-2.0"


def test_torch_is_pinned_and_every_requirement_has_a_pin():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["torch"] == "2.13.0"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = settings["project"]["dependencies"] + [
        r for extra in settings["project"]["optional-dependencies"].values() for r in extra
    ]
    names = {requirement.split(">")[0].split("=")[0].strip() for requirement in wanted}
    assert names <= {name.lower().replace("_", "-") for name in pins}
