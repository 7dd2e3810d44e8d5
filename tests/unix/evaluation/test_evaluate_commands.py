"""`unix evaluate` as it is typed: protocols, labelers and optional models, with weights made here."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from tests.unix.evaluation.released_chexbert import release
from tests.unix.evaluation.test_compare import InThisProcess
from unix.cli import run
from unix.data.labels import label_report
from unix.data.stream import ShardReader
from unix.evaluation import alignment
from unix.evaluation import predict_split as job
from unix.evaluation.chexbert import CheXbert
from unix.evaluation.report_scores import labels_of
from unix.records import Split

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def chexbert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return release(tmp_path_factory.mktemp("chexbert"))[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions are made once: no protocol and no labeler changes them."""
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture
def evaluate(
    checkpoint: Path, shard_sets: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Evaluate:
    """`evaluate(task, *options)` runs the command and returns what `--json` has."""
    monkeypatch.setattr(job, "PredictorPool", InThisProcess)

    def command(task: str, *options: str) -> dict[str, Any]:
        summary = tmp_path / "summary.json"
        words = ["evaluate", task, "--checkpoint", str(checkpoint), "--shards", str(shard_sets)]
        words += ["--out", str(folder / task), "--json", str(summary), *options]
        assert run(words + (["--num-steps", "2"] if task == "generation" else [])) == 0
        return json.loads(summary.read_text())

    return command


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a misuse is answered with."""
    assert run(["evaluate", *words]) == 2
    return capsys.readouterr().err


def test_the_papers_protocol_cuts_labels_and_writes_its_table(evaluate: Evaluate, folder: Path) -> None:
    native = evaluate("understanding")
    parts = {path: path.stat().st_mtime_ns for path in folder.glob("understanding/parts/*")}
    paper = evaluate("understanding", "--protocol", "unix-paper")
    assert (native["protocol"], paper["protocol"]) == ("native", "unix-paper")
    assert (native["labeler"], paper["labeler"]) == ("rules", "rules, first 512 characters")
    assert parts and parts == {path: path.stat().st_mtime_ns for path in parts}, "predictions are made once"
    table = pl.read_csv(folder / "understanding/understanding_results.csv", infer_schema=False).fill_null("")
    rows = pl.read_parquet(native["predictions"])
    assert table["Image Path"].to_list() == rows["image_id"].to_list()
    assert table["Report Impression"].to_list() == rows["prediction"].to_list()
    html = Path(paper["report_html"]).read_text(encoding="utf-8")
    assert "unix-paper: labels are read from the first 512 characters" in html and "first 512 characters”" in html


def test_reports_that_another_program_wrote_score_as_ours(evaluate: Evaluate, folder: Path, tmp_path: Path) -> None:
    ours = evaluate("understanding", "--protocol", "unix-paper")
    table = folder / "understanding/understanding_results.csv"
    assert run(["evaluate", "reports", str(table), "--protocol", "unix-paper", "--json", str(tmp_path / "f")]) == 0
    theirs = json.loads((tmp_path / "f").read_text())
    shared = theirs["metrics"].keys() & ours["metrics"].keys()
    assert {"micro_f1_14", "bleu_3", "rouge_l"} <= shared
    for name in shared:
        assert theirs["metrics"][name]["value"] == ours["metrics"][name]["value"], name
    assert (theirs["n"], theirs["failures"], theirs["labeler"]) == (8, ours["failures"], ours["labeler"])


def test_chexbert_labels_both_sides_and_the_baselines(evaluate: Evaluate, chexbert: tuple[Path, Path]) -> None:
    checkpoint, bert = chexbert
    found = evaluate("understanding", "--labeler", f"chexbert:{checkpoint}:{bert}")
    labeler = CheXbert.load(checkpoint, bert)
    assert found["labeler"] == labeler.name and labeler.name in found["references"]
    rows = pl.read_parquet(found["predictions"])
    assert labels_of(rows, "reference_labels") == labeler.label(rows["reference"].to_list())
    rules = evaluate("understanding")
    assert rules["per_class"] != found["per_class"]
    assert rules["baselines"]["best_constant_micro_f1_14"] != found["baselines"]["best_constant_micro_f1_14"]
    # BERT's two files may stand beside the checkpoint
    for name in ("config.json", "vocab.txt"):
        (checkpoint.parent / name).write_bytes((bert / name).read_bytes())
    drawn = evaluate("generation", "--labeler", f"chexbert:{checkpoint}")
    assert drawn["labeler"] == labeler.name
    assert labeler.name in Path(drawn["report_html"]).read_text(encoding="utf-8")


def test_radgraph_f1_stands_in_summary_and_on_the_page(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lengths:
        """Stands for the package's scorer."""

        def __init__(self, **_: object) -> None: ...

        def __call__(self, refs: list[str], hyps: list[str]) -> Sequence[Any]:
            return 0.0, [min(len(hyp) / len(ref), 1.0) for hyp, ref in zip(hyps, refs, strict=True)], [], []

    (tmp_path / "radgraph").mkdir()
    (tmp_path / "radgraph" / "weights.th").write_bytes(b"")
    package = ModuleType("radgraph")
    monkeypatch.setattr(package, "F1RadGraph", Lengths, raising=False)
    monkeypatch.setitem(sys.modules, "radgraph", package)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = evaluate("understanding", "--radgraph", str(tmp_path))
    rows = pl.read_parquet(found["predictions"])
    metric = found["metrics"]["radgraph_f1_partial_radgraph"]
    assert metric["value"] == pytest.approx(rows["radgraph_f1_partial_radgraph"].mean()) and metric["n"] == 8
    assert "RadGraph F1, level partial, model radgraph" in Path(found["report_html"]).read_text(encoding="utf-8")
    assert "radgraph_f1_partial_radgraph" not in evaluate("understanding")["metrics"]


@pytest.fixture
def benchmark(evaluate: Evaluate, prompted_set: Path, folder: Path) -> tuple[Path, list[str]]:
    """A folder for drawings of twelve prompts, and the options that draw and compare them."""
    out = folder / "prompted"
    return out, ["--shards", str(prompted_set), "--out", str(out), "--encoder", "random"]


def test_the_benchmarks_protocol_writes_its_tables(evaluate: Evaluate, benchmark: tuple[Path, list[str]]) -> None:
    out, options = benchmark
    native = evaluate("generation", *options)
    found = evaluate("generation", *options, "--protocol", "chexgenbench")
    assert native["benchmark"] is None and found["protocol"] == "chexgenbench"
    # of twenty real images twelve are of a prompt of their own; every drawing stays
    assert (found["benchmark"]["n_real"], found["benchmark"]["n_drawn"], found["n"]) == (12, 20, 20)
    assert found["benchmark"]["frechet_distance"] == found["metrics"]["frechet_distance"]["value"]
    assert found["metrics"]["frechet_distance"]["value"] != native["metrics"]["frechet_distance"]["value"]
    # what is uncertain is of no class there
    assert "Edema" in native["images_per_class"] and "Edema" not in found["images_per_class"]
    (row,) = pl.read_csv(out / "image_generation_metrics.csv").to_dicts()
    assert row["FID (RadDino)"] == found["benchmark"]["frechet_distance"]
    assert (row["FID"], row["Extra Info"]) == (None, found["checkpoint"])
    (effusion,) = pl.read_csv(out / "conditional_image_generation_metrics.csv").to_dicts()
    assert (effusion["Pathology"], effusion["N real"], effusion["N synthetic"]) == ("Pleural Effusion", 8, 15)
    html = Path(found["report_html"]).read_text(encoding="utf-8")
    assert "chexgenbench: images are squashed to 299 x 299" in html and "The row of the benchmark" in html


def test_averages_over_shards_are_another_row(evaluate: Evaluate, benchmark: tuple[Path, list[str]]) -> None:
    options = [*benchmark[1], "--protocol", "chexgenbench"]
    whole, halves = (evaluate("generation", *options, "--average-shards", count) for count in ("1", "2"))
    assert (whole["benchmark"]["shards"], halves["benchmark"]["shards"]) == (1, 2)
    assert halves["benchmark"]["frechet_distance"] > whole["benchmark"]["frechet_distance"]
    assert halves["metrics"] == whole["metrics"]
    assert "Means over 2 shards" in Path(halves["report_html"]).read_text(encoding="utf-8")


def test_drawings_of_another_program_score_as_ours(
    evaluate: Evaluate, benchmark: tuple[Path, list[str]], prompted_set: Path, tmp_path: Path
) -> None:
    out, options = benchmark
    ours = evaluate("generation", *options, "--protocol", "chexgenbench")
    reader = ShardReader(prompted_set, Split.TEST)
    annotations: list[dict[str, str]] = []
    for key, members in map(reader.read_members, range(reader.samples)):
        (tmp_path / f"{key}.jpg").write_bytes(members["jpg"])
        record = json.loads(members["json"])
        labels = {
            name: None if value is None else float(value) for name, value in label_report(record["caption"]).items()
        }
        annotations.append(
            {
                "id": key,
                "path": f"{key}.jpg",
                "annotated_prompt": record["caption"],
                "patientID": record["subject_id"],
                "chexpert_labels": str(labels),
            }
        )
    pl.DataFrame(annotations).write_csv(tmp_path / "real.csv")
    words = ["drawings", str(out / "prompt_INFO.csv"), "--images", str(out / "generated")]
    words += ["--real", str(tmp_path / "real.csv"), "--real-images", str(tmp_path), "--encoder", "random"]
    words += ["--out", str(tmp_path / "scores"), "--protocol", "chexgenbench", "--json", str(tmp_path / "s.json")]
    assert run(["evaluate", *words]) == 0
    theirs = json.loads((tmp_path / "s.json").read_text())
    assert theirs["benchmark"] == ours["benchmark"] and (theirs["n"], theirs["n_real"]) == (20, 12)
    tables = [pl.read_csv(one / "conditional_image_generation_metrics.csv") for one in (out, tmp_path / "scores")]
    assert tables[0].drop("Extra Info").equals(tables[1].drop("Extra Info"))
    # an image that is missing stops it: none is scored as a blank
    (tmp_path / f"{reader.keys[3]}.jpg").unlink()
    assert run(["evaluate", *words]) == 1


def test_alignment_is_measured_on_the_drawings(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sizes:
        """Stands for BioViL-T."""

        @classmethod
        def load(cls, folder: Path) -> "Sizes":
            assert folder == Path("weights")
            return cls()

        def similarity(self, image: Path, text: str) -> float:
            return len(text) / 100 if image.is_file() else float("nan")

    monkeypatch.setattr(alignment, "BioViLT", Sizes)
    found = evaluate("generation", "--alignment", "biovil-t:weights")
    rows = pl.read_parquet(found["predictions"])
    metric = found["metrics"]["alignment_biovil_t"]
    assert metric["value"] == pytest.approx(rows["prompt"].str.len_chars().mean() / 100) and metric["n"] == 8
    assert "by an outside model" in Path(found["report_html"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["understanding", "--protocol", "chexgenbench"], "choose native or unix-paper"),
        (["generation", "--protocol", "unix-paper"], "choose native or chexgenbench"),
        (["understanding", "--labeler", "chexpert"], "choose rules or chexbert:PATH[:BERT_FOLDER]"),
        (["generation", "--labeler", "chexbert"], "choose rules or chexbert:PATH[:BERT_FOLDER]"),
        (["understanding", "--radgraph", "nowhere"], "weights.th is missing"),
        (["generation", "--alignment", "biovil-t:nowhere"], "BiomedVLP-BioViL-T"),
        (["generation", "--average-shards", "4"], "the protocol native averages no shards"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_predicted(
    words: list[str], said: str, checkpoint: Path, shard_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--checkpoint", str(checkpoint), "--shards", str(shard_sets), "--out", str(tmp_path / "out")]
    assert said in refused(capsys, *words, *places)
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "radgraph", None)
    monkeypatch.setitem(sys.modules, "health_multimodal", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "radgraph").mkdir()
    for name in ("radgraph/weights.th", "biovil_t_image_model_proj_size_128.pt", "config.json", "vocab.txt"):
        (tmp_path / name).write_bytes(b"")
    line = refused(capsys, "understanding", "--checkpoint", "x", "--radgraph", str(tmp_path))
    assert "needs the package radgraph" in line and "install radgraph==0.1.18" in line
    line = refused(capsys, "generation", "--checkpoint", "x", "--alignment", f"biovil-t:{tmp_path}")
    assert "needs the package hi-ml-multimodal" in line and len(line.splitlines()) == 1
