"""Templates and what they need."""

from typing import Any

from markupsafe import Markup

from audioml.errors import UserError


class PageError(UserError):
    """A page that can't be made."""


def render(template: str, **context: Any) -> str:
    """Fill a template of ``templates/``; everything in the context is escaped.

    Raises:
        PageError: If Jinja2 or Plotly is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise PageError(
            f"pages need Jinja2 and Plotly ({error}): python -m pip install 'audioml[pages]'"
        ) from error
    environment = Environment(
        loader=PackageLoader("audioml.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plotly"] = lambda: Markup(get_plotlyjs())  # noqa: S704 - a library's
    return environment.get_template(template).render(context)
