"""The pages of models and runs: what they show, who decides, and what they never hand out."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.unix.registry.conftest import Workshop, workshop
from tests.unix.web.conftest import ORIGIN, Reader
from unix.registry.models import list_models, promote, register
from unix.web.app import ServeConfig, create_app
from unix.web.playground.checkpoints import checkpoints, folder_key

__all__ = ["workshop"]


@pytest.fixture
def visitor(workshop: Workshop) -> Iterator[Reader]:
    """A client of pages over a store whose runs were registered: `old` is champion, `new` a candidate."""
    old = workshop.run("old", "stage1")
    new = workshop.run("new", "stage2", start=old)
    register(workshop.store, str(old), {"report_micro_f1": 0.5})
    register(workshop.store, str(new), {"report_micro_f1": 0.61234})
    promote(workshop.store, model(workshop, "old").model_id, "the first")
    config = ServeConfig(store=workshop.store.uri, reviewer="Ada", runs=str(workshop.root / "runs"))
    with TestClient(create_app(config), base_url=ORIGIN) as client:
        yield Reader(client)


def model(workshop: Workshop, run: str):
    return next(one for one in list_models(workshop.store).models if one.run == run)


def test_models_are_listed_with_state_and_metrics(visitor: Reader, workshop: Workshop) -> None:
    page = visitor.get("/models")
    assert "champion" in page and "candidate" in page and "0.612" in page
    assert f"/models/{model(workshop, 'new').model_id}" in page


def test_a_model_shows_what_it_came_from(visitor: Reader, workshop: Workshop) -> None:
    page = visitor.get(f"/models/{model(workshop, 'new').model_id}")
    assert page.index(model(workshop, "old").model_id[:8]) < page.index("<strong>stage2</strong>")
    for part in ("understanding-32", "rules", "v2", "c0de"):
        assert part in page


def test_a_candidate_is_promoted_by_name_and_note(visitor: Reader, workshop: Workshop) -> None:
    old, new = model(workshop, "old"), model(workshop, "new")
    answer = visitor.post(f"/models/{new.model_id}/promote", champion=old.model_id, note="reads better")
    assert answer.status_code == 303
    champion = list_models(workshop.store).champion
    assert champion is not None and champion.model_id == new.model_id
    assert champion.reason == "promoted by Ada: reads better"


def test_a_candidate_is_refused(visitor: Reader, workshop: Workshop) -> None:
    visitor.post(f"/models/{model(workshop, 'new').model_id}/refuse", note="")
    assert model(workshop, "new").state == "retired"
    assert model(workshop, "new").reason == "refused by Ada"
    assert model(workshop, "old").state == "champion"


def test_a_page_that_is_behind_promotes_nothing(visitor: Reader, workshop: Workshop) -> None:
    answer = visitor.post(f"/models/{model(workshop, 'new').model_id}/promote", champion="somebody else")
    assert answer.status_code == 400 and "judge it again" in answer.text
    assert model(workshop, "old").state == "champion"


def test_the_champion_comes_first_in_the_playground(visitor: Reader, workshop: Workshop) -> None:
    known = checkpoints(str(workshop.root / "runs"), workshop.store)
    assert known[0].champion and known[0].folder == model(workshop, "old").checkpoint
    assert [one.champion for one in known[1:]] == [False] * 3


def test_a_run_shows_losses_samples_and_nothing_else(visitor: Reader, workshop: Workshop) -> None:
    run = workshop.root / "runs" / "new"
    rows = [{"step": step, "loss": 1 / step, "flow": 0.5 / step, "grad_norm": 1.0} for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = run / "samples" / "step-2"
    samples.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(buffer, "PNG")
    (samples / "a-1.png").write_bytes(buffer.getvalue())
    (samples / "captions.jsonl").write_text(json.dumps({"image_id": "a-1", "caption": "A <b>large</b> heart."}) + "\n")
    (samples / "secret.png").symlink_to(Path("/etc/hostname"))
    address = f"/runs/{folder_key(str(run))}"
    page = visitor.get(address)
    assert "Losses of" in page and "grad_norm" not in page
    assert "A &lt;b&gt;large&lt;/b&gt; heart." in page
    assert visitor.client.get(f"{address}/2/a-1.png").content == buffer.getvalue()
    for path in (f"{address}/2/captions.jsonl", f"{address}/2/secret.png", f"{address}/3/a-1.png", "/runs/0000"):
        assert visitor.client.get(path).status_code == 404
