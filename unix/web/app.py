"""The web application: `create_app` puts the pages behind the gatekeeper, `serve` runs it (`unix serve`)."""

import getpass
import logging
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from starlette.exceptions import HTTPException

from unix.config import Config
from unix.errors import ConfigError, PolicyError, UnixError
from unix.resources import resource
from unix.store import Store
from unix.web import audit, login, models
from unix.web.jobs import Jobs
from unix.web.library import Library
from unix.web.overview import overview
from unix.web.pages import Pages
from unix.web.playground.checkpoints import checkpoints
from unix.web.playground.pages import UPLOAD_PATH, Playground
from unix.web.playground.pages import router as playground_router
from unix.web.playground.uploads import MOST_BYTES
from unix.web.security import LOOPBACK, Gatekeeper, Keyring

logger = logging.getLogger(__name__)
_LEAST_TOKEN_CHARACTERS = 16


class ServeConfig(Config):
    """What to serve and where."""

    store: str
    host: str = "127.0.0.1"
    port: int = Field(default=8900, ge=0, le=65535)
    token: str | None = Field(default=None, repr=False)
    """What people log in with beyond loopback; None: a new one is made and shown once."""
    reviewer: str = ""
    """The name under which decisions land before somebody says another; "": the name of the account."""
    runs: str = "runs"
    """Folder of training runs, which the pages show and whose checkpoints the playground offers."""
    refresh_seconds: float = Field(default=2.0, gt=0)
    """How often the store is asked whether a table has changed."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK


def create_app(config: ServeConfig) -> FastAPI:
    """The application over one store.

    Raises:
        ConfigError: it would listen beyond loopback without a token of some length.
    """
    if not config.loopback and len(config.token or "") < _LEAST_TOKEN_CHARACTERS:
        raise ConfigError(
            f"host {config.host} can be reached from elsewhere, so a token of at least {_LEAST_TOKEN_CHARACTERS} "
            "characters is needed"
        )
    library = Library(Store(config.store))
    jobs = Jobs(finished=library.refresh)
    keyring = Keyring(None if config.loopback else config.token)
    pages = Pages(library, jobs, keyring)
    playground = Playground(config.runs)
    closing = threading.Event()

    def warm_up() -> None:
        overview(library, library.view())

    def watch() -> None:
        while not closing.wait(config.refresh_seconds):
            try:
                if library.refresh():
                    warm_up()
            except UnixError as error:
                logger.error("%s", error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        warm_up()
        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        yield
        closing.set()
        jobs.close()
        playground.close()
        watcher.join(10)

    app = FastAPI(title="UniX", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.library, app.state.jobs, app.state.playground = library, jobs, playground
    app.mount("/static", StaticFiles(directory=resource("web", "static")), name="static")
    app.include_router(login.router(pages, leaving=playground.forget))
    app.include_router(audit.router(pages))
    app.include_router(playground_router(pages, playground))
    app.include_router(models.router(pages, config.runs))
    app.add_middleware(
        Gatekeeper,
        keyring=keyring,
        hosts=LOOPBACK if config.loopback else None,
        reviewer=config.reviewer or _account(),
        broken=_explain_errors(app, pages),
        uploads={UPLOAD_PATH: MOST_BYTES},
    )
    return app


def serve(config: ServeConfig) -> None:
    """Serve until interrupted. Beyond loopback without a token, one is made and printed to the log once.

    Raises:
        ConfigError: the address or the port cannot be had.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on port {config.port} of {config.host} ({error.strerror}): choose another --port or --host"
        ) from None
    with listener:
        if not config.loopback and config.token is None:
            config = config.model_copy(update={"token": secrets.token_urlsafe(24)})
            logger.info("token to log in with: %s", config.token)
        app = create_app(config)
        host = f"[{config.host}]" if family == socket.AF_INET6 else config.host
        logger.info("http://%s:%d", host, listener.getsockname()[1])
        with suppress(UnixError):  # pages say what is wrong with a store
            # Its libraries take seconds to load, and whoever comes first should not wait for them.
            app.state.playground.warm_up(checkpoints(config.runs, app.state.library.store))
        # uvicorn's access log would hold search words; the gatekeeper writes one that does not
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(settings).run(sockets=[listener])


def _explain_errors(app: FastAPI, pages: Pages) -> Callable[[Request, Exception], Response]:
    """Give every fault a page; returned is the page of faults that nobody foresaw."""

    def answer(request: Request, status: int, title: str, message: str) -> HTMLResponse:
        try:
            return pages.show(request, "error.html.j2", status_code=status, title=title, message=message)
        except (UnixError, jinja2.TemplateError):  # the store itself is what is broken
            return HTMLResponse(f"<h1>{title}</h1>", status)

    def foreseen(request: Request, error: Exception) -> Response:
        status = 400 if isinstance(error, ConfigError) else 403 if isinstance(error, PolicyError) else 503
        return answer(request, status, "This cannot be done", str(error))

    def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return answer(request, status, "Not here", "There is no such page, study or image in this store.")

    def malformed(request: Request, _: Exception) -> Response:
        return answer(request, 400, "This cannot be done", "The address or the form holds a value that cannot be.")

    def unforeseen(request: Request, error: Exception) -> Response:
        return answer(request, 500, "Something broke", f"The server met a {type(error).__name__}; its log says where.")

    app.add_exception_handler(UnixError, foreseen)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(RequestValidationError, malformed)
    return unforeseen


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "reviewer"
