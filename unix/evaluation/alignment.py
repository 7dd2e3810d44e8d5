"""How well drawn images fit their texts by an outside image-text model: a cosine per pair.

BioViL-T comes through Microsoft's package hi-ml-multimodal, whose pins want an environment of its own. Read-back F1
(`unix.evaluation.generation`) asks the same question without outside weights.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unix.errors import ConfigError, UnixError
from unix.evaluation.bootstrap import FloatArray
from unix.progress import track

METRIC = "alignment_biovil_t"
"""Of the column and of its mean."""

_IMAGE_WEIGHTS = "biovil_t_image_model_proj_size_128.pt"
_TEXT_FILES = ("config.json", "vocab.txt")
_RESIZE, _CROP = 512, 448


class ImageTextModel(Protocol):
    """Scores how well an image file fits a text, in [-1, 1]."""

    def similarity(self, image: Path, text: str) -> float:
        """Cosine of their embeddings."""
        ...


class BioViLT:
    """BioViL-T with weights from a folder: the image model's file beside CXR-BERT's."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @classmethod
    def load(cls, folder: Path) -> "BioViLT":
        """Read a local copy of microsoft/BiomedVLP-BioViL-T; nothing is downloaded.

        Raises:
            ConfigError: a file or the package is missing; says which.
        """
        for name in (_IMAGE_WEIGHTS, *_TEXT_FILES):
            if not (folder / name).is_file():
                raise ConfigError(f"{folder / name} is missing; give a full copy of microsoft/BiomedVLP-BioViL-T")
        try:
            image, text, vlp = (
                importlib.import_module(f"health_multimodal.{name}") for name in ("image", "text", "vlp")
            )
            model = importlib.import_module("health_multimodal.image.model.model").ImageModel
            transforms = importlib.import_module("health_multimodal.image.data.transforms")
        except ImportError as error:
            raise ConfigError(
                f"BioViL-T needs the package hi-ml-multimodal ({error}); install its version 0.2.2 in an environment "
                "of its own, or rely on read-back F1"
            ) from error
        image_engine = image.ImageInferenceEngine(
            image_model=model(
                img_encoder_type="resnet50_multi_image",
                joint_feature_size=128,
                pretrained_model_path=folder / _IMAGE_WEIGHTS,
            ),
            transform=transforms.create_chest_xray_transform_for_inference(resize=_RESIZE, center_crop_size=_CROP),
        )
        tokenizer = text.model.CXRBertTokenizer.from_pretrained(str(folder), local_files_only=True)
        bert = text.model.CXRBertModel.from_pretrained(str(folder), local_files_only=True)
        text_engine = text.TextInferenceEngine(tokenizer=tokenizer, text_model=bert)
        return cls(vlp.ImageTextInferenceEngine(image_inference_engine=image_engine, text_inference_engine=text_engine))

    def similarity(self, image: Path, text: str) -> float:
        """Cosine of their embeddings."""
        return float(self._engine.get_similarity_score_from_raw_data(image_path=image, query_text=text))


def open_alignment(name: str) -> ImageTextModel:
    """The model that `biovil-t:FOLDER` names.

    Raises:
        ConfigError: there is no such model, or a file or the package is missing; says which.
    """
    kind, _, folder = name.partition(":")
    if kind != "biovil-t" or not folder:
        raise ConfigError(f"there is no image-text model {name!r}; choose biovil-t:FOLDER; nothing is downloaded")
    return BioViLT.load(Path(folder))


def similarities(model: ImageTextModel, images: Sequence[Path], texts: Sequence[str]) -> FloatArray:
    """How well each of N drawn images fits its text, unrounded: [N].

    Raises:
        ConfigError: sides differ in number, or there are none.
        UnixError: the model gave something else than a cosine.
    """
    if len(images) != len(texts) or not texts:
        raise ConfigError(
            f"images and texts to align must be as many and at least one: {len(images)} images, {len(texts)} texts"
        )
    pairs = track(zip(images, texts, strict=True), "align", len(texts))
    score_N = np.array([model.similarity(image, text) for image, text in pairs])
    odd = int((~(np.abs(score_N) <= 1 + 1e-5)).sum())
    if odd:
        raise UnixError(f"{odd} of {len(score_N)} similarities are no cosines; is this BioViL-T?")
    return score_N
