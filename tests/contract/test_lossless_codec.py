"""Every recorded body, shared and own, through the codec alone: JSON, wire, message, JSON.

Covers G3, G10, G23: what comes back is equal under the canonical form, where nothing that the
contract does not type may change at all.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest

from services import codec
from services.body import Body, Document
from tests.lib import recordings
from tests.lib.lossless import MESSAGES, differences, free, mended, texts
from tests.lib.recordings import Recording


class Case(NamedTuple):
    name: str
    message: str
    text: bytes
    compare: dict[str, Any]


def cases(bodies: list[Recording]) -> list[Case]:
    found = []
    for one in bodies:
        message = MESSAGES.get((one.operation, one.direction))
        if message is None:
            continue
        compare = {"vectors": [""]} if message == "Vector" else dict(one.compare)
        if one.mode == "sse":
            compare.pop("nulls_required", None)  # of some events only
        for place, text in enumerate(texts(one)):
            found.append(Case(f"{one.file} {place}", message, text, compare))
    return found


SHARED, OWN = cases(recordings.all()), cases(recordings.own())
DOCUMENTS = [
    one
    for one in recordings.all(mode="text") + recordings.own(mode="text")
    if one.operation != "error"
]

# Operations that neither face offers and no message holds; `info` and `models` are recognised by
# the probe, errors have tests of their own.
WITHOUT_A_MESSAGE = {"error", "info", "score"}


def files(cases: list[Case]) -> set[str]:
    return {case.name.rpartition(" ")[0] for case in cases}


def counts(bodies: list[Recording]) -> dict[str, int]:
    return Counter(one.direction for one in bodies)


def test_every_body_goes_through_the_codec_and_none_is_left_out() -> None:
    for bodies, run, want in (
        (recordings.all(), SHARED, {"request": 45, "response": 46, "stream": 18}),
        (recordings.own(), OWN, {"request": 52, "response": 53, "stream": 35}),
    ):
        gone = files(run) | {one.file for one in bodies if one.mode == "text"}
        left = [one for one in bodies if one.file not in gone]
        assert {one.operation for one in left} <= WITHOUT_A_MESSAGE
        with_a_message = [one for one in bodies if one.operation not in WITHOUT_A_MESSAGE]
        assert counts(with_a_message) == want
    assert (len(SHARED), len(OWN)) == (165, 248)


def test_no_body_stands_there_twice() -> None:
    bodies = recordings.all() + recordings.own()
    assert len({one.bytes for one in bodies}) == len(bodies)


@pytest.mark.parametrize("case", SHARED + OWN, ids=lambda case: case.name)
def test_a_body_comes_back_from_the_codec_equal(case: Case) -> None:
    wire = codec.encode(case.message, case.text, replace_surrogates=True)
    printed = codec.decode(case.message, wire)
    want = mended(case.text)
    assert differences(want, printed, case.compare, case.message) == []


@pytest.mark.parametrize("case", SHARED + OWN, ids=lambda case: case.name)
def test_what_no_field_holds_comes_back_to_the_letter(case: Case) -> None:
    """The oracle tells where that is; null is a value there, 1.0 is not 1."""
    wire = codec.encode(case.message, case.text, replace_surrogates=True)
    places = free(case.message, case.text)
    rules = {"opaque": places, "ordered": places}
    printed = codec.decode(case.message, wire)
    assert differences(mended(case.text), printed, rules, case.message) == []


@pytest.mark.parametrize("case", SHARED + OWN, ids=lambda case: case.name)
def test_both_readers_of_the_wire_print_the_same(case: Case) -> None:
    """Of wire bytes, and of a parsed message."""
    wire = codec.encode(case.message, case.text, replace_surrogates=True)
    parsed = codec.message_class(case.message).FromString(wire)
    printed = codec.to_json(case.message, parsed)
    rules = {"opaque": [""], "vectors": [""]} if case.message == "Vector" else {"opaque": [""]}
    assert differences(printed, codec.decode(case.message, wire), rules, case.message) == []


@pytest.mark.parametrize("case", SHARED + OWN, ids=lambda case: case.name)
def test_a_second_round_changes_not_a_letter(case: Case) -> None:
    """But for the order of members of maps, which protobuf does not keep."""
    wire = codec.encode(case.message, case.text, replace_surrogates=True)
    once = codec.decode(case.message, wire)
    twice = codec.decode(case.message, codec.encode(case.message, once))
    assert differences(once, twice, {"opaque": [""], "lexical": True}, case.message) == []


@pytest.mark.parametrize("one", DOCUMENTS, ids=lambda one: one.file)
def test_a_document_comes_back_as_it_was(one: Recording) -> None:
    document = Document(*one.text_body())
    wire = Body.from_document("TranscribeResponse", document).wire()
    assert Body.from_wire("TranscribeResponse", wire).document == document
