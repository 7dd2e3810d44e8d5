"""The pages of trained models: which there are, what they came from, how a run went; promote or refuse a candidate."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from unix.evaluation.charts import HEIGHT, WIDTH, LineChart, line_chart
from unix.evaluation.runs import loss_series
from unix.registry import models as registry
from unix.registry.models import State, list_models
from unix.runs import METRICS_FILE, RunRow, list_runs
from unix.web.pages import Pages, form_of, session_of
from unix.web.playground.checkpoints import folder_key

_SAMPLES = "samples"
_STEPS_SHOWN = 6
_SUFFIXES = frozenset({".png"})


@dataclass(frozen=True, slots=True)
class Look:
    """What the model made of the fixed validation samples at one step."""

    step: int
    reports: tuple[dict[str, str], ...]
    images: tuple[tuple[str, str], ...]
    """File name and caption."""


def router(pages: Pages, runs: str) -> APIRouter:
    """The pages over the runs in a folder and the store's table of models."""
    routes = APIRouter()
    store = pages.library.store

    def rows() -> list[RunRow]:
        return list_runs(runs) if Path(runs).is_dir() else []

    def run_or_404(key: str) -> RunRow:
        found = next((row for row in rows() if folder_key(row.folder) == key), None)
        if found is None:
            raise HTTPException(404)
        return found

    @routes.get("/models")
    def show_models(request: Request) -> Response:
        listed = list_models(store)
        names = sorted({name for model in listed.models for name in model.metrics})
        return pages.show(
            request, "models.html.j2", models=listed, metrics=names, runs=rows(), key=folder_key, folder=runs
        )

    @routes.get("/models/{model_id}")
    def show_model(request: Request, model_id: str) -> Response:
        listed = list_models(store)
        return pages.show(
            request, "model.html.j2", model=listed.find(model_id), champion=listed.champion, candidate=State.CANDIDATE
        )

    @routes.post("/models/{model_id}/{act}")
    def decide(request: Request, model_id: str, act: str) -> Response:
        form = form_of(request)
        who = session_of(request).reviewer
        note = form.get("note", "").strip()
        reason = f"{'promoted' if act == 'promote' else 'refused'} by {who}" + (f": {note}" if note else "")
        match act:
            case "promote":
                registry.promote(store, model_id, reason, champion=form.get("champion", ""))
            case "refuse":
                registry.retire(store, model_id, reason)
            case _:
                raise HTTPException(404)
        return RedirectResponse(f"/models/{model_id}", 303)

    @routes.get("/runs/{key}")
    def show_run(request: Request, key: str) -> Response:
        row = run_or_404(key)
        return pages.show(
            request,
            "run.html.j2",
            run=row,
            key=key,
            charts=_charts(row),
            looks=_looks(Path(row.folder)),
            size=(WIDTH, HEIGHT),
        )

    @routes.get("/runs/{key}/{step}/{name}")
    def show_sample(key: str, step: int, name: str) -> Response:
        folder = Path(run_or_404(key).folder, _SAMPLES, f"step-{step}")
        names = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        path = names.get(name)
        if path is None or path.suffix not in _SUFFIXES or path.is_symlink():
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type="image/png", headers={"cache-control": "private, max-age=3600"})

    return routes


def _charts(row: RunRow) -> list[LineChart]:
    """One chart of losses per part of the run's stage, also while it runs."""
    losses = loss_series(_json_lines(Path(row.folder, METRICS_FILE)))
    return [line_chart(part or "losses", series) for part, series in losses.items()]


def _looks(run: Path) -> list[Look]:
    """The newest looks at the validation samples."""
    folders = {
        int(number): path
        for path in run.glob(f"{_SAMPLES}/step-*")
        if (number := path.name.removeprefix("step-")).isdecimal()
    }
    return [
        Look(
            step=step,
            reports=tuple(_json_lines(folders[step] / "reports.jsonl")),
            images=tuple(
                (f"{row['image_id']}.png", row["caption"]) for row in _json_lines(folders[step] / "captions.jsonl")
            ),
        )
        for step in sorted(folders, reverse=True)[:_STEPS_SHOWN]
    ]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file of JSON lines; a run that is writing may have torn the last one."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [cast(dict[str, Any], json.loads(line)) for line in whole.splitlines() if line]
