"""Layout of batches, and randomness that belongs to the sample alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unix.batch import IGNORED
from unix.data.pack import (
    GenerationPacking,
    Purpose,
    UnderstandingPacking,
    draw_time,
    pack_generation,
    pack_pixels,
    pack_text,
    pack_understanding,
    sample_generator,
)
from unix.data.tokenizer import Tokenizer
from unix.errors import ShardError

TOKENIZER = Tokenizer.train(["small left effusion", "no effusion"], 300)
PACKING = UnderstandingPacking(prompts=("say",), max_answer_tokens=12)


@dataclass
class Picture:
    image_id: str
    image: np.ndarray


def picture(key: str, size: int = 16) -> Picture:
    return Picture(key, np.random.default_rng(len(key)).integers(0, 255, (size, size), dtype=np.uint8))


def test_targets_are_the_answer_and_its_end_nothing_else():
    batch = pack_text(["a", "b"], ["no effusion", "small left effusion"], TOKENIZER, PACKING, seed=0, step=0)
    answer = TOKENIZER.encode("no effusion")
    prompt = [TOKENIZER.bos, *TOKENIZER.encode("say"), TOKENIZER.eos]
    length = int(batch.text_length_B[0])
    assert batch.text_ids_BL[0, :length].tolist() == [*prompt, TOKENIZER.bos, *answer, TOKENIZER.eos]
    wanted = [IGNORED] * len(prompt) + [*answer, TOKENIZER.eos] + [IGNORED]
    assert batch.target_ids_BL[0, :length].tolist() == wanted
    assert (batch.target_ids_BL[0, length:] == IGNORED).all()
    # A target is the id that follows.
    bearing = batch.target_ids_BL[:, :-1] != IGNORED
    assert torch.equal(batch.target_ids_BL[:, :-1][bearing], batch.text_ids_BL[:, 1:][bearing])


def test_a_cut_report_has_no_end():
    packing = PACKING.model_copy(update={"max_answer_tokens": 3})
    batch = pack_text(["a"], ["small left effusion, no effusion"], TOKENIZER, packing, seed=0, step=0)
    ids = TOKENIZER.encode("small left effusion, no effusion")
    assert len(ids) > 3
    assert batch.target_ids_BL[batch.target_ids_BL != IGNORED].tolist() == ids[:3]


def test_pixels_are_normalised_on_three_equal_channels():
    batch = pack_understanding([picture("a")], ["no effusion"], TOKENIZER, PACKING, seed=0, step=0)
    assert batch.pixels_BCSS.shape == (1, 3, 16, 16)
    expected = (torch.from_numpy(picture("a").image) / 255 - PACKING.pixel_mean) / PACKING.pixel_std
    assert torch.allclose(batch.pixels_BCSS[0, 2], expected)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ShardError, match="image bb is"):
        pack_understanding([picture("a"), picture("bb", 8)], ["x", "y"], TOKENIZER, PACKING, seed=0, step=0)


def test_shifting_moves_by_at_most_the_margin():
    packing = PACKING.model_copy(update={"shift_pixels": 2})
    spot = np.zeros((16, 16), np.uint8)
    spot[8, 8] = 255
    places = set()
    for step in range(60):
        moved = pack_pixels([Picture("a", spot)], packing, seed=0, step=step)[0, 0]
        places.add(divmod(int(moved.argmax()), 16))
    assert {place[0] for place in places} == {6, 7, 8, 9, 10}
    assert {place[1] for place in places} == {6, 7, 8, 9, 10}


def generation(keys: list[str], seed: int = 0, step: int = 0, dropout: float = 0.5):
    latent = torch.zeros(len(keys), 4, 2, 2)
    packing = GenerationPacking(caption_dropout=dropout)
    return pack_generation(keys, ["no effusion"] * len(keys), latent, TOKENIZER, packing, seed=seed, step=step)


@given(st.permutations([f"image-{number}" for number in range(8)]), st.integers(1, 8))
def test_dropout_noise_and_time_do_not_depend_on_the_batch(keys, count):
    whole, part = generation(sorted(keys)), generation(keys[:count])
    for row, key in enumerate(part.keys):
        there = whole.keys.index(key)
        assert torch.equal(part.noise_BChw[row], whole.noise_BChw[there])
        assert part.time_B[row] == whole.time_B[there]
        assert part.caption_length_B[row] == whole.caption_length_B[there]


def test_every_step_and_seed_draws_anew():
    first = generation(["a"])
    assert not torch.equal(first.noise_BChw, generation(["a"], step=1).noise_BChw)
    assert not torch.equal(first.noise_BChw, generation(["a"], seed=1).noise_BChw)


def test_captions_are_dropped_as_often_as_asked():
    lengths = generation([f"k{number}" for number in range(2000)], dropout=0.1).caption_length_B
    assert 0.07 < float((lengths == 0).float().mean()) < 0.13
    assert set(lengths.tolist()) == {0, len(TOKENIZER.encode("no effusion")) + 2}


def test_time_is_logit_normal_and_shifts_towards_noise():
    def times(shift: float) -> np.ndarray:
        return np.array([draw_time(sample_generator(0, n, "a", Purpose.TIME), shift) for n in range(3000)])

    plain, shifted = times(1.0), times(3.0)
    assert abs(plain.mean() - 0.5) < 0.02
    assert ((plain > 0) & (plain < 1)).all()
    assert np.allclose(shifted, 3 * plain / (1 + 2 * plain))
