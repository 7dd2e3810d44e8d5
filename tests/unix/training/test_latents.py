"""Latent sets: same keys, right moments, kept on a second run, refused for another autoencoder."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from unix.data.stream import ShardReader
from unix.errors import ConfigError, ShardError
from unix.manifest import publish_manifest
from unix.model.latent import FoldedVAE
from unix.model.weights.native import load_codec, save_module
from unix.training.encodings import codec_moments
from unix.training.latents import LatentsConfig, precompute_latents
from unix.training.metrics import read_metrics
from unix.training.run import train


@pytest.fixture
def copied(shards, tmp_path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def test_latents_are_the_moments_of_the_same_keys(copied, warm):
    summary = precompute_latents(LatentsConfig(shards=str(copied), sets=("generation-48",), vae=warm.checkpoint))
    assert (summary.sets[0].set, summary.sets[0].encoded) == ("generation-48-latents", summary.sets[0].samples)
    images = ShardReader(copied / "generation-48", "train")
    latents = ShardReader(copied / "generation-48-latents", "train")
    assert latents.keys == images.keys
    encode = codec_moments(load_codec(Path(warm.checkpoint)))
    _, members = latents.read_members(5)
    stored = np.lib.format.read_array(io.BytesIO(members["npy"]))
    assert (stored.dtype, stored.shape) == (np.float16, (32, 3, 3))
    assert np.allclose(stored, encode([images.read(5).image])[0].numpy(), atol=2e-3)

    card = (copied / "generation-48-latents" / "README.md").read_text(encoding="utf-8")
    assert summary.vae_digest in card
    assert f"`{summary.sets[0].release}`" in card
    assert f"| train | {images.samples:,} |" in card
    assert "phantom" in card.split("## What may be done with it")[1]

    again = precompute_latents(LatentsConfig(shards=str(copied), sets=("generation-48",), vae=warm.checkpoint))
    assert again.sets[0].encoded == 0
    assert again.sets[0].release == summary.sets[0].release


def test_a_release_of_the_images_is_followed_without_encoding_again(copied, warm):
    config = LatentsConfig(shards=str(copied), sets=("generation-48",), vae=warm.checkpoint)
    before = precompute_latents(config).sets[0]
    images = ShardReader(copied / "generation-48", "train")
    first, *others = images.manifest.shards
    first = first.model_copy(update={"superseded": (images.keys[0],)})
    live = images.manifest.live - 1
    publish_manifest(
        copied / "generation-48",
        images.manifest.model_copy(
            update={
                "release": "",
                "shards": (first, *others),
                "considered": live,
                "excluded": {},
                "superseded_samples": 1,
            }
        ),
    )
    after = precompute_latents(config).sets[0]
    latents = ShardReader(copied / "generation-48-latents", "train")
    assert (after.encoded, after.samples, before.samples) == (0, live, live + 1)
    assert latents.keys == images.keys[1:]
    assert latents.manifest.parent_release == before.release
    assert latents.manifest.superseded_samples == 1


def test_training_from_latent_shards_is_training_from_images(copied, configure, read, tmp_path):
    precompute_latents(LatentsConfig(shards=str(copied), vae=read.checkpoint))
    losses = {}
    for source in ("shards", "loop", "memory"):
        config = configure(
            "stage3",
            tmp_path / source,
            from_checkpoint=read.checkpoint,
            generation={"latents": source},
            shards=str(copied),
        )
        train(config)
        losses[source] = [row["loss"] for row in read_metrics(tmp_path / source)]
    assert losses["shards"] == pytest.approx(losses["loop"], rel=1e-3)
    assert losses["memory"] == pytest.approx(losses["loop"], rel=1e-5)


def test_another_autoencoder_is_refused(copied, warm, tmp_path):
    precompute_latents(LatentsConfig(shards=str(copied), vae=warm.checkpoint))
    codec = load_codec(Path(warm.checkpoint))
    assert isinstance(codec, FoldedVAE)
    with torch.no_grad():
        next(codec.parameters()).add_(1.0)
    save_module(tmp_path / "vae", codec, codec.config)
    with pytest.raises(ShardError, match="another autoencoder"):
        precompute_latents(LatentsConfig(shards=str(copied), vae=str(tmp_path)))


def test_an_unknown_set_is_refused(copied, warm):
    with pytest.raises(ConfigError, match="no generation set generation-7"):
        precompute_latents(LatentsConfig(shards=str(copied), sets=("generation-7",), vae=warm.checkpoint))
