"""What every page shares: the templates, the library behind them, and who is looking."""

from collections.abc import Mapping
from typing import Any, cast

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from unix.records import CHEXPERT_14
from unix.web.jobs import Jobs
from unix.web.library import Library
from unix.web.security import Keyring, Session

THEMES = ("light", "dark")
_THEME_COOKIE = "unix_theme"


class Pages:
    """Renders templates; every text in them is escaped."""

    def __init__(self, library: Library, jobs: Jobs, keyring: Keyring) -> None:
        self.library, self.jobs, self.keyring = library, jobs, keyring
        self._templates = jinja2.Environment(
            loader=jinja2.ChoiceLoader(
                [
                    jinja2.PackageLoader("unix.web", "templates"),
                    jinja2.PrefixLoader({"evaluation": jinja2.PackageLoader("unix.evaluation", "templates")}),
                ]
            ),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"number": "{:,}".format, "percent": _percent, "spaced": _spaced}  # pyright: ignore[reportUnknownMemberType]
        self._templates.globals |= {"classes": CHEXPERT_14}  # pyright: ignore[reportUnknownMemberType]

    def show(self, request: Request, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
        """A page, or a part of one."""
        theme = request.cookies.get(_THEME_COOKIE, "")
        content = self._templates.get_template(template).render(
            theme=theme if theme in THEMES else "",
            path=request.url.path,
            session=session_of(request),
            csrf_token=request.state.csrf_token,
            asks_for_token=self.keyring.asks_for_token,
            synthetic=session_of(request).authorised and self.library.synthetic,
            **values,
        )
        return HTMLResponse(content, status_code)


def session_of(request: Request) -> Session:
    """Who is looking."""
    return cast(Session, request.state.session)


def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a write, whose CSRF token has been checked."""
    return cast(Mapping[str, str], request.state.form)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _spaced(name: str) -> str:
    return name.replace("_", " ")
