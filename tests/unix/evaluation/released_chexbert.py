"""CheXbert as it was released, small and of random weights: DataParallel names, pooler, optimizer beside it."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "edema", "lungs", "clear", ".", "is", "##s"]


class AsReleased(nn.Module):
    """The layout of the released module, written out for the test."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config)
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, 4) for _ in range(13))
        self.linear_heads.append(nn.Linear(config.hidden_size, 2))

    def forward(self, ids: Tensor) -> list[int]:
        hidden = self.bert(ids[None]).last_hidden_state[:, 0]
        return [int(head(hidden).argmax()) for head in self.linear_heads]


def release(folder: Path) -> tuple[Path, Path, AsReleased]:
    """Write `chexbert.pth` and BERT's folder into `folder`; both, and the module itself."""
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    module = AsReleased(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    bert = folder / "bert"
    bert.mkdir()
    config.to_json_file(bert / "config.json")
    (bert / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    checkpoint = folder / "chexbert.pth"
    save(module, checkpoint)
    return checkpoint, bert, module


def save(module: nn.Module, path: Path, **extra: object) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"epoch": 3, "model_state_dict": tensors, "optimizer_state_dict": {"state": {}}, **extra}, path)
