"""Templates and what they need."""

from importlib.util import find_spec
from typing import Any, Final

from markupsafe import Markup

from audioml.errors import UserError

_NEEDED: Final = ("jinja2", "plotly", "python_stretch")


class PageError(UserError):
    """A page that can't be made."""


def check_installed() -> None:
    """See, before hours of work, that a page can be made at its end.

    Raises:
        PageError: If something that pages are made with is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise PageError(
            f"a page needs {', '.join(missing)}: python -m pip install 'audioml[pages]'"
        )


def render(template: str, **context: Any) -> str:
    """Fill a template of ``templates/``; everything in the context is escaped.

    Raises:
        PageError: If something that pages are made with is not installed.
    """
    check_installed()
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
