"""Tokens a second of decoding and images a second of sampling, with and without what is kept between steps.

The model is that of `model_step.py`, with random weights. Reports: an image of 576 tokens, a prompt of 60, then greedy
tokens; "without" runs the decoder over the whole sequence for every token (the tower once either way). Images: latents
of 16 x 16 over a caption of 96 tokens, guidance in every step; "without" runs the caption again in every step, and the
two sides of guidance one after the other. Both sides must give the same tokens, and the same latents to 1e-4.

    python benchmarks/inference.py --json inference.json
    python benchmarks/inference.py --batches 1 --tokens 32 --steps 10 --rounds 3
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from model_step import CAPTION, CONFIG, PROMPT, SIDE
from torch import Tensor

from unix.batch import GenerationBatch
from unix.model.decoding import describe
from unix.model.dual_branch import DualBranch
from unix.model.flow import euler_step, sampling_times
from unix.model.sampling import SamplerConfig, guide, sample_latents


def decode_without(model: DualBranch, pixels_BCSS: Tensor, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """Greedy answers, every token from the whole sequence."""
    special = model.config.tokens
    text_BL = torch.tensor([[special.bos, *prompt, special.eos, special.bos] for prompt in prompts])
    start = text_BL.shape[1]
    image = model.embed_image(pixels_BCSS)
    for _ in range(tokens):
        last_BL = torch.zeros_like(text_BL, dtype=torch.bool)
        last_BL[:, -1] = True
        hidden_BE, _ = model.read(torch.cat([image, model.embedding(text_BL)], dim=1), image.shape[1], last_BL)
        text_BL = torch.cat([text_BL, model.head(hidden_BE).argmax(-1, keepdim=True)], dim=1)
    return text_BL[:, start:].tolist()


def sample_without(model: DualBranch, captions: list[list[int]], seeds: list[int], config: SamplerConfig) -> Tensor:
    """Latents, every step from the captions' ids."""
    special, count = model.config.tokens, len(captions)
    ids_BL = torch.tensor([[special.bos, *caption, special.eos] for caption in captions])
    shape = (CONFIG.latent.channels, SIDE, SIDE)
    noised = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    keys = tuple(map(str, range(count)))
    for now, then in pairwise(sampling_times(config.num_steps, config.time_shift).tolist()):
        time_B = torch.full((count,), now)
        with_caption, without = (
            model.generation(
                GenerationBatch(keys, ids_BL, torch.full((count,), length), noised, noised, time_B)
            ).velocity_BChw
            for length in (ids_BL.shape[1], 0)
        )
        noised = euler_step(noised, guide(with_caption, without, config), now, then)
    return noised


def timed(run: Callable[[], Any], rounds: int) -> tuple[Any, float, float]:
    """The result, and the median wall-clock and CPU seconds."""
    wall, cpu = [], []
    for _ in range(rounds):
        before = time.monotonic(), time.process_time()
        result = run()
        wall.append(time.monotonic() - before[0])
        cpu.append(time.process_time() - before[1])
    return result, statistics.median(wall), statistics.median(cpu)


@torch.inference_mode()
def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case, the two sides of each one after the other."""
    model = DualBranch.build(CONFIG, 0)
    generator = torch.Generator().manual_seed(1)
    model.latent_out.weight.normal_(0, 0.02, generator=generator)
    model.head.weight[CONFIG.tokens.eos] = 0  # an answer never ends: its logit is 0, below the largest of 8,192
    sampler = SamplerConfig(num_steps=options.steps, interval=(0.0, 1.0))
    rows: list[dict[str, Any]] = []
    for batch in options.batches:
        pixels = torch.randn(batch, 3, 384, 384, generator=generator)
        prompts = torch.randint(4, 8192, (batch, PROMPT), generator=generator).tolist()
        captions = torch.randint(4, 8192, (batch, CAPTION), generator=generator).tolist()
        seeds = list(range(batch))
        cases: dict[str, dict[str, Callable[[], Any]]] = {
            "tokens": {
                "with": lambda: describe(model, pixels, prompts, options.tokens),  # noqa: B023
                "without": lambda: decode_without(model, pixels, prompts, options.tokens),  # noqa: B023
            },
            "images": {
                "with": lambda: sample_latents(model, captions, (SIDE, SIDE), seeds, sampler),  # noqa: B023
                "without": lambda: sample_without(model, captions, seeds, sampler),  # noqa: B023
            },
        }
        for kind, sides in cases.items():
            count = batch * (options.tokens if kind == "tokens" else 1)
            found = {side: timed(run, options.rounds) for side, run in sides.items()}
            for side, (_, wall, cpu) in found.items():
                rate = {"per_second": count / wall, "per_cpu_second": count / cpu}
                rows.append({"kind": kind, "batch": batch, "cache": side, "load": os.getloadavg()[0], **rate})
            ours, plain = found["with"][0], found["without"][0]
            same = ours == plain if kind == "tokens" else bool(torch.allclose(ours, plain, rtol=1e-4, atol=1e-4))
            rows[-1]["same"] = rows[-2]["same"] = same
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="PATH", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(options)
    print(f"{options.tokens} tokens a report, {options.steps} steps an image, median of {options.rounds} rounds")
    print(f"{'what':<8}{'batch':>6}{'cache':>9}{'per s':>9}{'per CPU-s':>11}{'same':>6}{'load':>6}")
    for row in rows:
        print(
            f"{row['kind']:<8}{row['batch']:>6}{row['cache']:>9}{row['per_second']:>9.2f}"
            f"{row['per_cpu_second']:>11.2f}{row['same']!s:>6}{row['load']:>6.1f}"
        )
    result = {
        "benchmark": "inference",
        "tokens": options.tokens,
        "steps": options.steps,
        "rounds": options.rounds,
        "threads": options.threads,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    print(json.dumps(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
