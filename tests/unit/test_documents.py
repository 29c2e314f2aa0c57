"""Subtitles made from verbose answers: time stamps, what would end a cue early, what has none."""

from __future__ import annotations

from typing import Any

import pytest

from services.upstream.documents import Cue, cues, made, srt, vtt
from tests.lib import recordings

VERBOSE = {
    "text": " Quay four. R&D <b> --> on.",
    "segments": [
        {"start": 0, "end": 2.5, "text": " Quay four."},
        {"start": 3599.9996, "end": 36000.0014, "text": "R&D <b> --> on.\n\n second "},
    ],
}


def test_subrip_has_numbers_commas_and_hours() -> None:
    """G33."""
    document = made("srt", VERBOSE)
    assert document is not None
    assert document.media_type == "application/x-subrip; charset=utf-8"
    assert document.text == (
        "1\n00:00:00,000 --> 00:00:02,500\nQuay four.\n\n"
        "2\n01:00:00,000 --> 10:00:00,001\nR&D <b> -> on.\nsecond\n\n"
    )


def test_webvtt_has_a_head_points_and_escapes() -> None:
    """G33."""
    document = made("vtt", VERBOSE)
    assert document is not None
    assert document.media_type == "text/vtt; charset=utf-8"
    assert document.text == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nQuay four.\n\n"
        "01:00:00.000 --> 10:00:00.001\nR&amp;D &lt;b&gt; --&gt; on.\nsecond\n\n"
    )


@pytest.mark.parametrize(
    ("segment", "cue"),
    [
        ({"start": -0.02, "end": 1, "text": "a"}, Cue(0, 1000, ("a",))),
        ({"start": 2.0, "end": 1.0, "text": "a"}, Cue(2000, 2000, ("a",))),
        ({"start": 0.0, "end": 0.9999, "text": "a\r\nb"}, Cue(0, 1000, ("a", "b"))),
        ({"start": 59.9996, "end": 60.0, "text": "a"}, Cue(60000, 60000, ("a",))),
    ],
)
def test_odd_times_and_lines_become_cues_that_players_take(segment: Any, cue: Cue) -> None:
    assert cues({"segments": [segment]}) == [cue]


@pytest.mark.parametrize(
    "verbose",
    [
        {"text": "Quay four."},
        {"text": "Quay four.", "segments": None},
        {"text": "Quay four.", "segments": []},
        {"text": "Quay four.", "segments": [{"text": "Quay four."}]},
        {"text": "Quay four.", "segments": [{"start": 0, "end": None, "text": "Quay four."}]},
        {"text": "Quay four.", "segments": [{"start": float("nan"), "end": 1, "text": "a"}]},
        {"text": "Quay four.", "segments": [{"start": True, "end": 1, "text": "a"}]},
        {"text": "Quay four.", "segments": ["Quay four."]},
        "Quay four.",
    ],
)
def test_without_times_there_are_no_subtitles(verbose: Any) -> None:
    assert made("srt", verbose) is None


def test_silence_has_subtitles_without_cues() -> None:
    silent = {"text": "", "segments": [{"start": 0, "end": 1, "text": " \n"}]}
    assert srt(cues(silent) or []) == ""
    assert vtt(cues(silent) or []) == "WEBVTT\n\n"
    assert cues(silent) == []


@pytest.mark.parametrize("server", ["openai", "speaches"])
def test_recorded_verbose_answers_have_subtitles(server: str) -> None:
    """G33."""
    verbose = recordings.get(f"transcriptions/{server}-verbose-response.json").json()
    document = made("srt", verbose)
    assert document is not None
    assert document.text.startswith("1\n00:00:00,000 --> ")
    assert document.text.count(" --> ") == len(verbose["segments"])
