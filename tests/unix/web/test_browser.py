"""The pages in a browser: a headless Chromium works through a phantom store of 300 studies."""

import shutil
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import uvicorn

from tests.unix.web.conftest import SLOPPY, build_store
from unix.store import Store
from unix.web.app import ServeConfig, create_app

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(__file__).parents[3] / "build" / "axe-core" / "package" / "axe.min.js"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
]


class Site:
    """A server over a store of its own, and a page of the browser that looks at it."""

    def __init__(self, store: Store, page: Any, address: str, library: Any) -> None:
        self.store, self.page, self.address, self.library = store, page, address, library

    def open(self, path: str) -> Any:
        self.page.goto(self.address + path)
        return self.page

    def studies(self, **condition: Any) -> list[str]:
        return self.library.view(model=SLOPPY).rows.filter(**condition)["study_id"].to_list()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_store(tmp_path_factory.mktemp("browser"), 300)


@pytest.fixture(scope="module")
def browser(filled: Store) -> Iterator[Any]:
    """Asked for after the store: the driver's event loop would stand in the way of the cleaner's."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Any, config: ServeConfig) -> Generator[Site]:
    """A browser's page on a server of its own; at the end, no script of the pages may have complained."""
    app = create_app(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None
        )
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield Site(Store(config.store), page, address, app.state.library)
        context.close()
        server.should_exit = True
        thread.join()
    assert not complaints


def serious_faults(site: Site, paths: Iterable[str]) -> list[str]:
    """What axe-core calls serious or critical on some pages."""
    found: list[str] = []
    for path in paths:
        page = site.open(path)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        page.wait_for_load_state("networkidle")
        # evaluated by the driver, so that the pages' own policy stays as it is
        page.evaluate(AXE.read_text("utf-8"))
        for fault in page.evaluate("axe.run().then(result => result.violations)"):
            if fault["impact"] in ("serious", "critical"):
                found += [f"{path} {fault['id']}: {node['html'][:160]}" for node in fault["nodes"][:3]]
    return found


@pytest.fixture
def site(browser: Any, filled: Store, tmp_path: Path) -> Iterator[Site]:
    shutil.copytree(filled.uri, tmp_path / "store")
    with visiting(browser, ServeConfig(store=str(tmp_path / "store"), reviewer="Ada")) as site:
        yield site


def test_search_filter_and_open(site: Site) -> None:
    page = site.open(f"/studies?model={SLOPPY}")
    total = page.locator("tr[data-row]").count()
    page.keyboard.press("/")
    page.keyboard.type('"pleural effusion"')
    page.wait_for_url("**q=*")
    page.get_by_label("Status").select_option("rejected")
    page.wait_for_url("**status=rejected**")
    page.wait_for_function("document.querySelector('#results').textContent.includes('of 300 studies')")
    wanted = site.library.view(model=SLOPPY).rows.filter(
        pl.any_horizontal(
            pl.col("report_raw", "findings", "impression").str.contains("(?i)pleural effusion").fill_null(False)
        ),
        status="rejected",
    )
    playwright.expect(page.locator("#results .tools strong")).to_have_text(str(wanted.height))
    assert total == 50
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#q")).to_have_value('"pleural effusion"')
    for key in ("j", "j", "k", "o"):
        page.keyboard.press(key)
    page.wait_for_url("**/study?**")
    assert wanted["study_id"][0] in page.title()


def test_the_diff_shows_and_the_radiograph_answers(site: Site) -> None:
    row = site.library.view(model=SLOPPY).rows.filter(
        pl.col("flags").list.contains("laterality_changed"), pl.col("categories").list.len() > 2
    )
    page = site.open(f"/study?study=phantom/{row['study_id'][0]}&model={SLOPPY}")
    removed, added = page.locator(".report del").first, page.locator(".report ins").first
    assert removed.is_visible() and added.is_visible()
    assert added.evaluate("node => getComputedStyle(node).color") == "rgb(168, 51, 42)"
    colours = page.locator(".report del").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) > 2
    viewer = page.locator(".viewer").first
    page.keyboard.press("i")
    playwright.expect(viewer.locator("canvas")).to_be_visible()
    corner = "node => node.getContext('2d').getImageData(0, 0, 1, 1).data[0]"
    assert viewer.locator("canvas").evaluate(corner) > 200
    viewer.get_by_label("Zoom in").click()
    assert "scale(1.4)" in viewer.locator("canvas").evaluate("node => node.style.transform")
    page.get_by_text("Versions side by side").click()
    playwright.expect(page.locator(".versions article")).to_have_count(2)


