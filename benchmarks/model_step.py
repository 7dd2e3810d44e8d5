"""What an optimizer step of stage 1 and of stage 2 costs, against this machine's own matrix multiplication.

The configuration is the middle one of PARITY section 12: decoder 512 wide, 8 layers, 8 heads, intermediate 1,408,
vocabulary 8,192; tower 384 wide, 6 layers; float32. Stage 1: 8 samples of 576 image and 160 text tokens. Stage 2: 8
samples of a caption of 98 tokens and 16 x 16 latents, with the understanding branch frozen. As there, a step is
forward, backward and AdamW without clipping; losses and the C library's settings are the trainer's.

Multiplications of 1024 x 1024 matrices (the yardstick) run before and after every step, in the same process; the
efficiency is (GFLOP of the step by formula) / (CPU seconds x the yardstick's GFLOP per CPU second around it). On a busy
machine the short yardstick suffers more than the step, which flatters the step; "best/best" sets the quickest step
against the quickest yardstick, and errs the other way.

What is no multiplication weighs more, the faster a machine multiplies. `MKL_ENABLE_INSTRUCTIONS=AVX2` holds an Intel
processor with AVX-512 to the rate of one without, which is nearer to the machine whose bars these are (61 to 66).

Memory is measured by a process of its own per case, as the high-water mark of the resident set over two steps, less
what was resident before the model was built: the stage 2 step with the understanding branch frozen, and the same step
with gradients through that branch (its parameters still left alone, so this is the cost of the passing gradients
alone; and, as the reference leaves them, with its parameters requiring gradients too).

    python benchmarks/model_step.py --json step.json
    python benchmarks/model_step.py --stages 2 --rounds 3
"""

import os

# What the step is measured under; must be set before torch loads its thread pool.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.model.dual_branch import DecoderConfig, DualBranch, LatentConfig, ModelConfig, SpecialTokens
from unix.model.flow import velocity_target
from unix.model.vision import VisionConfig
from unix.training.host_memory import keep_freed_memory
from unix.training.losses import generation_losses, understanding_losses
from unix.training.objectives import train_only
from unix.training.optim import OptimizerConfig, adamw

GFLOP = {"1": 1424.0, "2": 395.0}
"""Of a step by formula, attention included."""
BAR = {"1": 0.78, "2": 0.80, "memory": 0.8}
GOAL = {"1": 0.88, "2": 0.90}
REFERENCE = {"1": 0.65, "2": 0.55}
"""What the reference implementation reached of the yardstick's rate, by the same formula."""
SAMPLES, PROMPT, ANSWER, CAPTION, SIDE = 8, 60, 96, 96, 16
YARDSTICK_SIDE, YARDSTICK_REPEATS = 1024, 24
MEMORY_CASES = ("frozen", "through", "reference")

CONFIG = ModelConfig(
    decoder=DecoderConfig(
        vocabulary_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_layers=8,
        num_heads=8,
        num_key_value_heads=8,
    ),
    vision=VisionConfig(hidden_size=384, intermediate_size=1536, num_layers=6, num_heads=6),
    latent=LatentConfig(),
    tokens=SpecialTokens(bos=0, eos=1, boi=2, eoi=3),
)


def understanding_batch() -> UnderstandingBatch:
    """Images of 576 tokens, a prompt of 60 ids, an answer of 96: 97 positions bear a loss."""
    generator = torch.Generator().manual_seed(1)
    length = PROMPT + 2 + ANSWER + 2
    ids = torch.randint(4, 8192, (SAMPLES, length), generator=generator)
    targets = torch.full_like(ids, IGNORED)
    targets[:, PROMPT + 2 : -1] = ids[:, PROMPT + 3 :]
    return UnderstandingBatch(
        keys=tuple(map(str, range(SAMPLES))),
        pixels_BCSS=torch.randn(SAMPLES, 3, 384, 384, generator=generator),
        text_ids_BL=ids,
        text_length_B=torch.full((SAMPLES,), length),
        target_ids_BL=targets,
    )


def generation_batch() -> GenerationBatch:
    """Captions of 96 ids and begin and end of text; latents of 16 x 16."""
    generator = torch.Generator().manual_seed(2)
    shape = (SAMPLES, CONFIG.latent.channels, SIDE, SIDE)
    return GenerationBatch(
        keys=tuple(map(str, range(SAMPLES))),
        caption_ids_BL=torch.randint(4, 8192, (SAMPLES, CAPTION + 2), generator=generator),
        caption_length_B=torch.full((SAMPLES,), CAPTION + 2),
        latent_BChw=torch.randn(shape, generator=generator),
        noise_BChw=torch.randn(shape, generator=generator),
        time_B=torch.rand(SAMPLES, generator=generator),
    )


