"""What the training loop adds to the bare step of `model_step.py`, and what cached latents save.

The middle configuration (decoder 512 wide, 8 layers; tower 384 wide, 6 layers; float32, 8 samples a step) on a small
phantom written here. Two sides take turns in one process, on the same model and the same batches:

    bare   forward, backward and AdamW on a batch that is packed already, as in `model_step.py`
    loop   the trainer's loop: reads and decodes shards, packs, draws noise, sums, clips, steps, watches, writes metrics

Compared are CPU seconds of the whole process, reading threads included, which hold on a busy machine. Data wait is the
share of the loop's wall time in which it waited for samples or packed them. For cached latents a further side runs the
stage 2 loop with an autoencoder of kl-f16's shape encoding in every step.

    python benchmarks/train_step.py --json step.json
    python benchmarks/train_step.py --stages stage2 --rounds 3 --no-encoding
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from model_step import CONFIG

from unix.data.cleaning.run import CleanConfig, clean
from unix.data.ingest import IngestConfig, ingest
from unix.data.pack import UnderstandingPacking
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.data.stream import ShardReader, stream
from unix.data.tokenizer import Tokenizer
from unix.model.dual_branch import DualBranch
from unix.model.latent import KLF16, KLF16Config
from unix.model.weights.native import load_codec, save_model
from unix.records import Split
from unix.runs import META_FILE, Meta
from unix.training.assembly import StageParts, open_data
from unix.training.engine import Engine, Place
from unix.training.host_memory import keep_freed_memory
from unix.training.incidents import Incidents
from unix.training.latents import LatentsConfig, precompute_latents
from unix.training.loop import Objective, Position, StopSignal, count_targets, run_steps
from unix.training.metrics import MetricsFile, read_metrics
from unix.training.optim import Optimizer
from unix.training.run import PREPROCESSING_FILE
from unix.training.stages import TrainConfig, load_stage

STUDIES, SAMPLES = 40, 8
SETS = ("understanding-384", "generation-256")
BAR = {"loop": 1.05, "data_wait": 0.02}


def configuration(stage: str, work: Path, **changes: Any) -> TrainConfig:
    """The paper's stage with the middle model, one process, 8 samples a step."""
    places = [f"shards={work}/store/shards", f"run_dir={work}/{stage}", f"from_checkpoint={work}/start"]
    sizes = [f"global_batch={SAMPLES}", f"micro_batch={SAMPLES}", "engine.sharding=none", "engine.precision=float32"]
    more = ["generation.alignment=null", f"generation.autoencoder={work}/start"] if stage == "stage2" else []
    config = load_stage(stage, preset="paper", overrides=[*places, *sizes, *more])
    return TrainConfig.build(config.model_dump(mode="json") | {"model": CONFIG.model_dump(mode="json")} | changes)


def make(work: Path, latents: bool, channels: int) -> None:
    """Shards, a starting checkpoint with random weights, and its latents."""
    store = str(work / "store")
    write_phantom(PhantomConfig(studies=STUDIES, out=str(work / "phantom"), image_size=384))
    ingest(IngestConfig(store=store, source="phantom", root=str(work / "phantom")))
    clean(CleanConfig(store=store))
    build_splits(SplitsConfig(store=store))
    build_shards(ShardsConfig(store=store, sets=SETS, workers=1))
    start = work / "start"
    model = DualBranch.build(CONFIG, 0)
    torch.nn.init.normal_(model.latent_out.weight, 0, 0.02)  # its zeros would keep every gradient at zero
    save_model(start, model, KLF16(KLF16Config(base_channels=channels)))
    reader = ShardReader(work / "store" / "shards" / SETS[0], Split.TRAIN)
    Tokenizer.train([reader.read(index).findings for index in range(reader.samples)], 1024).save(start)
    packing = UnderstandingPacking(prompts=("Describe this chest X-ray.",))
    (start / PREPROCESSING_FILE).write_text(packing.model_dump_json(), encoding="utf-8")
    nothing = dict.fromkeys(("configuration_digest", "shards_digest"), "")
    meta = Meta(stage="random", step=0, steps=1, seed=0, loader=None, architecture_digest=CONFIG.digest(), **nothing)
    (start / META_FILE).write_text(meta.model_dump_json(), encoding="utf-8")
    if latents:
        precompute_latents(LatentsConfig(shards=f"{store}/shards", sets=(SETS[1],), vae=str(start), batch=4))


