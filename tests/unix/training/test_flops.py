"""Counted operations, against the formula's figures (PARITY section 12) and torch's own count."""

from typing import Any

import pytest

from unix.model.dual_branch import ModelConfig
from unix.training.flops import generation_flops, understanding_flops

MIDDLE: dict[str, Any] = {
    "decoder": {
        "vocabulary_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_layers": 8,
        "num_heads": 8,
        "num_key_value_heads": 8,
    },
    "vision": {"hidden_size": 384, "intermediate_size": 1536, "num_layers": 6, "num_heads": 6},
    "tokens": {"bos": 0, "eos": 1, "boi": 2, "eoi": 3},
}
CONFIG = ModelConfig.build(MIDDLE)


def test_the_steps_of_the_middle_configuration() -> None:
    reading = understanding_flops(CONFIG, [160] * 8, 8 * 97)
    drawing = generation_flops(CONFIG, [98] * 8, 256, frozen=True, remembered=False)
    assert reading / 1e9 == pytest.approx(1424, rel=0.05)
    assert drawing / 1e9 == pytest.approx(395, rel=0.02)


def test_a_frozen_branch_costs_less_and_remembered_captions_least() -> None:
    remembered, frozen, unfrozen = (
        generation_flops(CONFIG, [98, 0], 256, frozen=frozen, remembered=remembered)
        for frozen, remembered in ((True, True), (True, False), (False, False))
    )
    assert remembered < 0.95 * frozen
    assert frozen < 0.9 * unfrozen


def test_a_batch_costs_what_its_samples_cost() -> None:
    parts = [generation_flops(CONFIG, [length], 256, frozen=True, remembered=False) for length in (98, 0, 31)]
    whole = generation_flops(CONFIG, [98, 0, 31], 256, frozen=True, remembered=False)
    assert whole == pytest.approx(sum(parts), rel=1e-9)
