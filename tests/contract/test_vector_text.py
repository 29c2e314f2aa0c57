"""Answers with vectors, read without a float for each: bit for bit, the rest to the letter."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services import codec
from services.codec import vectortext
from tests.lib import canonical

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
UNKNOWN = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("index", "object", "embedding", "data")),
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.lists(st.integers(0, 9), max_size=3),
    max_size=3,
)


def packed(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.fixture(autouse=True, params=["simdjson", "without"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs as well as where there is no wheel of simdjson."""
    if request.param == "without":
        monkeypatch.setattr(vectortext, "_parser", None)


def answer(vectors: list[Any], items: list[Any] | None = None, **members: Any) -> dict[str, Any]:
    more = items or [{}] * len(vectors)
    data = [
        {"object": "embedding", "index": place, "embedding": vector, **extra}
        for place, (vector, extra) in enumerate(zip(vectors, more, strict=True))
    ]
    return {"object": "list", "data": data, "model": "m"} | members


@pytest.mark.parametrize("spaced", [False, True])
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_vectors_are_rows_and_all_else_is_as_it_came(spaced: bool, data: st.DataObject) -> None:
    """G26, G23: unknown members of the answer and of its items are kept."""
    lists = data.draw(st.lists(st.lists(FLOAT32, max_size=9), min_size=1, max_size=4))
    as_text = data.draw(st.booleans())
    given = [packed(one) for one in lists] if as_text else lists
    items = [data.draw(UNKNOWN) for _ in lists]
    body = answer(given, items, **data.draw(UNKNOWN))
    text = json.dumps(body, separators=(", ", ": ") if spaced else (",", ":")).encode()
    cut = codec.cut(text)
    assert cut is not None
    kind = codec.Packed if as_text else np.ndarray
    assert [type(vector) for vector in cut.vectors] == [kind] * len(lists)
    for vector, numbers in zip(cut.vectors, lists, strict=True):
        raw = vector.data if isinstance(vector, codec.Packed) else vector.tobytes()
        assert raw == struct.pack(f"<{len(numbers)}f", *numbers)
    printed = json.loads(cut.text())
    for one, two in zip(printed["data"], body["data"], strict=True):
        if not as_text:
            one["embedding"] = [struct.pack("<f", number) for number in one["embedding"]]
            two["embedding"] = [struct.pack("<f", number) for number in two["embedding"]]
    assert printed == body


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_the_wire_is_the_one_of_lists_of_floats(data: st.DataObject) -> None:
    """G26."""
    doubles = st.lists(st.floats(-1e38, 1e38) | st.integers(-(2**53), 2**53), max_size=9)
    lists = data.draw(st.lists(doubles, min_size=1, max_size=4))
    body = answer(lists, [data.draw(UNKNOWN) for _ in lists])
    text = json.dumps(body).encode()
    assert codec.cut(text) is not None
    kind = codec.message_class("EmbedResponse")
    found: Any = kind.FromString(codec.encode("EmbedResponse", text))
    alone = [codec.encode("Embedding", json.dumps(item).encode()) for item in body["data"]]
    assert [item.SerializeToString() for item in found.data] == alone


ODD: dict[str, Any] = {
    "no vectors": {"object": "list", "data": []},
    "a vector for each token": answer([[[0.5], [0.25]]]),
    "a vector in a list": answer([[[0.5]]]),
    "sparse": answer([[{"index": 0, "value": 0.5}]]),
    "a null in it": answer([[0.5, None]]),
    "a truth value in it": answer([[True]]),
    "text in it": answer([["a]", 1]]),
    "beyond float32": answer([[1e39]]),
    "no vector in one item": answer([[0.5], None]),
    "an item that is none": {"data": [{"embedding": [0.5]}, 5]},
    "a vector beside the data": answer([[0.5]], embedding=[0.5]),
    "data that is no list": {"data": {"embedding": [0.5]}},
    "both forms": answer([[0.5], "AAAAPw=="]),
    "not base64": answer(["no base64!"]),
    "not canonical": answer(["AB=="]),
}


@pytest.mark.parametrize("name", ODD)
def test_what_has_another_shape_is_read_the_usual_way(name: str) -> None:
    text = json.dumps(ODD[name]).encode()
    assert codec.cut(text) is None
    wire = codec.encode("EmbedResponse", text)
    canonical.assert_same(text, codec.decode("EmbedResponse", wire))


@pytest.mark.parametrize(
    "text",
    [
        b'{"data":[{"embedding":[0.5],"embedding":[0.25]}]}',
        b'{"data":[{"embedding":[0.5]}],"data":[{"embedding":[0.25]}]}',
        b'{"data":[{"embedding":[0.5]}],"data":[]}',
        b'{"data":[{"embedding":[1e400]}]}',
        b'{"data":[{"embedding":"\\u0041AAA"}]}',
        b'[{"embedding":[0.5]}]',
    ],
)
def test_what_is_said_twice_or_in_a_strange_way_is_not_cut(text: bytes) -> None:
    assert codec.cut(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"data":[{"embedding":[0.5}]}',
        b'{"data":[{"embedding":[0.5,]}]}',
        b'{"data":[{"embedding":[0.5 0.5]}]}',
        b'{"data":[{"embedding":[0.5]}',
        b'{"data":[{"embedding":[0.5',
        b'{"data":[{"embedding":"AAAA',
        b'{"data":[{"embedding":[.5]}]}',
        b'{"data":[{"embedding":[01]}]}',
        b'{"data":[{"embedding":[NaN]}]}',
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """G2: also where only a vector's own text is broken."""
    assert codec.cut(text) is None
    with pytest.raises(codec.JsonError):
        codec.encode("EmbedResponse", text)


def test_the_name_in_a_text_is_no_vector() -> None:
    notes = ['"embedding": [1]', 'x "embedding', '"embedding":"', "embedding"]
    body = answer([[0.5]], [{"note": notes, 'x "embedding': 1, "embedding ": 2}])
    cut = codec.cut(json.dumps(body).encode())
    assert cut is not None
    assert json.loads(cut.text()) == body


def test_special_numbers_survive_as_bytes() -> None:
    """G27."""
    numbers = [math.nan, math.inf, -0.0, 1e-45]
    cut = codec.cut(json.dumps(answer([packed(numbers)])).encode())
    assert cut is not None
    assert json.loads(cut.text())["data"][0]["embedding"] == packed(numbers)


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{}", b"[1]", b"[[1],[[2]]]", b"[[[1]]]", b"[[null]]", b'[["a"]]', b"[[1],{}]"],
)
def test_only_a_list_of_vectors_is_one(text: bytes) -> None:
    assert codec.cut_rows(text) is None


def test_a_bare_list_of_vectors_is_rows() -> None:
    """G26: TEI's own answer."""
    rows = codec.cut_rows(b"[[0.5,1],[2,-3e-2]]")
    assert rows is not None
    assert [np.asarray(row).tolist() for row in rows] == [
        [0.5, 1],
        [2, struct.unpack("<f", struct.pack("<f", -0.03))[0]],
    ]
