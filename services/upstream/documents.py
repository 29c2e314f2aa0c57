"""verbose_json to SubRip and WebVTT, for servers that give segments and no subtitles. Pure.

Times come in seconds and go out in milliseconds. What would end a cue early is written otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from services.body import Document

TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "text": "text/plain; charset=utf-8",
        "srt": "application/x-subrip; charset=utf-8",
        "vtt": "text/vtt; charset=utf-8",
    }
)
"""Formats that are documents, with the type that they get if the upstream's says nothing."""

_ARROW = "-->"


class Cue(NamedTuple):
    """One subtitle: milliseconds, and lines of text, none of them blank."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(verbose: Any) -> list[Cue] | None:
    """The subtitles of a verbose answer; None if it has no segments with times."""
    segments = verbose.get("segments") if isinstance(verbose, dict) else None
    if not isinstance(segments, list):
        return None
    found = []
    for segment in segments:
        if not isinstance(segment, dict):
            return None
        start, end = _milliseconds(segment.get("start")), _milliseconds(segment.get("end"))
        if start is None or end is None:
            return None
        lines = tuple(filter(None, map(str.strip, str(segment.get("text") or "").splitlines())))
        if lines:
            found.append(Cue(start, max(start, end), lines))
    if not found and str(verbose.get("text") or "").strip():
        return None
    return found


def srt(subtitles: list[Cue]) -> str:
    """SubRip: numbered cues. It has no escapes, so that an arrow in a text is shortened."""
    return "".join(
        f"{number}\n{_time(cue.start, ',')} {_ARROW} {_time(cue.end, ',')}\n"
        + "\n".join(line.replace(_ARROW, "->") for line in cue.lines)
        + "\n\n"
        for number, cue in enumerate(subtitles, 1)
    )


def vtt(subtitles: list[Cue]) -> str:
    """WebVTT, its text escaped as in HTML."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(cue.start, '.')} {_ARROW} {_time(cue.end, '.')}\n"
        + "\n".join(_escaped(line) for line in cue.lines)
        + "\n\n"
        for cue in subtitles
    )


WRITERS: Final[Mapping[str, Callable[[list[Cue]], str]]] = MappingProxyType(
    {"srt": srt, "vtt": vtt}
)
"""The formats that can be made."""


def made(format: str, verbose: Any) -> Document | None:
    """The document of a format from a verbose answer; None if that has no segments with times."""
    subtitles = cues(verbose)
    return None if subtitles is None else Document(TYPES[format], WRITERS[format](subtitles))


def _milliseconds(seconds: Any) -> int | None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    return max(0, round(seconds * 1000)) if math.isfinite(seconds) else None


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
