"""OpenGateLLM's configuration keys, of both generations and of the older `clients` form.

Changes the tree before it is judged: what we have under another name is renamed or moved (the
file's own key stays in messages), what we have not is dropped with one warning for each key.
"""

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from services.config.fault import Loc, Mark, Report, key_text
from services.config.source import Node

MODEL_TYPES = {"image-text-to-text": "text-generation"}

RENAMED = {
    "routing_strategy": "load_balancing_strategy",
    "model_cost_prompt_tokens": "cost_prompt_tokens",
    "model_cost_completion_tokens": "cost_completion_tokens",
}
UNUSED = (
    "model_carbon_*",
    "model_hosting_zone",
    "model_total_params",
    "model_active_params",
    "qos_metric",
    "qos_limit",
    "carbon",
    "default_internet",
)
# The older form: models[].id, models[].clients[].{model, costs, args: {api_url, api_key, timeout}}.
LEGACY_MODEL = {"id": "name", "clients": "providers"}
LEGACY_CLIENT = {"model": "model_name"}
LEGACY_ARGS = {"api_url": "url", "api_key": "key"}
LEGACY_COSTS = {
    "prompt_tokens": "model_cost_prompt_tokens",
    "completion_tokens": "model_cost_completion_tokens",
}
LEGACY_AUTH = ("master_username", "master_key", "max_token_expiration_days")

# What takes the place of a setting.
INSTEAD = {
    "auth_master_key": "auth.keys",
    "routing_max_retries": "timeouts.queue",
    "routing_retry_countdown": "timeouts.queue",
    "log_format": "telemetry.log_format",
}
_UNUSED = "this is not used"
_NO_SERVICE = "no database or other service is needed"
_SECTIONS: dict[str, str] = {"dependencies": _NO_SERVICE, "settings": ""}
_LEGACY_SECTIONS: dict[str, str] = {
    "databases": _NO_SERVICE,
    "general": "",
    "internet": "",
    "mcp": "",
    "monitoring": "",
    "multi_agents_search": "",
    "playground": "",
    "rate_limit": "",
    "usages": "",
    "web_search": "",
}


def adopt(root: Node, report: Report) -> None:
    """Turn OpenGateLLM's keys of a file's tree into ours, in place."""
    members = root.mapping()
    notes = _Notes(report)
    models = _items(members.get("models"))
    is_legacy = any("clients" in model.mapping() for model in models)
    if is_legacy:
        _drop(LEGACY_AUTH, members.get("auth"), ("auth",), notes, f"{_UNUSED}; see auth.keys")
    for name, reason in (_SECTIONS | (_LEGACY_SECTIONS if is_legacy else {})).items():
        section = members.pop(name, None)
        if section is None:
            continue
        report.forget((name,))
        keys = list(section.mapping())
        listed = f" ({', '.join(map(_shown, keys))})" if keys else ""
        instead = [f"{key}: see {INSTEAD[key]}" for key in keys if key in INSTEAD]
        hint = ", ".join(instead) or reason
        report.warn((name,), section.key_at, f"this section is not used{listed}", hint)
    for index, model in enumerate(models):
        _model(model, ("models", index), notes)
    for kind in _items(members.get("required_types")):
        _type(kind)
    notes.close()


def _shown(key: str) -> str:
    return key_text((key,))


def _items(node: Node | None) -> list[Node]:
    return node.items() if node is not None else []


@dataclass
class _Notes:
    """Warnings gathered by what they say, so that a key used fifty times warns once."""

    report: Report
    seen: dict[tuple[str, str], list[tuple[Loc, Mark]]] = field(default_factory=dict)

    def add(self, loc: Loc, node: Node, message: str) -> None:
        self.seen.setdefault((str(loc[-1]), message), []).append((loc, node.key_at))

    def close(self) -> None:
        for (_, message), places in self.seen.items():
            loc, at = places[0]
            lines = sorted({mark.line for _, mark in places[1:]} - {at.line})
            also = f"also on line {', '.join(map(str, lines))}" if lines else ""
            self.report.warn(loc, at, message, also)


