"""Text to token ids and back: a byte-level BPE trained here, or the tokenizer file of released weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from unix.errors import ConfigError, WeightsError

FILE_NAME = "tokenizer.json"


@dataclass(frozen=True)
class SpecialTokens:
    """The four tokens of PARITY section 4: begin and end of a text, begin and end of an image."""

    bos: str
    eos: str
    boi: str
    eoi: str

    def names(self) -> tuple[str, str, str, str]:
        """The four in the order bos, eos, boi, eoi."""
        return (self.bos, self.eos, self.boi, self.eoi)


OWN_SPECIAL_TOKENS = SpecialTokens("<bos>", "<eos>", "<begin_of_image>", "<end_of_image>")
JANUS_SPECIAL_TOKENS = SpecialTokens(
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<begin_of_image>",
    "<end_of_image>",
)


class Tokenizer:
    """Encodes text without adding special tokens; the packer places those itself."""

    def __init__(self, backend: tokenizers.Tokenizer, special: SpecialTokens) -> None:
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        ids = {name: backend.token_to_id(name) for name in special.names()}
        missing = [name for name, number in ids.items() if number is None]
        if missing:
            raise WeightsError(
                f"the tokenizer lacks the special tokens {missing}; take the file that the weights came with"
            )
        self.bos, self.eos, self.boi, self.eoi = (number for number in ids.values() if number is not None)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "Tokenizer":
        """A byte-level BPE over `texts` with the four special tokens as ids 0 to 3; the same texts give the same file.

        Raises:
            ConfigError: `vocabulary_size` does not hold the bytes and the special tokens.
        """
        smallest = 256 + len(OWN_SPECIAL_TOKENS.names())
        if vocabulary_size < smallest:
            raise ConfigError(
                f"vocabulary_size {vocabulary_size} is below {smallest}, the bytes and special tokens alone"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=list(OWN_SPECIAL_TOKENS.names()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend, OWN_SPECIAL_TOKENS)

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read `tokenizer.json` in `folder`: one of ours, or Janus-Pro's.

        Raises:
            WeightsError: the file is missing, unreadable, or has neither set of special tokens.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise WeightsError(f"no tokenizer at {path}")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception for malformed JSON
            raise WeightsError(f"{path} is not a tokenizer file: {error}") from error
        ours = all(backend.token_to_id(name) is not None for name in OWN_SPECIAL_TOKENS.names())
        return cls(backend, OWN_SPECIAL_TOKENS if ours else JANUS_SPECIAL_TOKENS)

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into `folder` and return its path."""
        path = Path(folder) / FILE_NAME
        path.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        return path

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, no special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special tokens."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens are left out."""
        return self._backend.decode(list(ids), skip_special_tokens=True).strip()
