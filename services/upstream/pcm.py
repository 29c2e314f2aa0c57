"""Raw sound: 16-bit little-endian samples of one channel, at a rate that its media type tells.

Pure. Rates are in samples a second.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from services import errors

MEDIA_TYPE: Final = "audio/pcm"
DEFAULT_RATE: Final = 16000

_SAMPLE: Final = 2
_UNKNOWN: Final = 0xFFFFFFFF
_RATES: Final = range(4000, 192_001)


def rate_of(media_type: str) -> int | None:
    """The rate of `audio/pcm; rate=24000`; None for a media type that is not raw sound.

    Raises InvalidRequest for a rate that is none, and for more than one channel.
    """
    kind, *parameters = (part.strip().lower() for part in media_type.split(";"))
    if kind != MEDIA_TYPE:
        return None
    given = dict(part.split("=", 1) for part in parameters if "=" in part)
    told = given.get("rate", str(DEFAULT_RATE))
    if not told.isdigit() or int(told) not in _RATES or given.get("channels", "1") != "1":
        problem = f"raw sound has one channel and a rate from 4000 to 192000, not {media_type!r}"
        raise errors.InvalidRequest(
            f"file.media_type: {problem}",
            param="file",
            violations=[errors.Violation("file.media_type", problem)],
        )
    return int(told)


def wav_head(rate: int) -> bytes:
    """The head of a WAV file whose length is not known yet, as recorders that stream write it."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * _SAMPLE, _SAMPLE, 16),
        *(b"data", _UNKNOWN),
    )


class Resampler:
    """Sound in pieces of any length, from one rate to another, by straight lines between samples.

    Enough for speech, which has little above what either rate can hold.
    """

    def __init__(self, rate: int, wanted: int) -> None:
        self._step = rate / wanted
        self._same = rate == wanted
        self._odd = b""
        self._last = np.zeros(0, dtype=np.int16)
        self._at = 0.0

    def feed(self, data: bytes) -> bytes:
        """What the piece completes."""
        data = self._odd + data
        whole = len(data) - len(data) % _SAMPLE
        self._odd = data[whole:]
        if self._same:
            return data[:whole]
        samples = np.concatenate([self._last, np.frombuffer(data[:whole], dtype="<i2")])
        if len(samples) < _SAMPLE:
            self._last = samples
            return b""
        places = np.arange(self._at, len(samples) - 1, self._step)
        made = np.interp(places, np.arange(len(samples)), samples)
        after = self._at + len(places) * self._step
        kept = min(int(after), len(samples) - 1)
        self._last, self._at = samples[kept:], after - kept
        return bytes(np.rint(made).astype("<i2").tobytes())
