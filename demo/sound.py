"""WAV files to what the recogniser hears: 16 kHz, one channel, 16 bits.

Reads RIFF itself: the standard library's reader knows neither floats nor 24 bits as most
programs write them. Pure functions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 16_000
MAX_SECONDS: Final = 1800

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RATES: Final = range(4_000, 192_001)
_TAPS: Final = 63

Samples = NDArray[np.float32]


class SoundError(ValueError):
    """The bytes are no sound that can be read; the text says why, for the caller."""


@dataclass(frozen=True, slots=True)
class _Format:
    tag: int
    channels: int
    rate: int
    bits: int


def to_pcm(data: bytes) -> bytes:
    """A WAV file as 16-bit little-endian samples at 16 kHz. Raises SoundError."""
    form, samples = _read(data)
    heard = _resample(samples, form.rate)
    scaled = np.minimum(np.clip(heard, -1.0, 1.0) * 32768.0, 32767.0)
    return bytes(scaled.astype("<i2"))


def _read(data: bytes) -> tuple[_Format, Samples]:
    if not data:
        raise SoundError("The file is empty.")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise SoundError(
            "The file is not WAV, which is all that this model reads. "
            "Convert it first: `ffmpeg -i FILE -ar 16000 -ac 1 sound.wav`."
        )
    form: _Format | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"fmt ":
            form = _format(data[at : at + size])
        elif name == b"data":
            if form is None:
                raise SoundError("The WAV file tells no format before its samples.")
            # A writer that did not know the length ahead left a size that is 0 or too large.
            end = at + size if 0 < size <= len(data) - at else len(data)
            return form, _samples(memoryview(data)[at:end], form)
        at += size + size % 2
    raise SoundError("The WAV file has no samples.")


def _format(chunk: bytes) -> _Format:
    if len(chunk) < 16:
        raise SoundError("The WAV file's format is cut off.")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = int.from_bytes(chunk[24:26], "little")
    known = bits in (8, 16, 24, 32) if tag == _PCM else (tag == _FLOAT and bits in (32, 64))
    if not known:
        raise SoundError(
            f"The WAV file holds samples of kind {tag} with {bits} bits; whole numbers of 8, 16, "
            "24 or 32 bits and floats of 32 or 64 can be read."
        )
    if rate not in _RATES or channels == 0:
        raise SoundError(
            f"The WAV file has {channels} channels at {rate} Hz; at least one channel and "
            f"{_RATES.start} to {_RATES.stop - 1} Hz can be read."
        )
    return _Format(tag, channels, rate, bits)


def _samples(data: memoryview, form: _Format) -> Samples:
    """The mean of the channels, from -1 to 1."""
    width = form.bits // 8
    frames = len(data) // (width * form.channels)
    if frames > MAX_SECONDS * form.rate:
        raise SoundError(f"The sound is longer than {MAX_SECONDS // 60} minutes.")
    if not frames:
        raise SoundError("The WAV file has no samples.")
    raw = data[: frames * width * form.channels]
    numbers = _numbers(raw, form).reshape(frames, form.channels)
    mixed: Samples = numbers.mean(axis=1, dtype=np.float32)
    return np.nan_to_num(mixed, copy=False)


def _numbers(raw: memoryview, form: _Format) -> Samples:
    if form.tag == _FLOAT:
        return np.frombuffer(raw, f"<f{form.bits // 8}").astype(np.float32)
    match form.bits:
        case 8:
            return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) / 128.0
        case 24:
            # The upper three bytes of 32-bit numbers.
            wide = np.zeros((len(raw) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
            return wide.view("<i4").ravel().astype(np.float32) / 2.0**31
    scale = np.float32(2.0 ** (form.bits - 1))
    return np.frombuffer(raw, f"<i{form.bits // 8}").astype(np.float32) / scale


def _resample(samples: Samples, rate: int) -> Samples:
    """At 16 kHz, by straight lines between samples, without what would fold over."""
    if rate == RATE:
        return samples
    if rate > RATE:
        samples = _low_pass(samples, RATE / rate)
    count = max(1, samples.size * RATE // rate)
    at = np.arange(count) * (rate / RATE)
    moved = np.interp(at, np.arange(samples.size), samples).astype(np.float32)
    return moved if rate > RATE else _low_pass(moved, rate / RATE)


def _low_pass(samples: Samples, share: float) -> Samples:
    """Keeps the lower share (0 to 1) of the frequencies: a windowed sinc."""
    at = np.arange(_TAPS) - _TAPS // 2
    kernel = np.sinc(at * share * 0.95) * np.hamming(_TAPS)
    smoothed = np.convolve(samples, (kernel / kernel.sum()).astype(np.float32), mode="same")
    # NumPy lets the longer of the two decide the length.
    start = (smoothed.size - samples.size) // 2
    return smoothed[start : start + samples.size].astype(np.float32)