def _model(model: Node, loc: Loc, notes: _Notes) -> None:
    members = model.mapping()
    for old, new in LEGACY_MODEL.items():
        if old in members and new not in members:
            notes.add((*loc, old), members[old], f"an older name of '{new}'")
            _rename(members, old, new, notes.report, loc)
    if "type" in members:
        _type(members["type"])
    providers = _items(members.get("providers"))
    for index, provider in enumerate(providers):
        _provider(provider, (*loc, "providers", index), notes)
    for old, new in RENAMED.items():
        if old in members:
            _rename(members, old, new, notes.report, loc)
        _raise_to_model(members, providers, old, new)
    _drop(UNUSED, model, loc, notes)


def _provider(provider: Node, loc: Loc, notes: _Notes) -> None:
    members = provider.mapping()
    arguments = members.get("args")
    if arguments is not None and isinstance(arguments.value, dict):
        notes.add((*loc, "args"), arguments, "an older form: its members now stand beside 'type'")
        del members["args"]
        for old, new in LEGACY_CLIENT.items():
            if old in members:
                _rename(members, old, new, notes.report, loc)
        for key, node in arguments.value.items():
            node.written = f"args.{_shown(key)}"
            if LEGACY_ARGS.get(key, key) in members:
                notes.report.fault((*loc, "args", key), node.key_at, "this is set twice")
            members.setdefault(LEGACY_ARGS.get(key, key), node)
    _costs(members)
    if "max_parallel_requests" in members:
        _rename(members, "max_parallel_requests", "max_concurrency", notes.report, loc)
    _inflight(members)
    _drop(UNUSED, provider, loc, notes)


def _costs(members: dict[str, Node]) -> None:
    """The older `costs`; whatever else stands in it stays, and is a fault."""
    told = members["costs"].mapping() if "costs" in members else {}
    for old, new in LEGACY_COSTS.items():
        if old in told and new not in members:
            members[new] = told.pop(old)
            members[new].written = f"costs.{old}"
            if not told:
                del members["costs"]


def _inflight(members: dict[str, Node]) -> None:
    """A quality-of-service limit on calls in flight is our max_concurrency; a part of a call
    that it may have beyond whole ones is no call."""
    metric, limit = members.get("qos_metric"), members.get("qos_limit")
    if metric is None or limit is None or metric.value != "inflight":
        return
    if "max_concurrency" not in members and _number(limit) is not None:
        if isinstance(limit.value, float) and math.isfinite(limit.value):
            limit.value = math.floor(limit.value)
        limit.written = "qos_limit"
        members["max_concurrency"] = limit
        del members["qos_metric"], members["qos_limit"]


def _rename(members: dict[str, Node], old: str, new: str, report: Report, loc: Loc) -> None:
    node = members.pop(old)
    if new in members:
        message = f"another name of '{new}', which is set on line {members[new].key_at.line}"
        report.fault((*loc, old), node.key_at, message, "remove one")
        return
    node.written = node.written or old
    members[new] = node


def _raise_to_model(members: dict[str, Node], providers: list[Node], old: str, new: str) -> None:
    """A key of the providers that is the model's with us: of several costs the highest counts."""
    found: list[Node] = []
    for index, provider in enumerate(providers):
        node = provider.mapping().pop(old, None)
        if node is not None:
            node.written = f"providers[{index}].{node.written or old}"
            found.append(node)
    if found and new not in members:
        faulty = [node for node in found if _number(node) is None]
        members[new] = faulty[0] if faulty else max(found, key=lambda node: _number(node) or 0)


def _drop(
    unused: tuple[str, ...],
    holder: Node | None,
    loc: Loc,
    notes: _Notes,
    message: str = _UNUSED,
) -> None:
    members = holder.mapping() if holder is not None else {}
    for key in list(members):
        if any(fnmatchcase(key, pattern) for pattern in unused):
            notes.add((*loc, key), members.pop(key), message)
            notes.report.forget((*loc, key))


def _type(node: Node) -> None:
    if isinstance(node.value, str):
        node.value = MODEL_TYPES.get(node.value, node.value)


def _number(node: Node) -> float | None:
    value = node.value
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
