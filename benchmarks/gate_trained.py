"""What the gate does with candidates that were really trained, by the commands that a retraining runs.

Begins with the folder of a finished `unix demo`, which it only reads. The demo's last checkpoint is retrained for some
steps of stages 1 to 3, with one seed: that is the champion. From the same checkpoint, by the same steps, come the
candidates:

- reseed N: the same data, another seed;
- shuffled labels: in training, every report belongs to another study;
- shuffled captions: reading is trained well, drawing on the captions of other images. The drawings look as ever, and
  show nothing of what was asked for: a pairing that broke quietly.

Champion and candidates are evaluated on one frozen test set, and `unix models decide` holds each against the champion.
Whoever is promoted is rolled back before the next one is judged; a person's promotion is rolled back at the end.
Stage 2 goes on with the generation branch that is there, for so few steps cannot draw a copied one anew.

    unix demo --seed 0 --work demo
    OMP_NUM_THREADS=1 python benchmarks/gate_trained.py --demo demo --work work --json gate_trained.json

Run again with the same `--work` it continues.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.demo import EULER_STEPS, GUIDANCE, SETS
from pipelines.runtime import CommandSummary, run_command
from unix.evaluation.gate import METRICS
from unix.records import Status
from unix.store import Store

STAGES = ("stage1", "stage2", "stage3")
CHAMPION, LABELS, CAPTIONS = "champion", "shuffled labels", "shuffled captions"
VERDICTS = {"awaiting approval": "open"}


class Trial:
    """The folder of one comparison: a store, the demo's checkpoint, runs, evaluations."""

    def __init__(self, demo: Path, work: Path, steps: dict[str, int], limit: int | None, log: Callable[[str], object]):
        self.work, self.steps, self.log = work, steps, log
        self.store, self.shards, self.shuffled = work / "store", work / "store" / "shards", work / "shuffled"
        self.start = work / "demo"
        if self.start.exists():
            return
        work.mkdir(parents=True, exist_ok=True)
        shutil.copytree(demo / "store", self.store)
        self._shuffle()
        self.unix("models freeze", "default", store=str(self.store), limit=limit)
        shutil.copytree(demo / "runs" / "stage3", self.start)

    def unix(self, command: str, *arguments: str, **options: Any) -> CommandSummary:
        """Run a command of `unix`."""
        return run_command(command, *arguments, log=self.log, **options)

    def models(self, command: str, *arguments: str, **options: Any) -> dict[str, Any]:
        """What a command about the store's models says."""
        return self.unix(f"models {command}", *arguments, store=str(self.store), **options).values

    def _shuffle(self) -> None:
        """Write the same shard sets from a store whose studies have each other's accepted reports."""
        copied = self.work / "shuffled-store"
        shutil.copytree(self.store, copied, ignore=shutil.ignore_patterns("shards"))
        store = Store(copied)
        reports = store.read("cleaned_reports").filter(pl.col("status") == Status.ACCEPTED)
        order = np.random.default_rng(0).permutation(reports.height)
        texts = reports.select("findings", "impression")[order]
        store.upsert("cleaned_reports", reports.with_columns(texts.get_columns()))
        self.unix("shards", store=str(copied), sets=SETS, out=str(self.shuffled))

    def train(self, name: str, seed: int) -> str:
        """Retrain the demo's checkpoint and evaluate it on the frozen set; the run's folder of the last stage."""
        checkpoint, runs = self.start, self.work / "runs" / name.replace(" ", "-")
        for stage in STAGES:
            learns_wrongly = name == LABELS or (name == CAPTIONS and stage != "stage1")
            settings = [
                *(f"shards={self.shuffled if learns_wrongly else self.shards}", f"run_dir={runs / stage}"),
                *(f"seed={seed}", f"steps={self.steps[stage]}", "processes=1"),
                f"optimizer.warmup_steps={self.steps[stage] // 5}",
                *([] if stage == "stage2" else [f"optimizer.decay_steps={self.steps[stage] // 2}"]),
                *(["generation.copy_understanding=false"] if stage == "stage2" else []),
            ]
            self.unix("train", stage, preset="tiny", set=settings, from_=str(checkpoint), resume=True)
            checkpoint = runs / stage
        self.evaluate(name, checkpoint)
        return str(checkpoint)

    def evaluate(self, name: str, checkpoint: Path) -> None:
        """Measure a checkpoint by both tasks, on the frozen set."""
        common: dict[str, Any] = {"checkpoint": str(checkpoint), "store": str(self.store), "shards": str(self.shards)}
        common |= {"test_set": "default", "processes": 1}
        for task, options in (
            ("understanding", {}),
            ("generation", {"num_steps": EULER_STEPS, "guidance": GUIDANCE}),
        ):
            self.unix(f"evaluate {task}", out=f"{self.evaluation(name)}/{task}", **common, **options)

    def evaluation(self, name: str) -> str:
        """Folder of a model's evaluations."""
        return str(self.work / "evaluation" / name.replace(" ", "-"))

    def promote(self, checkpoint: str) -> str:
        """Make a checkpoint the champion by hand; its model id."""
        model = str(self.models("register", checkpoint)["model_id"])
        self.models("promote", model)
        return model

    def decide(self, name: str, checkpoint: str, champion: str) -> dict[str, Any]:
        """The gate's decision about a candidate, made once; afterwards the champion is champion again."""
        kept = self.work / "decisions" / f"{name.replace(' ', '-')}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        decision = self.models(
            "decide",
            checkpoint,
            evaluation=self.evaluation(name),
            champion=champion,
            champion_evaluation=self.evaluation(CHAMPION),
        )
        if decision["outcome"] == "promoted":
            decision["restored"] = self.models("rollback")["champion"] == champion
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(decision))
        return decision


