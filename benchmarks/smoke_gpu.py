"""Five steps of each stage at full size on whatever GPUs are there: memory, step time, a checkpoint saved.

Everything is made here: a small phantom and its shard sets, random weights of the preset's shape, a random autoencoder
and a random alignment encoder of RAD-DINO's shape; nothing is downloaded, and losses mean nothing. Each GPU gets the
samples that it would get of the global batch on eight. Where `unix plan` says that a stage does not fit, it runs in
micro-batches of one with weights and moments in host memory, and the table says so.

Without a GPU it says so, and runs the same at tiny size on the CPU, so that the script itself is known to work.

    python benchmarks/smoke_gpu.py --json smoke.json
    python benchmarks/smoke_gpu.py --work /scratch/smoke --stages stage2 --steps 20
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Dinov2Config, Dinov2Model

from unix.config import Config
from unix.data.cleaning.run import CleanConfig, clean
from unix.data.ingest import IngestConfig, ingest
from unix.data.pack import UnderstandingPacking
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.data.stream import ShardReader
from unix.data.tokenizer import Tokenizer
from unix.data.user_prompts import load_user_prompts
from unix.model.dual_branch import DualBranch
from unix.model.latent import KLF16, KLF16Config
from unix.model.weights.native import save_model
from unix.records import Split
from unix.runs import META_FILE, METRICS_FILE, Meta
from unix.training.latents import LatentsConfig, precompute_latents
from unix.training.plan import PlanConfig, plan
from unix.training.run import PREPROCESSING_FILE, train
from unix.training.stages import TrainConfig, load_stage

STAGES = ("stage1", "stage2", "stage3")
GPUS_OF_THE_PRESET = 8
GIB = 2**30
VOCABULARY = 1024
"""Of the tokenizer; the model's embedding keeps its full size."""


class Size(Config):
    """What differs between the full size and the dry run."""

    preset: str
    samples_per_gpu: int
    image_size: int
    codec: KLF16Config
    encoder: dict[str, int]
    """Dinov2Config's fields."""


FULL = Size(
    preset="paper",
    samples_per_gpu=256 // GPUS_OF_THE_PRESET,
    image_size=512,
    codec=KLF16Config(),
    encoder={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 14,
        "image_size": 518,
    },
)
TINY = Size(
    preset="tiny",
    samples_per_gpu=8,
    image_size=96,
    codec=KLF16Config(base_channels=8, num_blocks=1, norm_groups=4),
    encoder={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 56},
)


def configuration(stage: str, size: Size, work: Path, *settings: str) -> TrainConfig:
    """The preset's stage on what was made in `work`."""
    tokens = [f"model.tokens.{name}={number}" for number, name in enumerate(("bos", "eos", "boi", "eoi"))]
    places = [f"shards={work}/store/shards", f"run_dir={work}/runs/{stage}", f"from_checkpoint={work}/start"]
    generation = ["generation.latents=shards"]
    if stage == "stage2":
        generation += [f"generation.autoencoder={work}/start", f"generation.alignment.encoder={work}/encoder"]
    overrides = [*tokens, *places, *(generation if stage != "stage1" else ()), *settings]
    return load_stage(stage, preset=size.preset, overrides=overrides)


