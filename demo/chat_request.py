"""A chat request as the rules see it: OpenAI's members checked and put into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from demo import catalogue, wire
from demo.catalogue import CHAT
from demo.eliza import Turn
from demo.wire import ApiError

_MOST_CHOICES: Final = 128
_MOST_STOPS: Final = 16
_MOST_MESSAGES: Final = 100_000
_SEEDS: Final = 2**64

Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted. `limit` counts words, 0 is none; `called` is the tool to call, if any;
    `schema` is what the answer has to fit if it is to be JSON ({} is any object).
    """

    turns: tuple[Turn, ...]
    choices: int
    limit: int
    stops: tuple[str, ...]
    seed: int
    stream: bool
    include_usage: bool
    called: Tool | None
    schema: dict[str, Any] | None

    @property
    def heard(self) -> str:
        """What the user said last."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")


def read(body: Mapping[str, Any]) -> Asked:
    """Checks a request's body; raises ApiError."""
    catalogue.check(body.get("model"), CHAT)
    turns = _turns(body.get("messages"))
    options = _object(body.get("stream_options"), "stream_options")
    modalities = body.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise ApiError("The model writes text only.", param="modalities")
    limits = [
        wire.integer(body, name, 1)
        for name in ("max_completion_tokens", "max_tokens")
        if body.get(name) is not None
    ]
    return Asked(
        turns=turns,
        choices=wire.integer(body, "n", 1, _MOST_CHOICES, default=1),
        limit=min(limits, default=0),
        stops=_stops(body.get("stop")),
        seed=wire.integer(body, "seed", -_SEEDS, _SEEDS),
        stream=wire.boolean(body, "stream"),
        include_usage=wire.boolean(options, "include_usage"),
        called=_called(body, turns),
        schema=_schema(body.get("response_format")),
    )


def _object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(f"`{name}` must be an object.", param=name)
    return value


def _turns(messages: object) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not messages:
        raise ApiError("`messages` must be a list, not an empty one.", param="messages")
    if len(messages) > _MOST_MESSAGES:
        raise ApiError(f"There are more than {_MOST_MESSAGES} messages.", param="messages")
    return tuple(_turn(message, f"messages[{i}]") for i, message in enumerate(messages))


def _turn(message: object, name: str) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError(f"`{name}` must be an object with a `role`.", param=name)
    role, content = message["role"], message.get("content")
    match content:
        case str():
            return Turn(role, content)
        case None if role in ("assistant", "function"):
            return Turn(role, "")
        case list():
            return _of_parts(role, content, f"{name}.content")
    raise ApiError(f"`{name}.content` must be a text or a list of parts.", param=f"{name}.content")


def _of_parts(role: str, parts: list[Any], name: str) -> Turn:
    texts: list[str] = []
    other = False
    for index, part in enumerate(parts):
        match part:
            case str():
                texts.append(part)
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)} if kind != "text":
                other = True
            case _:
                where = f"{name}[{index}]"
                raise ApiError(f"`{where}` must be an object with a `type`.", param=where)
    return Turn(role, "\n".join(texts), other)


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if (
        not isinstance(stops, list)
        or len(stops) > _MOST_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise ApiError(
            f"`stop` must be a text or a list of at most {_MOST_STOPS}, none of them empty.",
            param="stop",
        )
    return tuple(stops)


def _schema(value: object) -> dict[str, Any] | None:
    told = _object(value, "response_format")
    match told.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return {}
        case "json_schema":
            match told.get("json_schema"):
                case {"schema": dict(schema)}:
                    return schema
            raise ApiError(
                "`response_format.json_schema.schema` must be an object.",
                param="response_format.json_schema.schema",
            )
    raise ApiError(
        "`response_format.type` can be text, json_object or json_schema.",
        param="response_format.type",
    )


# Which tool is to be called.


def _called(body: Mapping[str, Any], turns: tuple[Turn, ...]) -> Tool | None:
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(_name(tool), str) for tool in tools):
        raise ApiError("`tools` must be a list of tools, each with a name.", param="tools")
    choice = body.get("tool_choice") or "auto"
    heard = next((turn.text for turn in reversed(turns) if turn.role == "user"), "").lower()
    match choice:
        case "none":
            return None
        case "auto":
            return _mentioned(tools, heard) if turns[-1].role == "user" else None
        case "required" | "any":
            return _nearest(tools, heard)
        case {"type": "function" | "custom"} if isinstance(_name(choice), str):
            return _named(tools, _name(choice))
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(allowed), **rest}}:
            names = [_name(one) for one in allowed]
            kept = [tool for tool in tools if _name(tool) in names]
            return _nearest(kept, heard) if rest.get("mode") == "required" else None
    raise ApiError(
        '`tool_choice` can be "none", "auto", "required", or name a tool.', param="tool_choice"
    )


def _name(tool: object) -> Any:
    match tool:
        case {"type": "custom", "custom": {"name": name}}:
            return name
        case {"function": {"name": name}}:
            return name
    return None


def _named(tools: list[Tool], name: str) -> Tool:
    for tool in tools:
        if _name(tool) == name:
            return tool
    raise ApiError(f"There is no tool `{name}` in `tools`.", param="tool_choice")


def _mentioned(tools: list[Tool], heard: str) -> Tool | None:
    """The tool whose name was said: left to itself, ELIZA calls no other."""
    return next((tool for tool in tools if str(_name(tool)).lower() in heard), None)


def _nearest(tools: list[Tool], heard: str) -> Tool:
    """The tool whose name shares most words with what was said; the first of equals."""
    if not tools:
        raise ApiError("A tool call is required, but there are no tools.", param="tools")
    said = set(heard.replace("?", " ").replace(",", " ").replace(".", " ").split())
    shared = [len(said & set(str(_name(tool)).lower().split("_"))) for tool in tools]
    return tools[shared.index(max(shared))]
