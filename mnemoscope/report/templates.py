"""Pages from templates: one way for all of them, in which every text is escaped and no name may be missing."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """A file of this folder, filled.

    Raises:
        jinja2.UndefinedError: it speaks of something that is not among the values.
    """
    environment = Environment(
        loader=PackageLoader("mnemoscope", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
