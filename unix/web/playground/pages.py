"""The pages of the playground: bring or pick a radiograph, ask for findings to be drawn, watch, compare, cancel."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import polars as pl
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from unix.data.images import encode_jpeg, squares
from unix.errors import ConfigError, ImageError
from unix.records import CHEXPERT_14
from unix.web.pages import Pages, form_of, session_of
from unix.web.pictures import read_picture
from unix.web.playground.checkpoints import Checkpoint, checkpoints, chosen
from unix.web.playground.model_process import DrawSettings, ModelProcess
from unix.web.playground.turns import Source, Turn, Turns, findings_in
from unix.web.playground.upload_decoder import SIDE
from unix.web.playground.uploads import Uploads

UPLOAD_PATH = "/playground/uploads"
_CASES = 12
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_OF_A_STREAM = 55.0
_FRONTAL = ("AP", "PA")


class Playground:
    """What the pages share: the pictures that are here, the queue, the model's process, the folder of runs."""

    def __init__(self, runs: str) -> None:
        self.runs = runs
        self.models = ModelProcess()
        self.uploads = Uploads()
        self.turns = Turns(self.models)

    def warm_up(self, known: list[Checkpoint]) -> None:
        """Begin to load the first of the models that are known, if any."""
        if known:
            self.models.warm_up(known[0].folder)

    def forget(self, session: str) -> None:
        """Drop what a session brought and asked for."""
        self.turns.forget(session)
        self.uploads.forget(session)

    def close(self) -> None:
        """Stop the work and the model's process."""
        self.turns.close()


def router(pages: Pages, playground: Playground) -> APIRouter:
    """The playground's pages."""
    routes = APIRouter()
    library, turns = pages.library, playground.turns

    def turn_or_404(request: Request, key: str) -> Turn:
        turn = turns.get(session_of(request).nonce, key)
        if turn is None:
            raise HTTPException(404)
        return turn

    def asked(request: Request, known: list[Checkpoint]) -> tuple[Checkpoint, ...]:
        form = form_of(request)
        picked = chosen(known, [form.get("checkpoint", ""), form.get("against", "")])
        if not picked:
            raise ConfigError(
                "That checkpoint is not in the folder of runs any more: reload the page and choose again."
            )
        return picked

    def shown(request: Request, turn: Turn) -> Response:
        if request.headers.get("hx-request") is None:
            return RedirectResponse("/playground#turns", 303)
        return pages.show(request, "playground_turn.html.j2", **_turn_values(turns, turn))

    @routes.get("/playground")
    def show_playground(request: Request, case: str = "") -> Response:
        known = checkpoints(playground.runs, library.store)
        playground.warm_up(known)
        return pages.show(
            request,
            "playground.html.j2",
            known=known,
            runs=playground.runs,
            cases=_cases(library.images),
            case=case,
            settings=DrawSettings(findings="-"),
            turns=[_turn_values(turns, turn) for turn in turns.of(session_of(request).nonce)],
            live=turns.live,
        )

    @routes.post(UPLOAD_PATH)
    def upload(request: Request) -> Response:
        try:
            key = playground.uploads.add(session_of(request).nonce, request.state.upload)
        except ConfigError as error:
            return JSONResponse({"fault": str(error)}, 422)
        return JSONResponse({"upload": key})

    @routes.get("/playground/uploads/{key}")
    def show_upload(request: Request, key: str) -> Response:
        pixels = playground.uploads.get(session_of(request).nonce, key)
        if pixels is None:
            raise HTTPException(404)
        return Response(encode_jpeg(pixels, quality=90), media_type="image/jpeg")

    @routes.post("/playground/read")
    def read(request: Request) -> Response:
        form, session = form_of(request), session_of(request).nonce
        picked = asked(request, checkpoints(playground.runs, library.store))
        if upload_key := form.get("upload"):
            pixels = playground.uploads.get(session, upload_key)
            if pixels is None:
                raise ConfigError("That picture is gone: pictures are kept for an hour. Bring it again.")
            return shown(request, turns.read(session, Source("Your picture", pixels), picked))
        return shown(request, turns.read(session, _case(pages, form.get("case", "")), picked))

    @routes.post("/playground/draw")
    def draw(request: Request) -> Response:
        form = form_of(request)
        given = {name: form[name] for name in DrawSettings.model_fields if form.get(name, "").strip()}
        settings = DrawSettings.build(given)
        return shown(
            request,
            turns.draw(
                session_of(request).nonce, settings, asked(request, checkpoints(playground.runs, library.store))
            ),
        )

    @routes.post("/playground/turns/{key}/cancel")
    def cancel(request: Request, key: str) -> Response:
        turn = turn_or_404(request, key)
        turns.cancel(turn)
        return shown(request, turn)

    @routes.get("/playground/turns/{key}")
    def show_turn(request: Request, key: str) -> Response:
        return pages.show(request, "playground_turn.html.j2", **_turn_values(turns, turn_or_404(request, key)))

    @routes.get("/playground/turns/{key}/events")
    async def watch_turn(request: Request, key: str) -> Response:
        turn = turn_or_404(request, key)

        async def events() -> AsyncGenerator[str]:
            seen, looks = (-1, -1), round(_SECONDS_OF_A_STREAM / _SECONDS_BETWEEN_LOOKS)
            for _ in range(looks):  # a browser comes again after the stream's end
                now = (turn.version, turns.before(turn))
                if now != seen:
                    seen, live = now, turn.live
                    part = await run_in_threadpool(
                        pages.show, request, "playground_turn.html.j2", **_turn_values(turns, turn)
                    )
                    yield _event(bytes(part.body).decode())
                    if not live:
                        return
                await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

        return StreamingResponse(events(), media_type="text/event-stream")

    @routes.get("/playground/turns/{key}/source.png")
    def show_source(request: Request, key: str) -> Response:
        return _png(turn_or_404(request, key).source_png)

    @routes.get("/playground/turns/{key}/{result}/{image}.png")
    def show_drawn(request: Request, key: str, result: int, image: int) -> Response:
        results = turn_or_404(request, key).results
        if not 0 <= result < len(results) or not 0 <= image < len(results[result].images):
            raise HTTPException(404)
        return _png(results[result].images[image].png)

    return routes


