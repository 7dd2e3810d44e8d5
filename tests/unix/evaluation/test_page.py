import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from unix.evaluation import page
from unix.evaluation.page_inputs import PageInputs


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(invented_page: PageInputs) -> str:
    return page.render(invented_page)


def test_it_shows_every_part(html: str) -> None:
    text = re.sub(r"<[^>]+>", "", html)
    for part in ("Synthetic data", "0.620", "≥ 0.43", "best constant set 0.300", "truncated image", "stage2", "812"):
        assert part in text, part
    elements = Elements(html)
    assert elements.open == []
    assert sum(tag == "img" for tag, _ in elements.seen) == 3 * 6 + 3
    assert re.search(r'class="removed noise-\d" title="notification">Dr\. ___ was told', html)
    assert 'class="added" title="added">again' in html
    assert "✗ ≥ 0.60" in html


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    for tag, attributes in Elements(html).seen:
        assert tag not in {"script", "link", "iframe", "object"}
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert "http" not in html and "@import" not in html and "url(" not in html


def test_an_empty_report_is_named_as_wrong(html: str) -> None:
    assert html.count("nothing was written; counted as wrong") == 1


def test_text_is_escaped_wherever_it_stands(hostile_page: PageInputs) -> None:
    hostile = page.render(hostile_page)
    assert "<script" not in hostile
    assert hostile.count("&lt;script&gt;") >= 10
    assert not [tag for tag, _ in Elements(hostile).seen if tag == "script"]


def test_real_data_has_no_banner(invented_page: PageInputs) -> None:
    assert "Synthetic data" not in page.render(replace(invented_page, synthetic=False))


def test_it_is_deterministic_and_published_whole(invented_page: PageInputs, tmp_path: Path, html: str) -> None:
    path = page.write_page(invented_page, tmp_path / "deep" / "report.html")
    assert path.read_text(encoding="utf-8") == html
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


def test_a_run_without_results_still_renders() -> None:
    empty = PageInputs("t", "s", False, (), (), (), (), (), (), (), (), ())
    assert "No images were drawn." in page.render(empty)
