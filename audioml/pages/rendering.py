"""Templates and what they need."""

from typing import Any

from markupsafe import Markup


def render(template: str, **context: Any) -> str:
    """Fill a template of ``templates/``; everything in the context is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("audioml.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plotly"] = lambda: Markup(get_plotlyjs())  # noqa: S704 - a library's
    return environment.get_template(template).render(context)
