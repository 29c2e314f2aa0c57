"""The command line's client: calls a running gateway over gRPC and prints what it says.

Also an example of how to use the contract from Python.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from tetrad.v1 import (
    chat_pb2,
    chat_service_pb2,
    chat_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
    transcribe_service_pb2,
    transcribe_service_pb2_grpc,
)

from services import codec
from services.commands import embed_bulk

_PIECE = 256 * 1024
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def run(args: argparse.Namespace) -> int:
    """Run the command named in `args`; 1 if the call fails."""
    if bool(args.cert) is not bool(args.key_file):
        print("tetrad: --cert and --key-file go together", file=sys.stderr)
        return 2
    if args.timeout is not None and args.timeout <= 0:
        print("tetrad: --timeout needs a number of seconds above 0", file=sys.stderr)
        return 2
    try:
        with _channel(args) as channel:
            return _COMMANDS[args.command](args, channel)
    except grpc.RpcError as error:
        print(f"tetrad: {explain(error, args.address)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise  # of what is printed to, which is no failure of the call
    except OSError as error:
        print(f"tetrad: {error.filename}: {(error.strerror or '').lower()}", file=sys.stderr)
        return 2


def _channel(args: argparse.Namespace) -> grpc.Channel:
    """Over TLS where the address says https:// or a certificate is given. Raises OSError."""
    address = args.address.removeprefix("https://").rstrip("/")
    if address == args.address and not (args.ca or args.cert):
        return grpc.insecure_channel(address, options=_UNLIMITED)
    ca, key, cert = (path and path.read_bytes() for path in (args.ca, args.key_file, args.cert))
    return grpc.secure_channel(
        address, grpc.ssl_channel_credentials(ca, key, cert), options=_UNLIMITED
    )


def explain(error: Any, address: str) -> str:
    """A failed call in one or two lines: status, reason, message, and what to do."""
    text = f"{error.code().name}: {error.details()}"
    trailers = dict(error.trailing_metadata() or ())
    details = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = error_details_pb2.ErrorInfo()
    if any(detail.Unpack(info) for detail in details.details):
        text = f"{error.code().name} ({info.reason}): {error.details()}"
    elif error.code() is grpc.StatusCode.UNAVAILABLE:
        text += f"\nIs a gateway running at {address}? Start one with `tetrad demo`."
    if "x-request-id" in trailers:
        text += f" [{trailers['x-request-id']}]"
    return text


def _options(args: argparse.Namespace) -> dict[str, Any]:
    metadata = [("authorization", f"Bearer {args.key}")] if args.key else []
    return {"metadata": metadata, "timeout": args.timeout}


@contextmanager
def _stream(call: Any) -> Iterator[Any]:
    """A streaming call that is cancelled when it is left, whatever the reason."""
    try:
        yield call
    finally:
        call.cancel()


def _print_json(name: str, message: Any) -> None:
    print(codec.to_json(name, message).decode(), flush=True)


