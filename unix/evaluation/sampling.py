"""Which samples of a split an evaluation takes when it does not take all (pure)."""

import hashlib
from collections.abc import Sequence


def chosen_samples(keys: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Indices of at most `limit` keys, in their order; the same whatever else the split holds as long as these stay."""
    if limit is None or limit >= len(keys):
        return list(range(len(keys)))

    def rank(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{keys[index]}".encode(), digest_size=8).digest()

    return sorted(sorted(range(len(keys)), key=rank)[:limit])