def build(stage: str, memory_case: str = "frozen") -> Callable[[], float]:
    """The step of a stage, ready to be called; it returns the loss."""
    model = DualBranch.build(CONFIG, 0)
    with torch.no_grad():  # its zeros would keep every gradient at zero
        model.latent_out.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(3))
    names = {name for name, _ in (model.understanding_parameters() if stage == "1" else model.generation_parameters())}
    trained = train_only(model, names).values()
    optimizer = adamw([list(trained)], OptimizerConfig(learning_rate=1e-4))
    if memory_case == "reference":
        model.requires_grad_(True)
    # the caption's way in must carry gradients for any to pass
    elif memory_case == "through":
        model.embedding.requires_grad_(True)
    reading, drawing = understanding_batch(), generation_batch()

    def losses() -> torch.Tensor:
        if stage == "1":
            output = model.understanding(reading)
            return understanding_losses(output.logits_NV, output.targets_N, len(output.targets_N)).loss
        velocity = model.generation(drawing, freeze_understanding=memory_case == "frozen").velocity_BChw
        target = velocity_target(drawing.latent_BChw, drawing.noise_BChw)
        return generation_losses(velocity, target, None, 0.0, SAMPLES).loss

    def step() -> float:
        loss = losses()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def yardstick(left: torch.Tensor, right: torch.Tensor) -> float:
    """CPU seconds of the yardstick's multiplications."""
    started = time.process_time()
    for _ in range(YARDSTICK_REPEATS):
        left @ right
    return time.process_time() - started


def measure(stage: str, rounds: int, warm_up: int) -> dict[str, Any]:
    """Interleave the yardstick with steps."""
    step = build(stage)
    generator = torch.Generator().manual_seed(4)
    left, right = (torch.randn(YARDSTICK_SIDE, YARDSTICK_SIDE, generator=generator) for _ in range(2))
    work = YARDSTICK_REPEATS * 2 * YARDSTICK_SIDE**3 / 1e9
    for _ in range(warm_up):
        step()
        yardstick(left, right)
    measured: list[dict[str, float]] = []
    before = yardstick(left, right)
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.monotonic()
        loss = step()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        after = yardstick(left, right)
        rate = 2 * work / (before + after)
        measured.append(
            {
                "loss": loss,
                "cpu_seconds": cpu,
                "wall_seconds": wall,
                "yardstick_gflop_per_cpu_second": rate,
                "efficiency": GFLOP[stage] / (cpu * rate),
            }
        )
        before = after
    medians = {name: statistics.median(row[name] for row in measured) for name in measured[0]}
    best = GFLOP[stage] / (
        min(row["cpu_seconds"] for row in measured) * max(row["yardstick_gflop_per_cpu_second"] for row in measured)
    )
    return {
        "gflop": GFLOP[stage],
        **medians,
        "best_against_best": best,
        "every_round": measured,
        "load": os.getloadavg()[0],
    }


def peak_bytes(case: str) -> int:
    """High-water mark of the resident set over two stage 2 steps, beyond what was resident before the model."""
    before = _resident("VmRSS")
    step = build("2", case)
    for _ in range(2):
        step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def memory() -> dict[str, Any]:
    """Every case in a fresh process."""
    peaks: dict[str, int] = {}
    for case in MEMORY_CASES:
        command = [sys.executable, __file__, "--peak", case]
        peaks[case] = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {
        "peak_bytes": peaks,
        "ratio": peaks["frozen"] / peaks["through"],
        "ratio_reference": peaks["frozen"] / peaks["reference"],
    }


def main() -> None:
    """Measure what is asked for, or be one of the memory processes (`--peak`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=("1", "2"), default=["2", "1"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory comparison out")
    parser.add_argument("--json", metavar="PATH", default="")
    parser.add_argument("--peak", choices=MEMORY_CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.peak:
        print(peak_bytes(options.peak))
        return
    result: dict[str, Any] = {
        "benchmark": "model_step",
        "rounds": options.rounds,
        "threads": options.threads,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "bar": BAR,
        "goal": GOAL,
        "reference": REFERENCE,
        "stages": {},
    }
    print(f"median of {options.rounds} steps after {options.warm_up}, {options.threads} threads, {result['versions']}")
    columns = (
        "stage",
        "GFLOP",
        "CPU-s",
        "wall s",
        "yardstick",
        "of it",
        "best/best",
        "bar",
        "goal",
        "reference",
        "load",
    )
    print("".join(f"{column:>10}" for column in columns))
    for stage in options.stages:
        row = result["stages"][stage] = measure(stage, options.rounds, options.warm_up)
        timed = (row["gflop"], row["cpu_seconds"], row["wall_seconds"], row["yardstick_gflop_per_cpu_second"])
        compared = (row["efficiency"], row["best_against_best"], BAR[stage], GOAL[stage], REFERENCE[stage], row["load"])
        print(f"{stage:>10}" + "".join(f"{value:>10.2f}" for value in (*timed, *compared)), flush=True)
    if not options.no_memory and "2" in options.stages:
        result["memory"] = found = memory()
        for case, peak in found["peak_bytes"].items():
            print(f"peak memory of the stage 2 step, {case:<10} {peak / 2**20:>8.0f} MiB")
        print(f"frozen / through {found['ratio']:.3f}, frozen / reference {found['ratio_reference']:.3f}")
    print(json.dumps(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
