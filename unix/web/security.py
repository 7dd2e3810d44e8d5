"""Who may ask for what: host check, login, sessions, CSRF tokens, response headers, an access log without content.

One ASGI middleware stands before every page. It reads the body of a write itself, so that no page can forget the check:
pages find the fields in `request.state.form`, and the session in `request.state.session`.
"""

import base64
import hashlib
import hmac
import json
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

COOKIE = "unix_session"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MOST_BODY_BYTES = 1_000_000
_MOST_REVIEWER_CHARACTERS = 80

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's visit: who decides there, and whether it may see the pages."""

    reviewer: str
    authorised: bool
    nonce: str

    @classmethod
    def new(cls, reviewer: str, authorised: bool) -> "Session":
        """A session that nobody else has."""
        name = "".join(character for character in reviewer if character.isprintable()).strip()
        return cls(name[:_MOST_REVIEWER_CHARACTERS], authorised, secrets.token_urlsafe(18))


class Keyring:
    """Signs sessions and CSRF tokens with a key of this process, and compares the login token in constant time."""

    def __init__(self, token: str | None = None) -> None:
        self._key = secrets.token_bytes(32)
        self._token = token

    @property
    def asks_for_token(self) -> bool:
        """Whether the pages need a login."""
        return self._token is not None

    def accepts(self, token: str) -> bool:
        """Whether this is the login token."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def csrf_token(self, session: Session) -> str:
        """The token that every write of the session must bring."""
        return self._sign(f"csrf {session.nonce}".encode())

    def seal(self, session: Session) -> str:
        """The session as a cookie's value."""
        body = base64.urlsafe_b64encode(
            json.dumps([session.reviewer, session.authorised, session.nonce], ensure_ascii=True).encode()
        )
        return f"{body.decode()}.{self._sign(body)}"

    def unseal(self, value: str) -> Session | None:
        """The session of a cookie, or None where this process did not sign it."""
        body, _, signature = value.rpartition(".")
        if not body or not hmac.compare_digest(signature.encode(), self._sign(body.encode()).encode()):
            return None
        reviewer, authorised, nonce = json.loads(base64.urlsafe_b64decode(body))
        return Session(str(reviewer), bool(authorised), str(nonce))

    def _sign(self, content: bytes) -> str:
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()


class Gatekeeper:
    """The middleware. `hosts`: names under which the server may be asked; None takes any (a token is asked then).

    `broken` makes the answer to what nobody foresaw. `uploads`: paths that take a file in place of a form, which they
    find in `request.state.upload`, and how many bytes it may have.
    """

    def __init__(
        self,
        app: ASGIApp,
        keyring: Keyring,
        hosts: frozenset[str] | None,
        reviewer: str,
        broken: Callable[[Request, Exception], Response],
        uploads: Mapping[str, int],
    ) -> None:
        self._app, self._keyring, self._hosts, self._reviewer, self._broken = app, keyring, hosts, reviewer, broken
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on; every answer gets the headers, and one line in the log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, started_answer = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started_answer
            if message["type"] == "http.response.start":
                status, started_answer = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if (fresh := scope["state"].get("fresh_session")) is not None:
                    headers.append("set-cookie", self._cookie(fresh, scope["scheme"] == "https"))
            await send(message)

        scope.setdefault("state", {})
        # Logged are neither query nor ids nor fields nor an error's message: they can hold what a report says.
        try:
            refusal = await self._refusal(scope, receive)
            await (refusal or self._app)(scope, receive, answer)
        except Exception as error:
            places = [
                f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in traceback.extract_tb(error.__traceback__)
            ]
            logger.error("%s in %s", type(error).__name__, " < ".join(reversed(places[-4:])))
            if started_answer:
                raise ConnectionAbortedError from None
            await self._broken(Request(scope), error)(scope, receive, answer)
        finally:
            milliseconds = 1000 * (time.perf_counter() - started)
            page = getattr(scope.get("route"), "path", "-")
            logger.info("%s %s %d %.0f ms", scope["method"], page, status, milliseconds)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        headers, path, method = Headers(scope=scope), str(scope["path"]), scope["method"]
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this server answers to its own names only", 421)
        session = self._session(headers, scope)
        public = path == "/login" or path.startswith("/static/")
        if method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("no such method", 405)
        if not session.authorised and not public:
            if method != "GET":
                return PlainTextResponse("log in first", 401)
            if headers.get("hx-request"):
                return PlainTextResponse("log in first", 401, {"hx-redirect": "/login"})
            return RedirectResponse("/login", 303)
        return await self._check_write(scope, receive, headers, session) if method == "POST" else None

    def _session(self, headers: Headers, scope: Scope) -> Session:
        session = self._keyring.unseal(_cookies(headers).get(COOKIE, ""))
        if session is None:
            session = Session.new(self._reviewer, authorised=not self._keyring.asks_for_token)
            scope["state"]["fresh_session"] = session
        scope["state"].update(session=session, csrf_token=self._keyring.csrf_token(session), form={})
        return session

    async def _check_write(self, scope: Scope, receive: Receive, headers: Headers, session: Session) -> Response | None:
        origin = headers.get("origin")
        elsewhere = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if elsewhere or (origin is not None and urlsplit(origin).netloc != headers.get("host")):
            return PlainTextResponse("writes come from this server's own pages only", 403)
        kind, uploading = headers.get("content-type", "").partition(";")[0], scope["path"] in self._uploads
        if kind != ("application/octet-stream" if uploading else "application/x-www-form-urlencoded"):
            return PlainTextResponse(f"the body must be {'a file' if uploading else 'a form'}", 415)
        if uploading and not self._has_token(headers.get("x-csrf-token") or "", session):
            return PlainTextResponse("the page is too old: reload it and try again", 403)
        body = await _read(receive, self._uploads[scope["path"]] if uploading else MOST_BODY_BYTES)
        if body is None:
            return PlainTextResponse(f"the {'file' if uploading else 'form'} is too large", 413)
        if uploading:
            scope["state"]["upload"] = body
            return None
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        brought = form.get("csrf_token") or headers.get("x-csrf-token") or ""
        if not self._has_token(brought, session):
            return PlainTextResponse("the page is too old: reload it and try again", 403)
        scope["state"]["form"] = form
        return None

    def _has_token(self, brought: str, session: Session) -> bool:
        return hmac.compare_digest(brought.encode(), self._keyring.csrf_token(session).encode())

    def _cookie(self, session: Session, secure: bool) -> str:
        attributes = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        return f"{COOKIE}={self._keyring.seal(session)}; {attributes}"


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _cookies(headers: Headers) -> Mapping[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body, or None where it has more bytes than it may."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)