class Side:
    """One stage, ready to take loop steps and bare steps on the same model."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.engine = config, Engine(Place())
        start = Path(config.from_checkpoint or "")
        model = self.engine.load(start, config.model)
        packing = UnderstandingPacking.load(start / PREPROCESSING_FILE)
        parts = StageParts(config, model, load_codec(start), Tokenizer.load(start), packing)
        self.data = open_data(config, Split.TRAIN)
        self.objective: Objective = parts.training(self.data, start, self.engine)[0]
        self.optimizer = Optimizer(self.objective.parameters(), config.optimizer, config.steps)
        self.position = Position(0, None)
        self.samples = stream(self.data.source, config.seed, SAMPLES, workers=config.loader.workers)
        self.run_dir = Path(config.run_dir)
        self.metrics = MetricsFile(self.run_dir, 0)
        trained = list(self.objective.parameters().values())
        self.bare_optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def loop(self) -> None:
        """One step of the trainer's loop."""
        with StopSignal() as stop:
            self.position = run_steps(
                self.objective,
                self.optimizer,
                self.engine,
                self.samples,
                self.position,
                steps=self.position.step + 1,
                metrics=self.metrics,
                incidents=Incidents(self.config.incidents, self.run_dir, self.engine, self.config.stage),
                look=lambda step: {},
                save=lambda at: None,
                checkpoint_every=10**9,
                label=self.config.stage,
                stop=stop,
            )

    def packed(self) -> Any:
        """The batch that the loop's next step will see."""
        following = stream(self.data.source, self.config.seed, SAMPLES, self.position.loader)
        return self.objective.pack(next(following)[0], self.position.step)

    def bare(self, packed: Any) -> None:
        """Forward, backward, AdamW."""
        num_targets = count_targets(packed)
        for item in packed:
            self.objective.losses(item.batch, num_targets[item.task]).loss.backward()
        self.bare_optimizer.step()
        self.bare_optimizer.zero_grad(set_to_none=True)


def seconds_of(action: Any, *arguments: Any) -> float:
    """CPU seconds of the whole process."""
    started = time.process_time()
    action(*arguments)
    return time.process_time() - started


def compare(stage: str, work: Path, rounds: int) -> dict[str, Any]:
    """Loop against bare, in turns."""
    side = Side(configuration(stage, work))
    pairs: list[tuple[float, float]] = []
    for _ in range(rounds + 1):  # the first warms up
        packed = side.packed()
        bare = seconds_of(side.bare, packed)
        pairs.append((bare, seconds_of(side.loop)))
    rows = read_metrics(side.run_dir)[1:]
    return {
        "bare_cpu_seconds": statistics.median(bare for bare, _ in pairs[1:]),
        "loop_cpu_seconds": statistics.median(loop for _, loop in pairs[1:]),
        "ratio": statistics.median(loop / bare for bare, loop in pairs[1:]),
        "every_round": pairs[1:],
        "data_wait": statistics.median(row["data_wait_seconds"] / row["seconds"] for row in rows),
        "model_flops_utilisation": statistics.median(row["model_flops_utilisation"] for row in rows),
    }


def compare_latents(work: Path, rounds: int) -> dict[str, Any]:
    """The stage 2 loop with latents from shards against the same with latents encoded in each step."""
    base = configuration("stage2", work).model_dump(mode="json")["generation"]
    sides = {
        name: Side(configuration("stage2", work, run_dir=f"{work}/{name}", generation=base | {"latents": name}))
        for name in ("shards", "loop")
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            found[name].append(seconds_of(side.loop))
    medians = {name: statistics.median(values[1:]) for name, values in found.items()}
    return {**medians, "ratio": medians["loop"] / medians["shards"], "every_round": found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=("stage1", "stage2"), default=["stage2", "stage1"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, default=128, help="of the autoencoder's first level; kl-f16 has 128")
    parser.add_argument("--no-encoding", action="store_true", help="leave the comparison of latents out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    result: dict[str, Any] = {
        "benchmark": "train_step",
        "rounds": options.rounds,
        "threads": options.threads,
        "autoencoder_channels": options.channels,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "bar": BAR,
        "stages": {},
    }
    with tempfile.TemporaryDirectory(prefix="train-step-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        make(work, "stage2" in options.stages, options.channels)
        for stage in options.stages:
            row = result["stages"][stage] = compare(stage, work, options.rounds)
            print(
                f"{stage}: bare {row['bare_cpu_seconds']:.2f} CPU-s, loop {row['loop_cpu_seconds']:.2f}, "
                f"ratio {row['ratio']:.3f} (bar {BAR['loop']}), data wait {row['data_wait']:.2%} (bar "
                f"{BAR['data_wait']:.0%}), {row['model_flops_utilisation']:.0%} of this machine's matrix products",
                flush=True,
            )
        if "stage2" in options.stages and not options.no_encoding:
            row = result["latents"] = compare_latents(work, max(1, options.rounds // 2))
            print(f"latents from shards {row['shards']:.2f} CPU-s, encoded {row['loop']:.2f}: {row['ratio']:.2f} x")
    result["load"] = os.getloadavg()[0]
    print(json.dumps(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
