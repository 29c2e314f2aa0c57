"""services/models.py: what callers learn of models."""

from __future__ import annotations

from typing import Any

import pytest

from services import codec, errors
from services.auth import ANONYMOUS, Principal
from services.body import Body
from services.call import Call
from services.models import ModelService, describe
from services.routing.table import Route, RoutedModel, Router, Table

CHAT, EMBED, SPEECH = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
)


def model(name: str, type: str = CHAT, **more: Any) -> RoutedModel:
    return RoutedModel(name, type, [Route("r", object(), ready=True)], **more)


def service(*models: RoutedModel) -> ModelService:
    nobody: Any = None
    return ModelService(Router(Table(models), nobody))


def a_call(principal: Principal = ANONYMOUS) -> Call:
    return Call("req-1", "ListModels", "grpc", principal=principal)


async def listed(this: ModelService, principal: Principal = ANONYMOUS, **asked: Any) -> Any:
    request = Body.from_value("ListModelsRequest", asked)
    return (await this.list_models(request, a_call(principal))).value()


def names(answer: Any) -> list[str]:
    return [each["id"] for each in answer["data"]]


FIVE = service(*[model(name) for name in ("d", "a", "é/x", "b", "org/c")])


async def test_all_models_are_listed_by_name() -> None:
    answer = await listed(FIVE)
    assert names(answer) == ["a", "b", "d", "org/c", "é/x"]
    assert answer["object"] == "list"
    assert "next_page_token" not in answer


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
async def test_pages_hold_all_models_once(size: int) -> None:
    seen: list[str] = []
    token = ""
    while True:
        answer = await listed(FIVE, page_size=size, page_token=token)
        assert len(answer["data"]) <= size
        seen += names(answer)
        token = answer.get("next_page_token", "")
        if not token:
            break
    assert seen == ["a", "b", "d", "org/c", "é/x"]


async def test_a_page_that_ends_with_the_last_model_has_no_successor() -> None:
    assert "next_page_token" not in await listed(FIVE, page_size=5)
    assert "next_page_token" not in await listed(FIVE, page_size=0)


async def test_a_token_holds_when_its_model_is_gone() -> None:
    token = (await listed(FIVE, page_size=2))["next_page_token"]
    assert names(await listed(service(model("a"), model("c")), page_token=token)) == ["c"]


