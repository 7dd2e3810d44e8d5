"""REPA as stage 2 uses it: a frozen encoder's features, a trainable projector, the loss between them."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from unix.data.stream import Sample
from unix.model.alignment import AlignmentProjector, alignment_loss
from unix.training.encodings import Encodings


class Alignment:
    """Pulls the latent tokens after decoder layer `layer` (counted from 1) towards the encoder's features."""

    def __init__(self, projector: AlignmentProjector, features: Encodings, *, layer: int, weight: float) -> None:
        self._projector, self._features = projector, features
        self.layer, self.weight = layer, weight

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The projector's."""
        return dict(self._projector.named_parameters())

    def features(self, samples: Sequence[Sample]) -> Tensor:
        """The frozen encoder's features of the samples' clean images, BTZ."""
        return self._features.of(samples)

    def loss(self, captured_BTE: Tensor, features_BTZ: Tensor, grid: tuple[int, int]) -> Tensor:
        """Minus the mean cosine similarity."""
        return alignment_loss(self._projector(captured_BTE), features_BTZ, grid)
