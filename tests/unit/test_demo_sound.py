"""WAV files of every common form become the same sound at 16 kHz."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import demo
from demo.sound import RATE, SoundError, to_pcm

SAMPLE = (Path(demo.__file__).parent / "sample.wav").read_bytes()
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE

Signal = NDArray[np.float64]


def tone(rate: int, hertz: float = 440.0, seconds: float = 0.5) -> Signal:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def encoded(signal: Signal, bits: int, tag: int) -> bytes:
    if tag == FLOAT:
        return bytes(signal.astype(f"<f{bits // 8}"))
    if bits == 8:
        return (signal * 127 + 128).astype(np.uint8).tobytes()
    whole = (signal * (2 ** (bits - 1) - 1)).astype("<i4")
    raw = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8]
    return bytes(raw)


def wav(
    signal: Signal,
    rate: int,
    bits: int = 16,
    channels: int = 1,
    tag: int = PCM,
    *,
    extensible: bool = False,
    size: int | None = None,
) -> bytes:
    data = encoded(np.repeat(signal, channels), bits, tag)
    width = bits // 8 * channels
    form = struct.pack(
        "<HHIIHH", EXTENSIBLE if extensible else tag, channels, rate, rate * width, width, bits
    )
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0"  # of odd length, so padded
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def heard(data: bytes) -> Signal:
    return np.frombuffer(to_pcm(data), "<i2") / 32767


def assert_same(data: bytes, hertz: float = 440.0) -> None:
    """It is the tone, but for the edges, where the filter begins and ends."""
    got = heard(data)
    assert abs(len(got) - RATE // 2) <= 1
    inner = slice(200, min(len(got), RATE // 2) - 200)
    assert np.abs(got[inner] - tone(RATE, hertz)[inner]).max() < 0.02


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_rates_are_brought_to_16_khz(rate: int) -> None:
    assert_same(wav(tone(rate), rate))


@pytest.mark.parametrize(
    ("bits", "tag"), [(8, PCM), (16, PCM), (24, PCM), (32, PCM), (32, FLOAT), (64, FLOAT)]
)
@pytest.mark.parametrize("extensible", [False, True])
def test_samples_of_every_width_are_read(bits: int, tag: int, extensible: bool) -> None:
    assert_same(wav(tone(RATE), RATE, bits, tag=tag, extensible=extensible))


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_mixed(channels: int) -> None:
    assert_same(wav(tone(RATE), RATE, channels=channels))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_length_that_the_writer_did_not_know_reaches_to_the_end(size: int) -> None:
    assert_same(wav(tone(RATE), RATE, size=size))


def test_what_would_fold_over_is_filtered_out() -> None:
    high = heard(wav(tone(48000, 13_000.0), 48000))
    assert np.abs(high[200:-200]).max() < 0.02


def test_loud_floats_are_clipped_and_no_numbers_are_silence() -> None:
    odd = np.array([3.0, -3.0, np.nan, np.inf] * 4)
    got = heard(wav(odd, RATE, 32, tag=FLOAT))
    assert got.tolist() == pytest.approx([1.0, -1.0, 0.0, 1.0] * 4, abs=1e-4)


def test_the_sample_sound_is_small_and_already_as_it_should_be() -> None:
    assert len(SAMPLE) < 200_000
    assert to_pcm(SAMPLE) == SAMPLE[44:]


SHORT = tone(RATE)[:8]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"ID3\x04" + bytes(400), "not WAV"),
        (b"RIFF\x00\x00\x00\x00WAVE", "no samples"),
        (wav(SHORT[:0], RATE), "no samples"),
        (b"RIFF\x00\x00\x00\x00WAVEdata\x02\x00\x00\x00ab", "no format"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x04\x00\x00\x00abcd", "cut off"),
        (wav(SHORT, RATE, tag=7), "kind 7"),
        (wav(SHORT, 1), "1 Hz"),
        (wav(SHORT, 10**6), "1000000 Hz"),
        (wav(np.zeros(1801 * 4000), 4000, 8), "30 minutes"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(SoundError, match=why):
        to_pcm(data)


def test_any_cut_of_a_file_is_read_or_refused() -> None:
    whole = wav(SHORT, RATE, 24, 2, extensible=True)
    outcomes: set[Any] = set()
    for length in range(len(whole)):
        try:
            to_pcm(whole[:length])
            outcomes.add("read")
        except SoundError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