def test_keys_approve_go_on_and_undo(site: Site) -> None:
    flagged = site.studies(status="flagged")
    page = site.open(f"/study?study=phantom/{flagged[0]}&model={SLOPPY}&status=flagged")
    page.keyboard.press("n")
    page.keyboard.type("as the radiologist wrote")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.wait_for_url(f"**{flagged[1]}**")
    page.keyboard.press("r")
    page.wait_for_url(f"**{flagged[2]}**")
    page.keyboard.press("k")
    page.wait_for_url(f"**{flagged[1]}**")
    page.keyboard.press("u")
    page.wait_for_load_state()
    playwright.expect(page.get_by_role("button", name="Undo approval")).to_be_visible()
    reviews = site.store.read("reviews").select("study_id", "decision", "note", "reviewer").rows()
    assert reviews == [(flagged[0], "approve", "as the radiologist wrote", "Ada")]


def test_an_edit_warns_as_one_types(site: Site) -> None:
    study = site.studies(status="flagged")[0]
    page = site.open(f"/study?study=phantom/{study}&model={SLOPPY}")
    page.keyboard.press("e")
    field = page.get_by_label("Findings", exact=True)
    playwright.expect(field).to_be_focused()
    field.fill(field.input_value() + " There is a giant tumour.")
    playwright.expect(page.locator("#verdict")).to_contain_text("The guards would reject this text")
    page.get_by_role("button", name="Save the edit").click()
    playwright.expect(page.get_by_role("alert")).to_contain_text("would reject")
    assert site.store.read("reviews").is_empty()
    page.get_by_role("button", name="Save it all the same").click()
    playwright.expect(page.get_by_role("heading", name="As edited")).to_be_visible()
    assert "giant tumour" in site.store.read("reviews")["findings"].item()


def test_many_at_once_and_undo(site: Site) -> None:
    count = len(site.studies(status="flagged"))
    page = site.open(f"/studies?model={SLOPPY}&status=flagged")
    page.get_by_role("link", name="Reject all").click()
    page.get_by_role("button", name=f"Reject {count} studies").click()
    page.wait_for_url("**/studies?**")
    assert site.store.read("reviews").height == count
    page.get_by_role("button", name=f"Undo rejection of {count} studies").click()
    playwright.expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    assert site.store.read("reviews").is_empty()


def test_exports_download(site: Site) -> None:
    page = site.open(f"/studies?model={SLOPPY}&status=accepted")
    for name, read in (("CSV", pl.read_csv), ("Parquet", pl.read_parquet)):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert read(download.value.path()).height == len(site.studies(status="accepted"))


def test_a_sample_is_drawn_and_reviewed(site: Site) -> None:
    page = site.open(f"/sample?model={SLOPPY}")
    page.get_by_label("Studies").fill("8")
    page.get_by_label("Equal parts by").select_option("status")
    page.get_by_role("button", name="Draw").click()
    playwright.expect(page.locator("tr[data-row]")).to_have_count(8)
    sample = page.url
    page.get_by_role("link", name="Start reviewing").click()
    page.wait_for_url("**/study?**")
    for _ in range(2):
        with page.expect_navigation():
            page.keyboard.press("r")
    page.goto(sample)
    playwright.expect(page.get_by_text("2 errors in 2 reviewed of 8")).to_be_visible()


def test_light_and_dark(site: Site) -> None:
    page = site.open("/")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(247, 246, 243)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) == "rgb(18, 20, 23)"
    page.get_by_label("Light or dark").click()
    assert page.evaluate(paper) == "rgb(247, 246, 243)"
    page.reload()
    assert page.evaluate(paper) == "rgb(247, 246, 243)"
    page.keyboard.press("?")
    playwright.expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_a_job_reports_when_it_is_done(site: Site) -> None:
    page = site.open(f"/reclean?model={SLOPPY}&flag=laterality_changed")
    page.get_by_role("button", name="Clean again").click()
    playwright.expect(page.locator(".job .status")).to_have_text("done", timeout=60_000)


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: make build/axe-core/package/axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(site: Site, scheme: str) -> None:
    study = f"/study?study=phantom/{site.studies(status='rejected')[0]}&model={SLOPPY}"
    site.page.emulate_media(color_scheme=scheme)
    paths = (
        f"/?model={SLOPPY}",
        f"/studies?model={SLOPPY}",
        "/studies?q=zebra",
        study,
        f"/sample?sample=1:9:status&model={SLOPPY}",
        f"/bulk?decision=approve&model={SLOPPY}",
        f"/reclean?model={SLOPPY}",
        "/rejections",
        "/jobs",
        "/nothing",
    )
    assert not serious_faults(site, paths)
