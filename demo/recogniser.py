"""The speech recogniser as a process of its own: PocketSphinx holds the interpreter while it works.

Reads from standard input: a letter, a length (32 bits, little-endian) and that many bytes of
16 kHz 16-bit sound. Answers each with a line of JSON. Ends with its input; Ctrl-C is its parent's.
"""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
from typing import Any, Final, cast

HEADER: Final = struct.Struct("<cI")
SPLIT: Final = b"S"
DECODE: Final = b"D"

# As right as the defaults on read English, and a third faster.
_PRUNING: Final = {"maxhmmpf": 5000, "maxwpf": 20}


def spans(sound: bytes) -> list[list[float]]:
    """[start, end] in seconds of each stretch in which somebody speaks."""
    from pocketsphinx import Segmenter

    found = Segmenter().segment(io.BytesIO(sound))
    return [[one.start_time, one.end_time] for one in found]


def words(decoder: Any, sound: bytes) -> list[list[Any]]:
    """[word, start, end, probability] of one stretch; times in seconds from its start."""
    decoder.start_utt()
    # The whole stretch at once: its loudness is then judged by all of it, and by nothing before.
    decoder.process_raw(sound, False, True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    rate = decoder.config["frate"]
    return [
        [one.word, one.start_frame / rate, (one.end_frame + 1) / rate, one.prob]
        for one in decoder.seg()
    ]


def main() -> None:
    """Loads the model, says so, and answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL", **cast("dict[str, Any]", _PRUNING))
    _say({"ready": True})
    while header := sys.stdin.buffer.read(HEADER.size):
        kind, size = HEADER.unpack(header)
        sound = sys.stdin.buffer.read(size)
        if len(sound) < size:
            return
        _say(spans(sound) if kind == SPLIT else words(decoder, sound))


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