def _models(args: argparse.Namespace, channel: grpc.Channel) -> int:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    answer = stub.ListModels(model_service_pb2.ListModelsRequest(), **_options(args))
    if args.json:
        _print_json("ListModelsResponse", answer)
        return 0
    rows = [("MODEL", "TYPE", "READY", "ALIASES", "OWNED BY")]
    rows += [
        (m.id, m.type, "yes" if m.ready else "no", ",".join(m.aliases) or "-", m.owned_by or "-")
        for m in answer.models
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def _chat(args: argparse.Namespace, channel: grpc.Channel) -> int:
    prompt = " ".join(args.prompt) or sys.stdin.read()
    turns = [("system", args.system)] if args.system else []
    request = chat_service_pb2.ChatRequest(
        messages=[
            chat_pb2.ChatMessage(role=role, content=chat_pb2.Content(text=text))
            for role, text in [*turns, ("user", prompt)]
        ],
        model=args.model,
        temperature=args.temperature,
        max_completion_tokens=args.max_tokens,
    )
    stub = chat_service_pb2_grpc.ChatServiceStub(channel)
    with _stream(stub.StreamChat(request, **_options(args))) as chunks:
        for chunk in chunks:
            if args.json:
                _print_json("StreamChatResponse", chunk)
                continue
            for choice in chunk.choices:
                print(choice.delta.content.text, end="", flush=True)
    if not args.json:
        print()
    return 0


def _lines(given: list[str]) -> list[str]:
    return given or [line for line in sys.stdin.read().splitlines() if line.strip()]


def _embed(args: argparse.Namespace, channel: grpc.Channel) -> int:
    if args.bulk:
        rpc = embed_service_pb2_grpc.EmbedServiceStub(channel).BulkEmbed
        return embed_bulk.run(args, partial(rpc, **_options(args)))
    request = embed_service_pb2.EmbedRequest(
        input=embed_service_pb2.EmbedInput(
            texts=embed_service_pb2.TextList(texts=_lines(args.text))
        ),
        model=args.model,
        dimensions=args.dimensions,
    )
    stub = embed_service_pb2_grpc.EmbedServiceStub(channel)
    answer = stub.Embed(request, **_options(args))
    if args.json:
        _print_json("EmbedResponse", answer)
        return 0
    for item in sorted(answer.data, key=lambda one: one.index):
        print(codec.to_json("Vector", item.embedding).decode())
    return 0


def _rerank(args: argparse.Namespace, channel: grpc.Channel) -> int:
    documents = _lines(args.document)
    request = rerank_service_pb2.RerankRequest(
        query=rerank_service_pb2.RerankQuery(text=args.query),
        documents=[rerank_service_pb2.RerankDocument(text=document) for document in documents],
        model=args.model,
        top_n=args.top_n,
    )
    stub = rerank_service_pb2_grpc.RerankServiceStub(channel)
    answer = stub.Rerank(request, **_options(args))
    if args.json:
        _print_json("RerankResponse", answer)
        return 0
    for result in answer.results:
        print(f"{result.relevance_score:9.4f}  {documents[result.index]}")
    return 0


def _transcribe(args: argparse.Namespace, channel: grpc.Channel) -> int:
    task = "TRANSCRIBE_TASK_TRANSLATE" if args.translate else "TRANSCRIBE_TASK_TRANSCRIBE"
    if args.file is None and not args.live:
        print("tetrad: transcribe needs a file, or --live", file=sys.stderr)
        return 2
    config = transcribe_service_pb2.TranscribeRequest(
        file=transcribe_service_pb2.AudioFile(
            filename=args.file.name if args.file else "",
            media_type=f"audio/pcm; rate={args.rate}" if args.live else "",
        ),
        model=args.model,
        language=args.language,
        response_format=args.format,
        task=transcribe_service_pb2.TranscribeTask.Value(task),
    )
    stub = transcribe_service_pb2_grpc.TranscribeServiceStub(channel)
    if args.file is not None:
        with args.file.open("rb"):
            pass  # a file that cannot be read is the caller's mistake, not the call's failure
    sound = _heard() if args.file is None else _read(args.file)
    with _stream(stub.LiveTranscribe(_audio(config, sound), **_options(args))) as events:
        _print_transcript(args, events)
    return 0


def _print_transcript(args: argparse.Namespace, events: Any) -> None:
    """Text as it comes, or else the whole at the end."""
    begun = False
    for event in events:
        kind = event.WhichOneof("event")
        if args.json or (kind == "final" and args.format not in ("json", "text", "srt", "vtt")):
            _print_json("LiveTranscribeResponse", event)
        elif kind == "delta":
            begun = True
            print(event.delta.delta, end="", flush=True)
        elif kind == "final":
            whole = (event.final.document.text or event.final.text).rstrip("\n")
            print("" if begun else whole)


def _audio(
    config: transcribe_service_pb2.TranscribeRequest, sound: Iterator[bytes]
) -> Iterator[transcribe_service_pb2.LiveTranscribeRequest]:
    """The configuration and then the sound, piece by piece: no size limit but the server's."""
    yield transcribe_service_pb2.LiveTranscribeRequest(config=config)
    for piece in sound:
        yield transcribe_service_pb2.LiveTranscribeRequest(audio=piece)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _heard() -> Iterator[bytes]:
    """Standard input as it comes. Not through `sys.stdin`: a thread that waits there when the call
    has failed would keep its lock, and the interpreter from ending."""
    while piece := os.read(0, _PIECE):
        yield piece


_COMMANDS: dict[str, Callable[[argparse.Namespace, grpc.Channel], int]] = {
    "models": _models,
    "chat": _chat,
    "embed": _embed,
    "rerank": _rerank,
    "transcribe": _transcribe,
}
