"""What the pages share: templates that escape, and a policy that lets nothing load or run."""

import base64
import hashlib

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from .figures import DARK, LIGHT


def open_templates(package: str) -> Environment:
    """Return the templates of a package, behind which those of this one stand; all text put into them is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("probes")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"light": LIGHT, "dark": DARK}
    return environment


def state_policy(style: str) -> str:
    """Return a Content-Security-Policy under which nothing is fetched, and no style but this sheet applies."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
