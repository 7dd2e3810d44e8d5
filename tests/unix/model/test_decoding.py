"""Decoding: cached equals uncached, batched equals single, each sample stops on its own."""

import pytest
import torch
from torch import Tensor

from unix.batch import UnderstandingBatch
from unix.errors import ConfigError
from unix.model.decoding import decode, describe
from unix.model.dual_branch import DualBranch

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def next_logits(model: DualBranch, pixels: Tensor, prompt: list[int], answer: list[int]) -> Tensor:
    """Logits after bos + `answer`, through the training pass."""
    special = model.config.tokens
    text = torch.tensor([[special.bos, *prompt, special.eos, special.bos, *answer]])
    targets = torch.full_like(text, -100)
    targets[0, -1] = 0
    batch = UnderstandingBatch(("a",), pixels, text, torch.tensor([text.shape[1]]), targets)
    with torch.no_grad():
        return model.understanding(batch).logits_NV[0]


def test_the_cache_changes_nothing(model: DualBranch, pixels: Tensor) -> None:
    for row, prompt in enumerate(PROMPTS):
        image, answer = pixels[row : row + 1], []
        for step in decode(model, image, [prompt], 6):
            expected = next_logits(model, image, prompt, answer)
            torch.testing.assert_close(step.logits_BV[0], expected, rtol=1e-4, atol=1e-4)
            answer.append(int(step.token_B))


def test_a_batch_of_different_prompts_equals_each_alone(model: DualBranch, pixels: Tensor) -> None:
    together = list(decode(model, pixels, PROMPTS, 8))
    for row, prompt in enumerate(PROMPTS):
        alone = list(decode(model, pixels[row : row + 1], [prompt], 8))
        for single, step in zip(alone, together, strict=False):
            assert int(single.token_B) == int(step.token_B[row])
            torch.testing.assert_close(single.logits_BV[0], step.logits_BV[row], rtol=1e-4, atol=1e-4)
    answers = describe(model, pixels, PROMPTS, 8)
    assert answers == [describe(model, pixels[row : row + 1], [PROMPTS[row]], 8)[0] for row in range(3)]


def test_each_sample_stops_at_its_own_eos(model: DualBranch, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted tokens: the first answer ends after two, the second after none, the third never."""
    script = iter(torch.tensor([[7, 1, 8], [9, 5, 8], [1, 5, 8], [6, 6, 8]]))
    monkeypatch.setattr("unix.model.decoding._choose", lambda *_: next(script))
    assert describe(model, pixels, PROMPTS, 4) == [[7, 9], [], [8, 8, 8, 8]]


def test_decoding_ends_when_all_have_stopped(
    model: DualBranch, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter(torch.tensor([[7, 1, 8], [1, 5, 1]]))
    monkeypatch.setattr("unix.model.decoding._choose", lambda *_: next(script))
    assert describe(model, pixels, PROMPTS, 100) == [[7], [], [8]]


def test_temperature_draws_are_seeded(model: DualBranch, pixels: Tensor) -> None:
    def answers(seed: int) -> list[list[int]]:
        return describe(model, pixels, PROMPTS, 12, 3.0, seeds=[seed, seed + 1, seed + 2])

    assert answers(0) == answers(0)
    assert answers(0) != answers(10)
    for row in range(3):
        alone = describe(model, pixels[row : row + 1], PROMPTS[row : row + 1], 12, 3.0, seeds=[row])
        assert alone == answers(0)[row : row + 1]


def test_top_p_leaves_the_least_likely_out(model: DualBranch, pixels: Tensor) -> None:
    greedy = describe(model, pixels, PROMPTS, 8)
    assert describe(model, pixels, PROMPTS, 8, 5.0, top_p=1e-6, seeds=[1, 2, 3]) == greedy
    for step in decode(model, pixels, PROMPTS, 20, 2.0, top_p=0.6, seeds=[1, 2, 3]):
        probability = torch.softmax(step.logits_BV / 2, -1)
        chosen = probability.gather(1, step.token_B[:, None])
        more_likely = (probability * (probability > chosen)).sum(1)
        ended = step.token_B == model.config.tokens.eos
        assert bool(((more_likely < 0.6) | ended).all())


def test_mistaken_calls_are_refused(model: DualBranch, pixels: Tensor) -> None:
    with pytest.raises(ConfigError, match="3 images but 2 prompts"):
        describe(model, pixels, PROMPTS[:2], 4)
    with pytest.raises(ConfigError, match="random: no seeds for 3 prompts"):
        describe(model, pixels, PROMPTS, 4, temperature=1.0)
    with pytest.raises(ConfigError, match="top_p 0"):
        describe(model, pixels, PROMPTS, 4, temperature=1.0, top_p=0, seeds=[1, 2, 3])