def make(size: Size, work: Path, stages: list[str], gpus: int) -> None:
    """Data and weights."""
    store = str(work / "store")
    studies = max(48, 2 * size.samples_per_gpu * gpus)
    write_phantom(PhantomConfig(studies=studies, out=str(work / "phantom"), image_size=size.image_size))
    ingest(IngestConfig(store=store, source="phantom", root=str(work / "phantom")))
    clean(CleanConfig(store=store))
    build_splits(SplitsConfig(store=store))
    sets = dict.fromkeys(configuration(stage, size, work).data_set for stage in stages)
    build_shards(ShardsConfig(store=store, sets=tuple(sets), workers=1))
    config = configuration("stage1", size, work)
    start = work / "start"
    save_model(start, DualBranch.build(config.model, seed=0), KLF16(size.codec))
    reader = ShardReader(work / "store" / "shards" / next(iter(sets)), Split.TRAIN)
    texts = [reader.read(index).findings for index in range(reader.samples)]
    Tokenizer.train(texts, VOCABULARY).save(start)
    wordings = load_user_prompts()
    packing = UnderstandingPacking(prompts=wordings.findings_and_impression, findings_prompts=wordings.findings)
    (start / PREPROCESSING_FILE).write_text(packing.model_dump_json(), encoding="utf-8")
    meta = Meta(
        stage="random",
        step=0,
        steps=1,
        seed=0,
        loader=None,
        configuration_digest="",
        architecture_digest=config.model.digest(),
        shards_digest="",
        notes=("random weights",),
    )
    (start / META_FILE).write_text(meta.model_dump_json(), encoding="utf-8")
    encoder = Dinov2Model(Dinov2Config(**size.encoder))  # pyright: ignore[reportArgumentType]: numbers alone
    encoder.save_pretrained(work / "encoder", safe_serialization=True)
    side = size.encoder["image_size"]
    preprocessing = {"crop_size": {"height": side, "width": side}, "image_mean": [0.5307], "image_std": [0.2583]}
    (work / "encoder" / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    if drawn := tuple(name for name in sets if name.startswith("generation-")):
        precompute_latents(LatentsConfig(shards=f"{store}/shards", sets=drawn, vae=str(start), batch=8))


def run_stage(configuration_file: Path, out: Path) -> None:
    """Body of one rank: train, and write down when each step ended and how much memory was used."""
    ended: list[float] = []

    def note(*_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ended.append(time.perf_counter())

    register_optimizer_step_post_hook(note)
    train(TrainConfig.model_validate_json(configuration_file.read_bytes()))
    gaps = [late - early for early, late in pairwise(ended)]
    found: dict[str, Any] = {"step_seconds": statistics.median(gaps)}
    if torch.cuda.is_available():
        found["peak_gb"] = torch.cuda.max_memory_allocated() / GIB
        found["reserved_gb"] = torch.cuda.max_memory_reserved() / GIB
    rank = os.environ.get("RANK", "0")
    out.with_name(f"{out.name}.{rank}").write_text(json.dumps(found), encoding="utf-8")


def measure(stage: str, size: Size, work: Path, gpus: int, steps: int) -> dict[str, Any]:
    """One stage in processes of its own, a rank on each GPU."""
    batch = size.samples_per_gpu * max(1, gpus)
    changes = [f"steps={steps}", f"global_batch={batch}", f"checkpoint_every={steps}", "processes=1"]
    config = configuration(stage, size, work, *changes, f"micro_batch={min(batch, _micro_batch(stage, size, work))}")
    row: dict[str, Any] = {"stage": stage, "gpus": gpus, "global_batch": batch, "micro_batch": config.micro_batch}
    if gpus:
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        planned = plan(PlanConfig(train=config, gpus=gpus, gpu_memory_gb=memory))
        row |= {"planned_gb": planned.peak_gb, "gpu_memory_gb": memory, "tflop": planned.tflop_per_step / gpus}
        if not planned.fits:
            config = configuration(stage, size, work, *changes, "micro_batch=1", "engine.cpu_offload=true")
            row |= {"micro_batch": 1, "cpu_offload": True}
    file, out = work / f"{stage}.json", work / f"{stage}.measured"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    launch = [sys.executable, __file__]
    if gpus > 1:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", __file__]
    done = subprocess.run(
        [*launch, "--work", str(work), "--stage-file", str(file), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if re.search(r"(?:Error|error): ", line)] or ["no message"]
        return row | {"failed": "out of memory" if "OutOfMemoryError" in done.stderr else errors[0]}
    ranks = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob(f"{out.name}.*"))]
    row |= {name: max(rank[name] for rank in ranks) for name in ranks[0]}
    losses = [json.loads(line)["loss"] for line in (work / "runs" / stage / METRICS_FILE).read_text().splitlines()]
    row |= {"steps": len(losses), "finite": all(loss is not None for loss in losses)}
    row["checkpoint_gb"] = sum(p.stat().st_size for p in (work / "runs" / stage).rglob("*") if p.is_file()) / GIB
    shutil.rmtree(work / "runs" / stage)
    return row


def _micro_batch(stage: str, size: Size, work: Path) -> int:
    return 4 if size is TINY else configuration(stage, size, work).micro_batch


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    names = ("stage", "gpus", "global_batch", "micro_batch", "step_seconds", "peak_gb", "planned_gb", "checkpoint_gb")
    print("  ".join(f"{name:>13}" for name in names))
    for row in rows:
        values = [row.get(name, "-") for name in names]
        cells = [f"{value:.3g}" if isinstance(value, float) else value for value in values]
        end = f"FAILED: {row['failed']}" if "failed" in row else "offloaded" if row.get("cpu_offload") else ""
        print("  ".join([*(f"{cell:>13}" for cell in cells), end]).rstrip())


def main() -> int:
    """Measure and print; 1 where a stage failed or a loss was not finite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, help="Folder for data and weights; 60 GB at full size. Default: temporary."
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage_file is not None:
        run_stage(options.stage_file, options.out)
        return 0
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    size = FULL if gpus else TINY
    if gpus:
        print(f"{gpus} x {torch.cuda.get_device_name(0)}, preset {size.preset}")
    else:
        print("No GPU here, so nothing of full size is measured. A dry run at tiny size on the CPU:")
    with tempfile.TemporaryDirectory(prefix="smoke-", ignore_cleanup_errors=True) as temporary:
        work = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        make(size, work, sorted({"stage1", *options.stages}), gpus)
        rows = [measure(stage, size, work, gpus, options.steps) for stage in options.stages]
    show(rows)
    result = {
        "dry_run": not gpus,
        "device": torch.cuda.get_device_name(0) if gpus else platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "rows": rows,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return int(any("failed" in row or not row["finite"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
