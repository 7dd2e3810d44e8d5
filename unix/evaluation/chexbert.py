"""CheXbert (Smit et al. 2020): BERT with a head per class, read from its checkpoint without running code from it.

Imports torch. Nothing is downloaded: `chexbert.pth` and a folder with BERT's `config.json` and `vocab.txt`
(bert-base-uncased) are given by path.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from unix.errors import WeightsError
from unix.model.weights.native import load_tensors
from unix.model.weights.tensors import TensorSource, tensors_digest
from unix.records import Labels, no_labels

CONDITIONS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
"""Classes in the order of the checkpoint's heads."""

_CLASS_VALUES = (None, 1, 0, -1)
"""What a head's four classes mean: blank, positive, negative, uncertain; No Finding has the first two."""
_MAX_TOKENS = 512
_UNUSED = re.compile(r"bert\.(pooler\..*|embeddings\.position_ids)")


class CheXbertModel(nn.Module):
    """BERT's first token into 13 heads of four classes and one of two."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        sizes = [4] * (len(CONDITIONS) - 1) + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Token ids and what is no padding -> the chosen class of each head, int64 [B, 14]."""
        first_BE = self.bert(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state[:, 0]
        return torch.stack([head(first_BE).argmax(dim=-1) for head in self.linear_heads], dim=1)


class CheXbert:
    """A labeler (`unix.evaluation.labelers`)."""

    def __init__(
        self, model: CheXbertModel, tokenizer: BertWordPieceTokenizer, device: torch.device | str | None = None
    ) -> None:
        self.name = f"chexbert {tensors_digest(model.state_dict())[:8]}"
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._tokenizer = model.to(self._device).eval(), tokenizer

    @classmethod
    def load(cls, checkpoint: Path, bert: Path, device: torch.device | str | None = None) -> "CheXbert":
        """Read `chexbert.pth` and the folder of the BERT that it was trained from, onto a GPU where there is one.

        Raises:
            WeightsError: a file is missing, or the checkpoint is not a CheXbert of this BERT.
        """
        for name in ("config.json", "vocab.txt"):
            if not (bert / name).is_file():
                raise WeightsError(
                    f"{bert / name} is missing; the folder must hold bert-base-uncased's config and vocabulary"
                )
        config = BertConfig.from_json_file(bert / "config.json")  # pyright: ignore[reportUnknownMemberType] - as transformers types it
        tokenizer = BertWordPieceTokenizer(str(bert / "vocab.txt"), lowercase=True)
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] - as torch types it
            model = CheXbertModel(config)
        source = TensorSource.open(checkpoint)
        # it was saved from a DataParallel model
        tensors = {name.removeprefix("module."): tensor for name, tensor in source.items()}
        load_tensors(model, {name: one for name, one in tensors.items() if not _UNUSED.fullmatch(name)}, source.origin)
        return cls(model, tokenizer, device)

    @torch.inference_mode()
    def label(self, texts: Sequence[str], batch: int = 32) -> list[Labels]:
        """All 14 labels of each text; one of more than 512 tokens is cut there, as the model has no more positions."""
        found: list[Labels] = []
        for start in range(0, len(texts), batch):
            ids = [self._ids(text) for text in texts[start : start + batch]]
            length = max(map(len, ids))
            ids_BT = torch.tensor([[*one, *[0] * (length - len(one))] for one in ids], device=self._device)
            mask_BT = torch.tensor([[1] * len(one) + [0] * (length - len(one)) for one in ids], device=self._device)
            found += [_labels(classes) for classes in self._model(ids_BT, mask_BT).tolist()]
        return found

    def _ids(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(" ".join(text.split())).ids
        return ids if len(ids) <= _MAX_TOKENS else [*ids[: _MAX_TOKENS - 1], ids[-1]]


def _labels(classes: Sequence[int]) -> Labels:
    return no_labels() | {name: _CLASS_VALUES[value] for name, value in zip(CONDITIONS, classes, strict=True)}
