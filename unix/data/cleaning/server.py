"""The rule cleaner behind the chat-completions protocol: an ASGI application, served in process or on loopback.

It is a baseline, not a language model, and its model name says so. It reads the report from the last user message and
the categories to remove from the answer schema; the other messages mean nothing to it.
"""

import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from pydantic import Field

from unix.config import Config
from unix.data.cleaning.answer import answer_json
from unix.data.cleaning.prompt import PRIOR_REFERENCE, categories_of, unwrap_report
from unix.data.cleaning.rules import clean_report
from unix.errors import ConfigError

MODEL = "rules-3"
"""The name under which the rule cleaner answers. It changes whenever the rules do."""

_CHARACTERS_PER_TOKEN = 4

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class EndpointConfig(Config):
    """Where `serve` listens."""

    port: int = Field(default=8765, ge=0, le=65535, description="port on loopback; 0 picks a free one")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application: `POST .../chat/completions`, `GET .../models` and `GET /health`."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] != "http":
        return
    path, method = str(scope["path"]), str(scope["method"])
    if method == "POST" and path.endswith("/chat/completions"):
        status, body = _complete(await _read(receive))
    elif method == "GET" and path.endswith("/models"):
        status, body = 200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "unix"}]}
    elif method == "GET" and path.endswith("/health"):
        status, body = 200, {"status": "ok"}
    else:
        status, body = _error(404, f"no such path: {method} {path}")
    content = json.dumps(body, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def serve(config: EndpointConfig, announce: Callable[[str], None]) -> None:
    """Serve the application on 127.0.0.1 until interrupted; `announce` is told the base URL once it listens.

    Raises:
        ConfigError: the port is taken.
    """
    import uvicorn

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", config.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {config.port} ({error.strerror}); choose another --port"
            ) from None
        listener.listen()
        announce(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        settings = uvicorn.Config(app, log_level="warning", access_log=False)  # pyright: ignore[reportArgumentType]
        uvicorn.Server(settings).run(sockets=[listener])


def _complete(body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body for one request."""
    try:
        request = cast(dict[str, Any], json.loads(body))
        contents = [str(message["content"]) for message in request["messages"] if message["role"] == "user"]
        asked_format = cast(dict[str, dict[str, Any]], request.get("response_format") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "the body is not a chat-completions request")
    if not contents:
        return _error(400, "there is no user message")
    reports = [report for report in map(unwrap_report, contents) if report is not None]
    categories = categories_of((asked_format.get("json_schema") or {}).get("schema") or {})
    cleaned = clean_report(reports[-1] if reports else contents[-1], remove_priors=PRIOR_REFERENCE in categories)
    content = answer_json(cleaned)
    prompt_tokens = len(body) // _CHARACTERS_PER_TOKEN
    completion_tokens = len(content) // _CHARACTERS_PER_TOKEN
    return 200, {
        "id": "rules",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}},
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": status}}


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = bool(message.get("more_body", False))
    return b"".join(parts)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        kind = str(message["type"]).removeprefix("lifespan.")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "shutdown":
            return
