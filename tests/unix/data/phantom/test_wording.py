"""Other words make another phantom of the same studies; what is wrong with a wording is told in one line."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import Device, Finding, Severity, Side, Zone
from unix.data.phantom.grammar import count_phrasings, expand
from unix.data.phantom.noise import Noise, noise_book
from unix.data.phantom.report import PhantomReport, wording_digest, write_report
from unix.data.phantom.study import plan_study
from unix.errors import ConfigError
from unix.records import CHEXPERT_14

FOLDER = Path(__file__).parents[3] / "fixtures" / "wordings"
HELD_OUT = [str(FOLDER / f"held_out_{number}") for number in (1, 2, 3)]
SINGLE_CLASSES = [name for name in CHEXPERT_14 if name not in ("No Finding", "Support Devices")]


def reports(wording: str | None, count: int = 300) -> Iterator[PhantomReport]:
    for index in range(count):
        yield write_report(plan_study(0, index, 128, (0.05, 0.15)), wording)


def noise_grams(book: Noise, size: int = 4) -> set[tuple[str, ...]]:
    """Runs of `size` words in a few readings of every noise phrase within the two sections."""
    phrases = [
        *(text for texts in book.technique.values() for text in texts),
        *(*book.acquisition, *book.prior_comparison, *book.notification, *book.dictation),
        *(*book.signature, *book.filler, *book.addendum),
    ]
    grams: set[tuple[str, ...]] = set()
    for number, phrase in enumerate(phrases):
        draws = Draws(0, number, "grams")
        for _ in range(30):
            words = re.findall(r"\w+", expand(phrase, {"clock": "clock"}, draws).lower())
            grams.update(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    return grams


@pytest.fixture
def wording(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HELD_OUT[0], tmp_path / "wording"))


def change(path: Path, key: str, value: object) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values[key] = value
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_phantom_follows_from_seed_study_and_wording_and_says_which(tmp_path: Path, wording: Path) -> None:
    written: list[tuple[list[bytes], str]] = []
    for number, folder in enumerate((HELD_OUT[0], str(wording), None)):
        out = tmp_path / str(number)
        write_phantom(PhantomConfig(studies=20, out=str(out), images=False, workers=1, wording=folder))
        texts = [path.read_bytes() for path in sorted(out.rglob("s*.txt"))]
        written.append((texts, json.loads((out / "phantom.json").read_text(encoding="utf-8"))["wording"]))
    assert written[0] == written[1]
    assert written[0][1] == wording_digest(HELD_OUT[0])
    assert all(one != other for one, other in zip(written[0][0], written[2][0], strict=True))
    assert written[2][1] == wording_digest()


@pytest.mark.parametrize(
    ("file", "key", "value", "fault"),
    [
        ("phrases.yaml", "clear", ["[Lungs clear."], "unbalanced brackets"),
        ("phrases.yaml", "clear", ["Lungs clear.]"], "unbalanced brackets"),
        ("phrases.yaml", "clear", ["Lungs {colour}."], "unknown slot {colour}"),
        ("phrases.yaml", "clear", [], "clear: List should have at least 1 item"),
        ("phrases.yaml", "devices", {}, "devices lacks"),
        ("phrases.yaml", "absent", [{"denies": ["Flu"], "text": "No flu."}], "absent denies Flu"),
        ("noise.yaml", "signature", ["{surgeon}"], "unknown slot {surgeon}"),
        ("noise.yaml", "technique", {"single": ["One view."]}, "technique lacks portable, two views"),
        ("noise.yaml", "jokes", ["Ha."], "jokes: there is no such setting"),
    ],
)
def test_a_malformed_wording_is_refused_in_one_line(
    wording: Path, tmp_path: Path, file: str, key: str, value: object, fault: str
) -> None:
    change(wording / file, key, value)
    with pytest.raises(ConfigError, match=re.escape(fault)) as refused:
        write_phantom(PhantomConfig(studies=1, out=str(tmp_path / "out"), images=False, wording=str(wording)))
    assert file in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_wording_without_noise_is_refused(wording: Path, tmp_path: Path) -> None:
    (wording / "noise.yaml").unlink()
    with pytest.raises(ConfigError, match=r"noise\.yaml"):
        write_phantom(PhantomConfig(studies=1, out=str(tmp_path / "out"), images=False, wording=str(wording)))


@pytest.mark.parametrize("wording", HELD_OUT)
def test_a_held_out_wording_has_dozens_of_phrasings(wording: str) -> None:
    for name in SINGLE_CLASSES:
        assert count_phrasings(Finding(name, Side.LEFT, Zone.LOWER, Severity.MODERATE), wording) >= 24, name
    devices = (Finding("Support Devices", Side.LEFT, device=device) for device in Device)
    assert sum(count_phrasings(device, wording) for device in devices) >= 48


@pytest.mark.parametrize("wording", HELD_OUT)
def test_held_out_noise_shares_few_word_runs_with_the_package(wording: str) -> None:
    own, held_out = noise_grams(noise_book()), noise_grams(noise_book(wording))
    assert len(own & held_out) / len(held_out) <= 0.02


@pytest.mark.parametrize("pair", combinations(HELD_OUT, 2))
def test_the_held_out_wordings_share_few_word_runs(pair: tuple[str, str]) -> None:
    one, other = (noise_grams(noise_book(wording)) for wording in pair)
    assert len(one & other) / min(len(one), len(other)) <= 0.02


@pytest.mark.parametrize("wording", HELD_OUT)
def test_held_out_sentences_are_well_formed(wording: str) -> None:
    for report in reports(wording):
        for sentence in (*report.clean.findings, *report.clean.impression):
            bare = re.sub(r"^\d+\. ", "", sentence)
            assert bare[0].isupper() or bare[0].isdigit(), sentence
            assert bare.endswith("."), sentence
            assert not re.search(r"  | [,.]|\.\.|[{}\[\]|]|\b[Aa] [aeio]|\b[Aa]n [^aeiouAEIOU]", bare), sentence


@pytest.mark.parametrize("wording", HELD_OUT)
def test_every_noise_span_of_a_held_out_wording_stands_in_its_report(wording: str) -> None:
    for report in reports(wording):
        unwrapped = " ".join(report.raw.text.split())
        assert all(span.text in unwrapped for span in report.raw.noise)