def show(name: str, decision: dict[str, Any]) -> None:
    """Print one row: the verdict, and of each metric value and standing."""
    outcome = VERDICTS.get(decision["outcome"], decision["outcome"])
    compared = (decision["comparisons"][metric] for metric in METRICS)
    cells = (f"{each['candidate']:>8.3f} {each['standing']:<4}" for each in compared)
    print(f"{name:<18} {outcome:<8} " + "  ".join(cells), flush=True)
    print(f"{'':<18} {decision['reason']}", flush=True)


def main() -> int:
    """Train, evaluate and judge every candidate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--demo", type=Path, required=True, help="work folder of a finished `unix demo`")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reseeds", type=int, default=10)
    parser.add_argument("--steps", type=int, nargs=3, default=[50, 60, 150], help="of stages 1, 2 and 3")
    parser.add_argument("--limit", type=int, default=300, help="samples of each task in the test set")
    parser.add_argument("--at-a-time", type=int, default=2, help="candidates that train side by side, one core each")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    started = time.monotonic()
    demo, work = asked.demo.resolve(), asked.work.resolve()
    with Path(f"{work}.log").open("a") as log:
        trial = Trial(
            demo, work, dict(zip(STAGES, asked.steps, strict=True)), asked.limit, lambda t: print(t, file=log)
        )
        reseeds = [(f"reseed {number}", number) for number in range(1, asked.reseeds + 1)]
        candidates = [*reseeds[:1], (LABELS, 1), (CAPTIONS, 1), *reseeds[1:]]
        decisions: dict[str, dict[str, Any]] = {}
        print(f"{'candidate':<18} {'verdict':<8} " + "  ".join(f"{name:<13}" for name in METRICS))
        with ThreadPoolExecutor(asked.at_a_time) as pool:
            first, *others = (pool.submit(trial.train, *each) for each in ((CHAMPION, 0), *candidates))
            former = trial.promote(str(trial.start))
            champion = trial.promote(first.result())
            for (name, _), trained in zip(candidates, others, strict=True):
                decisions[name] = trial.decide(name, trained.result(), champion)
                show(name, decisions[name])
                if asked.json:
                    write(asked, decisions, None, time.monotonic() - started)
        restored = trial.models("rollback")["champion"]
        print(f"rollback of the champion restores the one before: {restored == former}")
    if asked.json:
        write(asked, decisions, restored == former, time.monotonic() - started)
    return 0


def write(asked: argparse.Namespace, decisions: dict[str, Any], restored: bool | None, seconds: float) -> None:
    """Write what is known so far."""
    result = {
        "steps": asked.steps,
        "samples": asked.limit,
        "reseeds": asked.reseeds,
        "seconds": round(seconds),
        "decisions": decisions,
        "rollback_restores_the_former_champion": restored,
        "versions": {name: version(name) for name in ("torch", "numpy", "polars")},
    }
    asked.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