def _png(content: bytes) -> Response:
    if not content:
        raise HTTPException(404)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


def _event(text: str) -> str:
    """A server-sent event that carries a text of several lines."""
    return "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"


def _turn_values(turns: Turns, turn: Turn) -> dict[str, Any]:
    """What the template of a turn needs."""
    wanted = findings_in(turn.settings.findings) if turn.settings else frozenset[str]()
    if turn.source is not None:
        wanted = findings_in(turn.source.reference)

    def marks(report: str) -> list[tuple[str, str]]:
        found = findings_in(report)
        kinds = {(True, True): "both", (True, False): "missed", (False, True): "extra"}
        pairs = [(name, (name in wanted, name in found)) for name in CHEXPERT_14]
        return [(name, kinds[state]) for name, state in pairs if state in kinds]

    return {
        "turn": turn,
        "before": turns.before(turn) if turn.state == "waiting" else 0,
        "wanted": wanted,
        "marks": marks,
    }


def _cases(images: pl.DataFrame) -> list[str]:
    """Frontal images spread over the store, as cases to pick from."""
    frontal = images.filter(pl.col("view_position").is_in(_FRONTAL))["image_id"]
    places = np.linspace(0, max(0, frontal.len() - 1), min(_CASES, frontal.len())).round().astype(int)
    return [str(frontal[int(place)]) for place in dict.fromkeys(places.tolist())]


def _case(pages: Pages, image_id: str) -> Source:
    """A store's image and the report that training would see for it.

    Raises:
        ConfigError: there is no such image, or it cannot be read.
    """
    library = pages.library
    rows = library.images.filter(pl.col("image_id") == image_id)
    if rows.is_empty():
        raise ConfigError("Pick a case or bring a picture first.")
    row = rows.row(0, named=True)
    try:
        pixels = squares(read_picture(str(row["path"])), [SIDE])[SIDE]
    except ImageError as error:
        raise ConfigError(f"The image {image_id} cannot be shown: {error.reason}.") from error
    study = library.view().rows.filter(source=row["source"], study_id=row["study_id"])
    texts = [] if study.is_empty() else [study["findings"][0], study["impression"][0]]
    return Source(f"Case {image_id}", pixels, "\n".join(filter(None, texts)))
