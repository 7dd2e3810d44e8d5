"""The playground and the models in a browser: upload and read, draw, cancel, compare, promote; accessible."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unix.web.playground.test_pages import picture
from tests.unix.web.test_browser import AXE, CHROMIUM, FLAGS, Site, serious_faults, visiting
from unix.registry.models import list_models, register
from unix.store import Store
from unix.web.app import ServeConfig

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
]
SOON = 180_000
"""Milliseconds: the model's process imports torch first."""


@pytest.fixture(scope="module")
def browser(phantom_store: Store) -> Iterator[Any]:
    """Asked for after the store: the driver's event loop would stand in the way of the cleaner's."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(browser: Any, phantom_store: Store, runs: Path, tmp_path: Path) -> Iterator[Site]:
    shutil.copytree(phantom_store.uri, tmp_path / "store")
    with visiting(browser, ServeConfig(store=str(tmp_path / "store"), reviewer="Ada", runs=str(runs))) as site:
        yield site


def card(site: Site, state: str = "done") -> Any:
    """The newest card once it says so."""
    found = site.page.locator(".turn").first
    playwright.expect(found.locator(".status")).to_have_text(state, timeout=SOON)
    return found


def test_a_dropped_picture_is_read_word_by_word(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(picture())
    page = site.open("/playground")
    page.locator("#file").set_input_files(tmp_path / "mine.png")
    playwright.expect(page.locator("#preview")).to_be_visible(timeout=SOON)
    page.get_by_role("button", name="Write a report").click()
    read = card(site)
    playwright.expect(read.locator("h3")).to_contain_text("Your picture")
    assert read.locator(".report").first.inner_text().strip()


def test_a_file_that_is_no_picture_is_refused_in_words(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"MZ" + bytes(300))
    page = site.open("/playground")
    page.locator("#file").set_input_files(tmp_path / "mine.jpg")
    playwright.expect(page.locator("#upload-fault")).to_contain_text("no JPEG, PNG or DICOM", timeout=SOON)
    page.get_by_role("button", name="Write a report").click()
    playwright.expect(page.locator("#turn-fault")).to_contain_text("Pick a case", timeout=SOON)


def test_findings_are_drawn_and_read_back(site: Site) -> None:
    page = site.open("/playground")
    page.get_by_label("Findings").fill("Large right pleural effusion.")
    page.get_by_label("Images").fill("2")
    page.get_by_label("Steps").fill("4")
    page.get_by_label("Pixels").fill("32")
    page.get_by_role("button", name="Draw").click()
    drawn = card(site)
    playwright.expect(drawn.locator(".drawn img")).to_have_count(2)
    assert drawn.locator("img").evaluate_all("all => all.every(one => one.naturalWidth === 32)")
    assert all(text.strip() for text in drawn.locator(".report").all_inner_texts())


def test_two_models_read_side_by_side(site: Site) -> None:
    page = site.open("/playground")
    page.locator(".cases label").nth(1).click()
    page.locator("#read-against").select_option(index=2)
    page.get_by_role("button", name="Write a report").click()
    playwright.expect(card(site).locator("section")).to_have_count(3)


def test_a_long_drawing_is_cancelled(site: Site) -> None:
    page = site.open("/playground")
    page.get_by_label("Findings").fill("Clear lungs.")
    page.get_by_label("Images").fill("8")
    page.get_by_label("Steps").fill("250")
    page.get_by_role("button", name="Draw").click()
    playwright.expect(page.locator(".turn progress")).to_be_visible(timeout=SOON)
    page.get_by_role("button", name="Cancel").click()
    card(site, "cancelled")


def test_a_promotion_is_approved(site: Site, runs: Path) -> None:
    candidate = register(site.store, str(runs / "stage3"), {"report_micro_f1": 0.6})
    page = site.open("/models")
    page.get_by_role("link", name=candidate.model_id[:8]).click()
    page.get_by_label("Note").fill("looked at forty reports")
    page.get_by_role("button", name="Promote").click()
    playwright.expect(page.locator("h1 .status")).to_have_text("champion")
    champion = list_models(site.store).champion
    assert champion is not None and champion.reason == "promoted by Ada: looked at forty reports"


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: make build/axe-core/package/axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(site: Site, runs: Path, scheme: str) -> None:
    model = register(site.store, str(runs / "stage3"), {"report_micro_f1": 0.6})
    site.page.emulate_media(color_scheme=scheme)
    page = site.open("/playground")
    page.locator(".cases label").first.click()
    page.get_by_role("button", name="Write a report").click()
    card(site)
    run = site.open("/models").locator("a[href^='/runs/']").first.get_attribute("href")
    assert not serious_faults(site, ("/playground", "/models", f"/models/{model.model_id}", run))
