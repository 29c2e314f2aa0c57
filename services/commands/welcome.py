"""What `serve` and `demo` print when both faces listen: where, which models, and what to type."""

from __future__ import annotations

from pathlib import Path

from services.app import Running
from services.config import Address
from services.routing.table import RoutedModel

_ORDER = (
    "text-generation",
    "text-embeddings-inference",
    "automatic-speech-recognition",
    "text-classification",
)
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  (what one dials for them)


def text(running: Running, *, demo: bool) -> str:
    """The greeting; the demo's ends with a call for each operation over both faces."""
    rest = f"REST on {_url(running)}" if running.http else "no REST face"
    lines = [f"Tetrad listens: gRPC on {running.grpc}, {rest}", ""]
    for model in sorted(running.table.models, key=lambda m: (_ORDER.index(m.type), m.name)):
        state = "ready" if model.ready else "not ready yet: its provider does not answer"
        lines.append(f"  {model.type:<28}  {model.name}  ({state})")
    if demo:
        lines += ["", *_calls(running)]
    return "\n".join([*lines, "", "Ctrl-C stops it."])


def _url(running: Running) -> str:
    """Of the REST face, which is there."""
    address, http = running.http, running.runtime.config.http
    assert address is not None  # noqa: S101  (the caller has looked)
    if address.path:
        return str(address)
    scheme = "https" if http is not None and http.tls else "http"
    return f"{scheme}://{_ANY_HOST.get(address.host, _host(address))}:{address.port}"


def _host(address: Address) -> str:
    return f"[{address.host}]" if ":" in address.host else address.host


def _first(running: Running, type: str) -> RoutedModel | None:
    return next((model for model in running.table.models if model.type == type), None)


def _calls(running: Running) -> list[str]:
    """Ready-to-paste calls for the types that are served."""
    default = str(running.grpc) == "127.0.0.1:50051"
    address = "" if default else f" --address {running.grpc}"
    program = f"{_program()} {{}}{address}"
    sound = Path(__file__).resolve().parents[2] / "demo" / "sample.wav"
    if sound.is_relative_to(Path.cwd()):
        sound = sound.relative_to(Path.cwd())
    lines = ["Over gRPC, in another terminal:", ""]
    chat = _first(running, "text-generation")
    embed = _first(running, "text-embeddings-inference")
    listen = _first(running, "automatic-speech-recognition")
    rerank = _first(running, "text-classification")
    if chat:
        lines.append(f'  {program.format("chat")} "I feel stuck with my work"')
    if embed:
        lines.append(f'  {program.format("embed")} "a ship in the harbour"')
    if rerank:
        lines.append(
            f'  {program.format("rerank")} "fresh fruit" "ripe apples and pears" "a broken engine"'
        )
    if listen:
        lines.append(f"  {program.format('transcribe')} {sound}")
    lines.append(f"  grpcurl -plaintext {running.grpc} tetrad.v1.ModelService/ListModels")
    if running.http:
        lines += [
            "",
            "Over REST:",
            "",
            *_curl(_url(running), chat, embed, rerank, listen, sound),
        ]
    if running.http and chat:
        lines += ["", "With the OpenAI SDK:", "", *_sdk(_url(running), chat)]
    return lines


def _program() -> str:
    local = Path(".venv/bin/tetrad")
    return str(local) if local.exists() else "tetrad"


def _curl(
    url: str,
    chat: RoutedModel | None,
    embed: RoutedModel | None,
    rerank: RoutedModel | None,
    listen: RoutedModel | None,
    sound: Path,
) -> list[str]:
    json = "-H 'content-type: application/json'"
    lines = []
    if chat:
        body = (
            f'{{"model": "{chat.name}", "stream": true, '
            '"messages": [{"role": "user", "content": "I feel stuck with my work"}]}'
        )
        lines.append(f"  curl -N {url}/v1/chat/completions {json} -d '{body}'")
    if embed:
        body = f'{{"model": "{embed.name}", "input": "a ship in the harbour"}}'
        lines.append(f"  curl {url}/v1/embeddings {json} -d '{body}'")
    if rerank:
        body = (
            f'{{"model": "{rerank.name}", "query": "fresh fruit", '
            '"documents": ["ripe apples and pears", "a broken engine"]}'
        )
        lines.append(f"  curl {url}/v1/rerank {json} -d '{body}'")
    if listen:
        lines.append(
            f"  curl {url}/v1/audio/transcriptions -F model={listen.name} -F file=@{sound}"
        )
    return lines


def _sdk(url: str, chat: RoutedModel) -> list[str]:
    return [
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{url}/v1", api_key="none")',
        "  answer = client.chat.completions.create(",
        f'      model="{chat.name}", messages=[{{"role": "user", "content": "Hello"}}])',
        "  print(answer.choices[0].message.content)",
    ]
