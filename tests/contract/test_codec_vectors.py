"""Vectors: every form there is, bit for bit as float32."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tetrad.v1 import embed_service_pb2

from services import codec
from services.codec import CodecError

Vector = embed_service_pb2.Vector


def encoded(value: Any) -> Vector:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Vector.FromString(codec.encode("Vector", text))


def shown(vector: Vector) -> bytes:
    return codec.decode("Vector", vector.SerializeToString())


def float32(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_floats_come_back_bit_for_bit(numbers: list[float]) -> None:
    """G27."""
    vector = encoded(numbers)
    assert vector.WhichOneof("values") == "floats"
    assert float32(list(vector.floats.values)) == float32(numbers)
    assert float32(json.loads(shown(vector))) == float32(numbers)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=20))
def test_doubles_are_rounded_to_float32_once(numbers: list[float]) -> None:
    assert float32(json.loads(shown(encoded(numbers)))) == float32(numbers)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=40))
def test_base64_comes_back_as_it_was(data: bytes) -> None:
    """G27: any bytes, float32 or not."""
    text = base64.b64encode(data).decode()
    vector = encoded(text)
    assert vector.packed.data == data
    assert json.loads(shown(vector)) == text


def test_special_numbers_survive_in_base64() -> None:
    numbers = [float("nan"), float("inf"), -0.0, 1e-45, 3.4028234663852886e38]
    text = base64.b64encode(float32(numbers)).decode()
    assert json.loads(shown(encoded(text))) == text


@pytest.mark.parametrize(
    "text", ["AA", "AA=", "AA==\n", " AAAA", "AB==", "AAB=", "A-_A", "AAAA====", "é", "AA==AA=="]
)
def test_what_is_not_canonical_base64_stays_a_string(text: str) -> None:
    vector = encoded(text)
    assert vector.WhichOneof("values") == "other"
    assert json.loads(shown(vector)) == text


def test_empty_forms_differ() -> None:
    assert encoded([]).WhichOneof("values") == "floats"
    assert encoded("").WhichOneof("values") == "packed"
    assert shown(encoded([])) == b"[]"
    assert shown(encoded("")) == b'""'


def test_integers_in_a_list_are_numbers() -> None:
    """int8 embeddings come so."""
    vector = encoded([-128, 0, 127, 255])
    assert list(vector.floats.values) == [-128, 0, 127, 255]
    assert json.loads(shown(vector)) == [-128, 0, 127, 255]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1), st.floats(width=32, allow_nan=False, allow_infinity=False)
        ),
        min_size=1,
        max_size=10,
    )
)
def test_sparse_vectors_come_back_bit_for_bit(pairs: list[tuple[int, float]]) -> None:
    vector = encoded([{"index": index, "value": value} for index, value in pairs])
    assert list(vector.sparse.indices) == [index for index, _ in pairs]
    printed = json.loads(shown(vector))
    assert [each["index"] for each in printed] == [index for index, _ in pairs]
    assert float32([each["value"] for each in printed]) == float32([value for _, value in pairs])


@pytest.mark.parametrize(
    "value",
    [
        [1, True],
        [1, None],
        [1, "2"],
        [[1.0]],
        [1e39],
        [-1e39],
        [{"index": 0, "value": 1, "x": 0}],
        [{"index": 0}],
        [{"index": -1, "value": 1}],
        [{"index": 2**32, "value": 1}],
        [{"index": 0.0, "value": 1}],
        [{"index": 0, "value": None}],
        [{"index": 0, "value": 1e39}],
        [{"index": 0, "value": 1}, 5],
        {"int8": [1, 2]},
        5,
        True,
    ],
)
def test_any_other_json_is_kept_as_text(value: Any) -> None:
    vector = encoded(value)
    assert vector.WhichOneof("values") == "other"
    assert json.loads(shown(vector)) == value


@pytest.mark.parametrize("text", [b"[1e400]", b"[0.5,-1e400]", b'[{"index":1,"value":1e400}]'])
def test_a_number_past_the_doubles_is_kept_as_text(text: bytes) -> None:
    vector = encoded(text)
    assert vector.WhichOneof("values") == "other"
    assert shown(vector) == text


def test_a_big_integer_is_rounded_to_float32() -> None:
    printed = json.loads(shown(encoded(b"[1180591620717411303425,1]")))
    assert float32(printed) == float32([1180591620717411303425, 1])


def test_a_vector_of_indices_without_as_many_values_is_refused() -> None:
    vector = Vector(sparse={"indices": [1, 2], "values": [0.5]})
    with pytest.raises(CodecError, match="sparse: indices and values differ in number"):
        shown(vector)


def test_a_list_of_floats_is_written_packed() -> None:
    """G26: four bytes a number, as every language decodes natively."""
    numbers = [0.5] * 1536
    wire = codec.encode("Vector", json.dumps(numbers).encode())
    assert len(wire) == 4 * 1536 + 6
    assert wire == Vector(floats={"values": numbers}).SerializeToString()


def test_vectors_stand_in_an_answer() -> None:
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": "AAAAPw=="},
            {"object": "embedding", "index": 2, "embedding": None},
            {"object": "embedding", "index": 3, "embedding": {"odd": [0.1]}},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    text = json.dumps(body).encode()
    printed = json.loads(codec.decode("EmbedResponse", codec.encode("EmbedResponse", text)))
    body["data"][2].pop("embedding")  # type: ignore[attr-defined, index]
    assert printed == body