@pytest.mark.parametrize("token", ["!", "a", "é", "_w==", "YQ", 5, ["YQ=="]])
async def test_a_token_that_is_none_of_ours_is_refused(token: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await listed(FIVE, page_token=token)
    assert caught.value.param == "page_token"


@pytest.mark.parametrize("size", [-1, "2", 1.5, [], True])
async def test_a_page_size_that_is_no_count_is_refused(size: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await listed(FIVE, page_size=size)
    assert caught.value.param == "page_size"


async def test_a_caller_sees_the_models_that_its_key_may_use() -> None:
    this = service(model("a"), model("b", aliases=("z",)), model("c"))
    ada = Principal("ada", frozenset({"z", "c"}))
    assert names(await listed(this, ada)) == ["b", "c"]
    assert names(await listed(this, ada, page_size=1)) == ["b"]
    assert names(await listed(this, Principal("nobody", frozenset()))) == []


async def test_one_model_is_told_by_name_or_alias() -> None:
    this = service(model("org/a", aliases=("chat",)))
    for name in ("org/a", "chat"):
        call = a_call()
        answer = await this.get_model(Body.from_value("GetModelRequest", {"model": name}), call)
        assert answer.value()["model"]["id"] == "org/a"
        assert call.out == {"x-tetrad-model": "org/a"}
        assert call.model == "org/a"


async def test_an_unknown_or_forbidden_model_is_told_apart() -> None:
    this = service(model("a"), model("b"))
    ada = a_call(Principal("ada", frozenset({"a"})))
    for name, kind in [("x", errors.ModelNotFound), ("b", errors.ModelForbidden)]:
        with pytest.raises(kind):
            await this.get_model(Body.from_value("GetModelRequest", {"model": name}), ada)


def test_a_model_is_described_with_all_that_is_known() -> None:
    full = model(
        "m",
        EMBED,
        aliases=("x", "y"),
        owned_by="me",
        created=5,
        cost_prompt_tokens=0.5,
        max_context_length=512,
        dimension=384,
        max_batch=32,
    )
    limits = {"rpm": 0, "rpd": None, "max_batch": 32, "max_upload_bytes": None}
    assert describe(full, limits) == {
        "id": "m",
        "object": "model",
        "created": 5,
        "owned_by": "me",
        "type": EMBED,
        "aliases": ["x", "y"],
        "capabilities": ["embed", "bulk_embed"],
        "max_context_length": 512,
        "dimension": 384,
        "costs": {"prompt_tokens": 0.5, "completion_tokens": 0.0},
        "ready": True,
        "limits": {"rpm": 0, "max_batch": 32},
    }


@pytest.mark.parametrize("type", [CHAT, EMBED, SPEECH, "text-classification"])
def test_a_description_fits_the_message_wholly(type: str) -> None:
    """gRPC callers find everything in fields, nothing in `extra`."""
    for this in (model("m", type), model("m", type, aliases=("x",), dimension=3)):
        limits = {"rpm": 1, "rpd": 2, "tpm": 3, "tpd": 6, "max_batch": 4, "max_upload_bytes": 5}
        wire = codec.encode_value("Model", describe(this, limits))
        parsed: Any = codec.message_class("Model").FromString(wire)
        assert not parsed.HasField("extra")
        assert not parsed.limits.HasField("extra")
        assert parsed.limits.max_upload_bytes == 5
        assert list(parsed.aliases) == list(this.aliases)
        assert parsed.capabilities


def test_live_transcription_tells_that_deltas_come_at_the_end() -> None:
    assert "live_transcribe.final_only" in describe(model("m", SPEECH), {})["capabilities"]


async def test_a_caller_sees_what_bounds_its_own_requests() -> None:
    """The key's rates everywhere, the largest upload where there are uploads."""
    rates: dict[str, dict[str, int | None]] = {"ada": {"rpm": 60, "rpd": 0, "tpm": None}}
    nobody: Any = None
    table = Table([model("a", EMBED, max_batch=32), model("b", SPEECH), model("c")])
    this = ModelService(
        Router(table, nobody), rates=lambda one: rates.get(one.name, {}), max_upload_bytes=1000
    )
    ada = (await listed(this, Principal("ada")))["data"]
    assert [each["limits"] for each in ada] == [
        {"rpm": 60, "rpd": 0, "max_batch": 32},
        {"rpm": 60, "rpd": 0, "max_upload_bytes": 1000},
        {"rpm": 60, "rpd": 0},
    ]
    other = (await listed(this, Principal("bob")))["data"]
    assert [each.get("limits") for each in other] == [
        {"max_batch": 32},
        {"max_upload_bytes": 1000},
        None,
    ]
    request = Body.from_value("GetModelRequest", {"model": "b"})
    one = (await this.get_model(request, a_call(Principal("ada")))).value()
    assert one["model"]["limits"] == ada[1]["limits"]


async def test_a_page_is_filtered_before_it_is_cut() -> None:
    """A key that may use the last of many models finds it on its first page."""
    this = service(*[model(f"m{number}") for number in range(9)])
    ada = Principal("ada", frozenset({"m8", "m3"}))
    first = await listed(this, ada, page_size=1)
    assert names(first) == ["m3"]
    second = await listed(this, ada, page_size=1, page_token=first["next_page_token"])
    assert names(second) == ["m8"]
    assert "next_page_token" not in second


async def test_readiness_is_that_of_the_moment() -> None:
    one = model("a")
    this = service(one)
    for ready in (True, False, True):
        one.routes[0].ready = ready
        assert (await listed(this))["data"][0]["ready"] is ready
