"""The model against a plain dense-mask evaluation of the same formulas in float64, and its promises."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.errors import ConfigError
from unix.model import flow
from unix.model.attention import BranchLayer
from unix.model.dual_branch import DualBranch, LatentConfig, ModelConfig
from unix.model.layers import position_table


def dense(model: DualBranch, rows_LE: Tensor, position_L: Tensor, drawn_L: Tensor) -> Tensor:
    """One sample as one sequence with one dense mask (earlier or equal positions are seen), weights chosen by token."""
    decoder = model.config.decoder
    head_width = decoder.hidden_size // decoder.num_heads
    group = decoder.num_heads // decoder.num_key_value_heads
    visible = position_L[:, None] >= position_L[None, :]
    frequency = decoder.rotary_theta ** (-torch.arange(0, head_width, 2, dtype=rows_LE.dtype) / head_width)
    angle = torch.cat([position_L[:, None] * frequency] * 2, dim=-1)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + decoder.norm_epsilon).sqrt() * weight

    def rotate(x: Tensor) -> Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * angle.cos()[:, None] + torch.cat([-high, low], dim=-1) * angle.sin()[:, None]

    def project(layer: BranchLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = norm(x, layer.attention_norm.weight)
        query, key, value = (p(x).unflatten(-1, (-1, head_width)) for p in (layer.query, layer.key, layer.value))
        return norm(query, layer.query_norm.weight), norm(key, layer.key_norm.weight), value

    def choose(drawn: Tensor, read: Tensor) -> Tensor:
        return torch.where(drawn_L.view(-1, *[1] * (drawn.dim() - 1)), drawn, read)

    for layer in model.layers:
        parts = zip(project(layer.generation, rows_LE), project(layer.understanding, rows_LE), strict=True)
        query, key, value = (choose(drawn, read) for drawn, read in parts)
        query, key = rotate(query), rotate(key).repeat_interleave(group, 1)
        score = torch.einsum("qhd,khd->hqk", query, key) / head_width**0.5
        weight = score.masked_fill(~visible, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weight, value.repeat_interleave(group, 1)).flatten(1)
        rows_LE = rows_LE + choose(layer.generation.output(mixed), layer.understanding.output(mixed))

        def mlp(branch: BranchLayer, x: Tensor) -> Tensor:
            x = norm(x, branch.mlp_norm.weight)
            return branch.mlp.down(functional.silu(branch.mlp.gate(x)) * branch.mlp.up(x))

        rows_LE = rows_LE + choose(mlp(layer.generation, rows_LE), mlp(layer.understanding, rows_LE))
    return choose(norm(rows_LE, model.generation_norm.weight), norm(rows_LE, model.understanding_norm.weight))


def dense_logits(model: DualBranch, batch: UnderstandingBatch) -> Tensor:
    tokens, logits = model.config.tokens, []
    image = model.connector(model.vision(batch.pixels_BCSS))
    for row, length in enumerate(batch.text_length_B.tolist()):
        edges = model.embedding(torch.tensor([tokens.boi, tokens.eoi]))
        text = model.embedding(batch.text_ids_BL[row, :length])
        rows = torch.cat([edges[:1], image[row], edges[1:], text])
        position = torch.cat([torch.zeros(image.shape[1] + 2), torch.arange(1, length + 1)]).to(rows.dtype)
        hidden = dense(model, rows, position, torch.zeros(len(rows), dtype=torch.bool))
        bearing = batch.target_ids_BL[row, :length] != IGNORED
        logits.append(model.head(hidden[-length:][bearing]))
    return torch.cat(logits)


def dense_velocity(model: DualBranch, batch: GenerationBatch) -> Tensor:
    tokens, velocities = model.config.tokens, []
    rows, columns = batch.latent_BChw.shape[-2:]
    noised = flow.interpolate(batch.latent_BChw, batch.noise_BChw, batch.time_B)
    table = position_table(8, 8, model.config.decoder.hidden_size).unflatten(0, (8, 8))
    place = table[:rows, :columns].reshape(rows * columns, -1).to(noised.dtype)
    for row, length in enumerate(batch.caption_length_B.tolist()):
        edges = model.embedding(torch.tensor([tokens.boi, tokens.eoi]))
        latents = model.latent_in(noised[row].flatten(1).T) + place + model.time_embedding(batch.time_B[row : row + 1])
        caption = model.embedding(batch.caption_ids_BL[row, :length])
        sequence = torch.cat([caption, edges[:1], latents, edges[1:]])
        position = torch.cat([torch.arange(length), torch.full((rows * columns + 2,), length)]).to(sequence.dtype)
        drawn = torch.zeros(len(sequence), dtype=torch.bool)
        drawn[length + 1 : -1] = True
        hidden = dense(model, sequence, position, drawn)
        velocities.append(model.latent_out(hidden[drawn]).T.unflatten(1, (rows, columns)))
    return torch.stack(velocities)


def widened(batch: GenerationBatch) -> GenerationBatch:
    return replace(
        batch,
        latent_BChw=batch.latent_BChw.double(),
        noise_BChw=batch.noise_BChw.double(),
        time_B=batch.time_B.double(),
    )


def gradients(model: DualBranch, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def agree(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    for name in left.keys() | right.keys():
        zero = torch.zeros_like(left.get(name, right.get(name)))
        torch.testing.assert_close(left.get(name, zero), right.get(name, zero), rtol=2e-3, atol=2e-5, msg=name)


def test_understanding_equals_the_dense_evaluation(model: DualBranch, understanding_batch: UnderstandingBatch) -> None:
    output = model.understanding(understanding_batch)
    targets = understanding_batch.target_ids_BL
    assert output.targets_N.tolist() == targets[targets != IGNORED].tolist()
    ours = gradients(model, functional.cross_entropy(output.logits_NV, output.targets_N))
    wide = model.double()
    expected = dense_logits(wide, replace(understanding_batch, pixels_BCSS=understanding_batch.pixels_BCSS.double()))
    theirs = gradients(wide, functional.cross_entropy(expected, output.targets_N))
    torch.testing.assert_close(output.logits_NV.double(), expected, rtol=1e-4, atol=1e-5)
    agree({name: value.double() for name, value in ours.items()}, theirs)
    assert not any(name in ours for name, _ in model.generation_parameters())


@pytest.mark.parametrize("freeze", [True, False])
def test_generation_equals_the_dense_evaluation(
    model: DualBranch, generation_batch: GenerationBatch, freeze: bool
) -> None:
    output = model.generation(generation_batch, freeze_understanding=freeze)
    ours = gradients(model, output.velocity_BChw.square().mean())
    wide = model.double()
    expected = dense_velocity(wide, widened(generation_batch))
    torch.testing.assert_close(output.velocity_BChw.double(), expected, rtol=1e-4, atol=1e-5)
    if not freeze:
        agree({name: value.double() for name, value in ours.items()}, gradients(wide, expected.square().mean()))


def test_padding_changes_nothing(
    model: DualBranch, understanding_batch: UnderstandingBatch, generation_batch: GenerationBatch
) -> None:
    together = model.understanding(understanding_batch).logits_NV
    alone = []
    for row, length in enumerate(understanding_batch.text_length_B.tolist()):
        one = slice(row, row + 1)
        sample = UnderstandingBatch(
            keys=understanding_batch.keys[one],
            pixels_BCSS=understanding_batch.pixels_BCSS[one],
            text_ids_BL=understanding_batch.text_ids_BL[one, :length],
            text_length_B=understanding_batch.text_length_B[one],
            target_ids_BL=understanding_batch.target_ids_BL[one, :length],
        )
        alone.append(model.understanding(sample).logits_NV)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    together = model.generation(generation_batch).velocity_BChw
    for row, length in enumerate(generation_batch.caption_length_B.tolist()):
        one = slice(row, row + 1)
        sample = GenerationBatch(
            keys=generation_batch.keys[one],
            caption_ids_BL=generation_batch.caption_ids_BL[one, :length],
            caption_length_B=generation_batch.caption_length_B[one],
            latent_BChw=generation_batch.latent_BChw[one],
            noise_BChw=generation_batch.noise_BChw[one],
            time_B=generation_batch.time_B[one],
        )
        torch.testing.assert_close(model.generation(sample).velocity_BChw, together[one], rtol=1e-4, atol=1e-5)


def test_a_frozen_understanding_branch_gets_no_gradient(model: DualBranch, generation_batch: GenerationBatch) -> None:
    grads = gradients(model, model.generation(generation_batch).velocity_BChw.square().mean())
    generation = dict(model.generation_parameters())
    assert grads.keys() == generation.keys()
    assert all(float(value.abs().max()) > 0 for value in grads.values())


def test_passing_captions_are_those_that_are_kept(model: DualBranch, generation_batch: GenerationBatch) -> None:
    ids_BL, length_B = generation_batch.caption_ids_BL, generation_batch.caption_length_B
    kept = model.caption_prefix(ids_BL, length_B)
    with torch.no_grad():
        passing = model.passing_caption(ids_BL, length_B)
    for expected, kv in zip(kept.layers, passing.layers, strict=True):
        assert torch.is_grad_enabled()  # for whoever draws between two of them
        assert not kv.key.requires_grad
        assert torch.equal(kv.key, expected.key)
        assert torch.equal(kv.value, expected.value)


def test_recomputed_layers_give_the_same_gradients(
    model: DualBranch, understanding_batch: UnderstandingBatch, generation_batch: GenerationBatch
) -> None:
    def both() -> list[dict[str, Tensor]]:
        reading = gradients(model, model.understanding(understanding_batch).logits_NV.square().mean())
        return [reading, gradients(model, model.generation(generation_batch).velocity_BChw.square().mean())]

    def kept() -> int:
        """Numbers that the graph of a drawing holds on to."""
        count = 0

        def hold(value: Tensor) -> Tensor:
            nonlocal count
            count += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
            model.generation(generation_batch)
        return count

    expected, whole = both(), kept()
    model.recompute_layers = True
    for left, right in zip(both(), expected, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert kept() < whole / 2


def test_captured_hidden_states_follow_the_layers(model: DualBranch, generation_batch: GenerationBatch) -> None:
    outputs = [model.generation(generation_batch, capture_layer=count) for count in (1, 2, 3)]
    assert model.generation(generation_batch).captured_BTE is None
    captured = [output.captured_BTE for output in outputs]
    assert all(value is not None and value.shape == (3, 24, 32) for value in captured)
    velocity = model.latent_out(model.generation_norm(captured[2])).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(velocity, outputs[0].velocity_BChw)
    assert not torch.allclose(captured[0], captured[1])


def test_the_branches_share_no_parameter_and_leave_none_out(model: DualBranch) -> None:
    understanding, generation = dict(model.understanding_parameters()), dict(model.generation_parameters())
    assert not understanding.keys() & generation.keys()
    assert understanding.keys() | generation.keys() == dict(model.named_parameters()).keys()
    assert all("understanding" not in name for name in generation)


def test_copying_makes_the_branches_equal(model: DualBranch) -> None:
    model.copy_understanding_to_generation()
    for name, value in model.named_parameters():
        if "understanding" in name:
            twin = model.get_parameter(name.replace("understanding", "generation"))
            assert twin is not value and torch.equal(twin, value)


def test_building_depends_on_the_seed_alone(config: ModelConfig) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (DualBranch.build(config, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_a_new_model_predicts_no_velocity_yet(config: ModelConfig, generation_batch: GenerationBatch) -> None:
    velocity = DualBranch.build(config, 0).generation(generation_batch).velocity_BChw
    assert float(velocity.detach().abs().max()) == 0


def test_grids_beyond_the_table_are_refused(config: ModelConfig, model: DualBranch) -> None:
    with pytest.raises(ConfigError, match=r"9 x 4 exceeds latent\.max_side = 8"):
        model.embed_latents(torch.zeros(1, 16, 9, 4), torch.zeros(1))


def test_interpolated_positions_span_the_base_grid(config: ModelConfig) -> None:
    values = config.model_copy(update={"latent": LatentConfig(max_side=8, positions="interpolated", base_side=4)})
    corner, spread = DualBranch.build(config, 0), DualBranch.build(values, 0)
    small, large = torch.zeros(1, 16, 4, 4), torch.zeros(1, 16, 8, 8)
    time = torch.zeros(1)
    torch.testing.assert_close(spread.embed_latents(small, time), corner.embed_latents(small, time))
    middle = spread.embed_latents(large, time).unflatten(1, (8, 8))
    assert not torch.allclose(middle, corner.embed_latents(large, time).unflatten(1, (8, 8)))


def test_the_paper_model_has_its_size() -> None:
    with torch.device("meta"):
        model = DualBranch(ModelConfig())
    sizes = {name: value.numel() for name, value in model.named_parameters()}

    def count(*prefixes: str) -> int:
        return sum(size for name, size in sizes.items() if name.startswith(prefixes))

    generation = sum(value.numel() for _, value in model.generation_parameters())
    layers = [size for name, size in sizes.items() if ".understanding." in name]
    assert sum(layers) == 24 * (4 * 2048**2 + 3 * 2048 * 5632 + 3 * 2048 + 2 * 128 + 2 * 2048)
    # "1.5 B per branch in use": decoder and tower for reading; decoder and the captions' embedding for drawing
    assert 1.5e9 < sum(layers) + count("vision.", "connector.") < 1.6e9
    assert 1.4e9 < generation + count("embedding.") < 1.5e9
