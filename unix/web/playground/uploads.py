"""Pictures that people bring: decoded in a bounded process, kept in memory for their session, never on disk.

Of an uploaded file nothing survives but a small square of grey values: no name, no bytes, no meta data.
"""

import secrets
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from unix.data.images import Pixels
from unix.errors import ConfigError
from unix.web.playground.upload_decoder import REFUSED, SIDE

MOST_BYTES = 32 << 20
"""Of one file: an uncompressed 16-bit radiograph of 3,000 x 2,500 pixels takes 15 MB."""
_MOST_KEPT = 100
_SECONDS_KEPT = 3600.0
_SECONDS_TO_DECODE = 9.0
_AT_ONCE = 2
_REFUSALS = {
    "unreadable_image": "This is no JPEG, PNG or DICOM radiograph that can be read: export it as one of these.",
    "truncated_image": "The file ends before its picture does: copy or download it again.",
    "image_too_large": "The picture claims to be larger than any radiograph: reduce it below 20 million pixels.",
}
_GAVE_UP = "Decoding this file took too much memory or time, so it was stopped: save the picture again as PNG."


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture of one session."""

    session: str
    pixels: Pixels
    """uint8 [SIDE, SIDE]."""
    kept_until: float


def decode_upload(data: bytes) -> Pixels:
    """A file's picture as a square, uint8 [SIDE, SIDE], aspect ratio kept.

    Raises:
        ConfigError: why the file is refused, as a sentence for whoever sent it.
    """
    if not data:
        raise ConfigError("The file is empty.")
    if len(data) > MOST_BYTES:
        raise ConfigError(f"The file is larger than {MOST_BYTES >> 20} MB: reduce the picture.")
    command = [sys.executable, "-m", "unix.web.playground.upload_decoder"]
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=_SECONDS_TO_DECODE, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(_GAVE_UP) from error
    if done.returncode == REFUSED:
        raise ConfigError(_REFUSALS.get(done.stdout.decode("ascii", "replace"), _REFUSALS["unreadable_image"]))
    if done.returncode != 0 or len(done.stdout) != SIDE * SIDE:
        raise ConfigError(_GAVE_UP)
    return np.frombuffer(done.stdout, np.uint8).reshape(SIDE, SIDE)


class Uploads:
    """The pictures that are here now, by id; each is seen by its own session alone and forgotten after an hour."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_AT_ONCE)

    def add(self, session: str, data: bytes) -> str:
        """Decode and keep a file; its id.

        Raises:
            ConfigError: the file is refused, or others are being decoded.
        """
        if not self._decoding.acquire(timeout=_SECONDS_TO_DECODE):
            raise ConfigError("Others are uploading just now: try again in a moment.")
        try:
            pixels = decode_upload(data)
        finally:
            self._decoding.release()
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._drop_old()
            self._kept[name] = Upload(session, pixels, time.monotonic() + _SECONDS_KEPT)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return name

    def get(self, session: str, name: str) -> Pixels | None:
        """The picture, or None where this session has none of that name (any more)."""
        with self._lock:
            self._drop_old()
            upload = self._kept.get(name)
        return upload.pixels if upload is not None and upload.session == session else None

    def forget(self, session: str) -> None:
        """Drop everything that a session brought."""
        with self._lock:
            self._kept = OrderedDict((name, one) for name, one in self._kept.items() if one.session != session)

    def _drop_old(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values())).kept_until < now:
            self._kept.popitem(last=False)
