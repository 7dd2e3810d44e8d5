"""The playground from a browser's side: bring, read, draw, compare, watch, cancel; and what is refused."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from tests.unix.web.conftest import Reader
from unix.store import Store
from unix.web.app import ServeConfig, serve
from unix.web.playground.turns import Turn

FILE = {"content-type": "application/octet-stream"}


def picture(side: int = 96) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side * 2), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bring(player: Reader, data: bytes):
    return player.client.post("/playground/uploads", content=data, headers={**FILE, "x-csrf-token": player.token})


def options(player: Reader) -> dict[str, str]:
    """Keys of the checkpoints that the page offers, by stage."""
    found = re.findall(r'<option value="(\w+)"[^>]*>([^<]+)<', player.get("/playground"))
    return {stage: key for key, name in found for stage in ("stage1", "stage3") if stage in name}


def only_turn(player: Reader) -> Turn:
    (turn,) = player.client.app.state.playground.turns._turns.values()
    return turn


def watched(player: Reader, turn: Turn) -> str:
    """The card of a turn once it no longer changes, as the stream of events brings it."""
    text = ""
    while turn.live or not text:  # a stream has an end, and a browser comes again
        with player.client.stream("GET", f"/playground/turns/{turn.key}/events") as answer:
            text = "".join(answer.iter_text())
        assert answer.headers["content-type"].startswith("text/event-stream")
    return text.rpartition("<article")[2]


def test_a_picture_is_brought_and_read(player: Reader) -> None:
    answer = bring(player, picture())
    assert answer.status_code == 200
    shown = player.client.get(f"/playground/uploads/{answer.json()['upload']}")
    assert Image.open(io.BytesIO(shown.content)).size == (512, 512)
    key = options(player)["stage1"]
    assert player.post("/playground/read", checkpoint=key, upload=answer.json()["upload"]).status_code == 303
    card = watched(player, only_turn(player))
    assert ">done<" in card and "Your picture" in card
    report = only_turn(player).results[0].report
    assert report.strip() and str(escape(report.split()[0])) in card


def test_a_case_is_read_beside_its_own_report_by_two_models(player: Reader) -> None:
    case = re.search(r'name="case" value="([\w-]+)"', player.get("/playground"))[1]
    keys = options(player)
    player.post("/playground/read", checkpoint=keys["stage3"], against=keys["stage1"], case=case)
    card = watched(player, only_turn(player))
    turn = only_turn(player)
    assert [one.checkpoint.stage for one in turn.results] == ["stage3", "stage1"]
    assert turn.results[0].report == turn.results[1].report != "", "the two runs hold the same weights"
    assert str(escape(turn.source.reference.split()[0])) in card


def test_the_same_case_is_read_again(player: Reader) -> None:
    case = re.search(r'name="case" value="([\w-]+)"', player.get("/playground"))[1]
    for _ in range(2):
        player.post("/playground/read", checkpoint=options(player)["stage1"], case=case)
    first, second = player.client.app.state.playground.turns._turns.values()
    assert ">done<" in watched(player, first)
    assert ">done<" in watched(player, second), "its card comes to an end, though both turns now hold the same"
    assert ">done<" in watched(player, second), "and can be watched after it"


def test_findings_are_drawn_and_read_back(player: Reader) -> None:
    form = {"findings": "Large left effusion.", "images": "2", "num_steps": "3", "seed": "7", "resolution": "32"}
    player.post("/playground/draw", checkpoint=options(player)["stage3"], **form)
    card = watched(player, only_turn(player))
    turn = only_turn(player)
    (result,) = turn.results
    assert (result.step, result.steps, len(result.images)) == (6, 6, 2)
    assert all(image.report for image in result.images)
    assert result.images[0].png != result.images[1].png, "each image has its own seed"
    shown = player.client.get(f"/playground/turns/{turn.key}/0/1.png")
    assert shown.content == result.images[1].png
    assert "Pleural Effusion" in card, "what was asked for is marked, read or not"
    assert player.client.get(f"/playground/turns/{turn.key}/0/2.png").status_code == 404


def test_what_waits_is_cancelled_at_once_and_what_runs_soon(player: Reader) -> None:
    key = options(player)["stage3"]
    for _ in range(2):
        player.post("/playground/draw", checkpoint=key, findings="Clear.", images="8", num_steps="250")
    turns = player.client.app.state.playground.turns
    first, second = turns._turns.values()
    player.post(f"/playground/turns/{second.key}/cancel")
    assert second.state == "cancelled"
    player.post(f"/playground/turns/{first.key}/cancel")
    assert ">cancelled<" in watched(player, first) and first.state == "cancelled"
    assert len(first.results[0].images) < 8
    player.post("/playground/draw", checkpoint=key, findings="Clear.", num_steps="2")
    *_, third = turns._turns.values()
    watched(player, third)
    assert third.state == "done", "the next turn finds a model"


def test_sessions_do_not_see_each_other(player: Reader) -> None:
    upload = bring(player, picture()).json()["upload"]
    player.post("/playground/draw", checkpoint=options(player)["stage3"], findings="Clear.", num_steps="1")
    key = only_turn(player).key
    player.client.cookies.clear()
    assert "turn-" + key not in player.get("/playground")
    for path in (f"/playground/uploads/{upload}", f"/playground/turns/{key}", f"/playground/turns/{key}/0/0.png"):
        assert player.client.get(path).status_code == 404


def test_an_upload_needs_the_token_the_kind_and_a_size(player: Reader) -> None:
    post = player.client.post
    token = {"x-csrf-token": player.token}
    assert post("/playground/uploads", content=picture(), headers=FILE).status_code == 403
    assert post("/playground/uploads", data={"csrf_token": player.token}).status_code == 415
    assert post("/decide", content=picture(), headers={**FILE, **token}).status_code == 415
    assert bring(player, bytes((32 << 20) + 1)).status_code == 413


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"findings": "", "num_steps": "3"}, "findings"),
        ({"findings": "x", "num_steps": "100000"}, "num_steps"),
        ({"findings": "x", "resolution": "33"}, "resolution"),
        ({"findings": "x", "images": "many"}, "images"),
    ],
)
def test_impossible_drawings_are_refused(player: Reader, form: dict[str, str], sentence: str) -> None:
    answer = player.post("/playground/draw", checkpoint=options(player)["stage3"], **form)
    assert answer.status_code == 400 and sentence in answer.text


def test_unknown_checkpoints_and_missing_pictures_are_refused(player: Reader) -> None:
    assert player.post("/playground/draw", checkpoint="../../etc", findings="x").status_code == 400
    key = options(player)["stage1"]
    assert player.post("/playground/read", checkpoint=key, upload="gone").status_code == 400
    assert player.post("/playground/read", checkpoint=key).status_code == 400


def test_the_queue_has_an_end(player: Reader) -> None:
    key = options(player)["stage3"]
    form = {"findings": "Clear.", "images": "8", "num_steps": "250"}
    statuses = [player.post("/playground/draw", checkpoint=key, **form).status_code for _ in range(5)]
    assert statuses == [303] * 4 + [400]


def test_the_server_loads_a_model_before_anybody_asks(
    store: Store, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    monkeypatch.setattr(
        "unix.web.playground.model_process.ModelProcess.warm_up", lambda _, folder: loaded.append(folder)
    )
    serve(ServeConfig(store=store.uri, port=0, runs=str(runs / "none")))
    assert not loaded
    serve(ServeConfig(store=store.uri, port=0, runs=str(runs)))
    assert loaded == [str(runs / "stage3")], "the one that draws comes first"


def test_without_a_run_the_page_says_how_to_get_one(reader: Reader) -> None:
    assert "unix serve --runs" in reader.get("/playground")
