"""Logging in, saying who one is, logging out."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from unix.web.pages import Pages, form_of, session_of
from unix.web.security import Session


def router(pages: Pages, leaving: Callable[[str], object]) -> APIRouter:
    """The pages of a session; `leaving` is told which session has logged out."""
    routes = APIRouter()

    @routes.get("/login")
    def login_form(request: Request) -> Response:
        if session_of(request).authorised:
            return RedirectResponse("/", 303)
        return pages.show(request, "login.html.j2", fault="")

    @routes.post("/login")
    def login(request: Request) -> Response:
        form = form_of(request)
        if not pages.keyring.accepts(form.get("token", "")):
            return pages.show(request, "login.html.j2", status_code=403, fault="That is not the token.")
        if not form.get("reviewer", "").strip():
            return pages.show(request, "login.html.j2", status_code=400, fault="Say who you are.")
        return _enter(request, Session.new(form["reviewer"], authorised=True))

    @routes.post("/reviewer")
    def rename(request: Request) -> Response:
        return _enter(request, Session.new(form_of(request).get("reviewer", "") or "reviewer", authorised=True))

    @routes.post("/logout")
    def logout(request: Request) -> Response:
        leaving(session_of(request).nonce)
        request.state.fresh_session = Session.new("", authorised=not pages.keyring.asks_for_token)
        return RedirectResponse("/login", 303)

    return routes


def _enter(request: Request, session: Session) -> Response:
    request.state.fresh_session = session
    return RedirectResponse("/", 303)
