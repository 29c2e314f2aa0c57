"""`tetrad`: the command line. Only parses; what a command does stands in its own module.

Modules are imported when their command runs, so that `tetrad --help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from services.commands import examples
from services.version import version

BAD_USAGE = 2

_SERVE = """\
Start the gateway.

  tetrad serve                              on ./tetrad.yaml
  tetrad serve --config FILE                on a configuration
  tetrad serve --upstream http://HOST:PORT  in front of a server, with nothing to configure:
                                            it is recognised (vLLM, TEI, llama.cpp, Ollama, a
                                            Whisper server, any OpenAI-compatible one) and its
                                            models are served under their own names

A change of the configuration file is taken while it runs, and SIGHUP has it read again; one that
is no good changes nothing, and /ready says why. Addresses and workers need a restart.
--workers N (workers: N of the configuration; 0: one for each core) shares both ports among N
processes, on Linux.

SIGTERM or Ctrl-C lets open calls finish, a second one ends at once.
Exit codes: 0 clean, 1 bad configuration, 2 bad usage, 3 could not bind."""

_CODEC = """\
The JSON codec by itself, from standard input to standard output.

  tetrad codec encode ChatRequest < request.json > request.bin
  tetrad codec decode ChatRequest < request.bin
  tetrad codec roundtrip ChatRequest < request.json
  tetrad codec source ChatRequest            the compiled Python code"""


_USAGE = """\
What callers used, added up from the ledger (ledger.url of the configuration).

  tetrad usage                               per key and model, of ./tetrad.yaml's ledger
  tetrad usage --since 7d                    of the last seven days (also 12h, 30m, 2w)
  tetrad usage --since 2026-01-01 --until 2026-02-01 --by key
                                             January's bill; times are UTC, the end is not included
  tetrad usage --by day,model --json         one object, for other programs
  tetrad usage --ledger sqlite:usage.db      another ledger; also jsonl:PATH, postgresql://...

Group by any of key, model, endpoint, day, month, method, face, outcome, source.
FAILED calls ended with an error, those of LEFT with their caller's leaving; both count what
was used until then. What an upstream did not tell counts as nothing: --by source shows how much.
Exit codes: 0 printed, 1 there is no ledger or it cannot be read, 2 bad usage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return BAD_USAGE
    try:
        code = int(args.run(args))
        sys.stdout.flush()  # here, where a broken pipe is caught, and not at the exit
        return code
    except BrokenPipeError:  # `tetrad models | head`
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is still buffered is flushed at exit
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tetrad",
        description=examples.TETRAD,
        epilog="`tetrad COMMAND --help` tells more, with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tetrad {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_check(commands)
    _add_clients(commands)
    _add_top(commands)
    _add_keys(commands)
    _add_usage(commands)
    _add_codec(commands)
    _add_completion(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse names the type of its result nowhere else


def _add(commands: Commands, name: str, help: str, text: str = "") -> argparse.ArgumentParser:  # type: ignore[type-arg]
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=text or help[0].upper() + help[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return added


def _addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grpc", metavar="ADDR", help="gRPC address, host:port or unix:/path")
    parser.add_argument("--http", metavar="ADDR", help='REST address, or "none" for no REST face')


def _add_serve(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "serve", "start the gateway", _SERVE)
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (YAML)")
    parser.add_argument(
        "--upstream", action="append", default=[], metavar="URL", help="a server; repeatable"
    )
    parser.add_argument(
        "--require",
        action="append",
        metavar="TYPE|none",
        help="model type without which the start is refused; repeatable "
        "(default: text-embeddings-inference)",
    )
    _addresses(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes that share both ports")
    parser.set_defaults(run=_serve)


def _add_demo(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "demo", "start the gateway with its embedded models", examples.DEMO)
    _addresses(parser)
    parser.set_defaults(run=_demo)


def _add_check(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "check", "validate a configuration; one line per fault", examples.CHECK)
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: ./tetrad.yaml")
    parser.add_argument("--probe", action="store_true", help="also ask every provider")
    parser.set_defaults(run=_check)


def _add_clients(commands: Commands) -> None:  # type: ignore[type-arg]
    def client(name: str, help: str, text: str) -> argparse.ArgumentParser:
        parser = _add(commands, name, help, text)
        parser.add_argument(
            "--address",
            default=os.environ.get("TETRAD_ADDRESS", "127.0.0.1:50051"),
            metavar="ADDR",
            help="the gateway's gRPC address, with https:// in front for TLS (TETRAD_ADDRESS; "
            "default 127.0.0.1:50051)",
        )
        _credentials(parser)
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")
        parser.set_defaults(run=_client)
        return parser

    def model(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model", help="name or alias; default: the only one of its type")

    client("models", "list the models of a running gateway", examples.MODELS)

    chat = client("chat", "chat with a model; the answer is streamed", examples.CHAT)
    model(chat)
    chat.add_argument("--system", metavar="TEXT", help="instructions before the prompt")
    chat.add_argument("--temperature", type=float, metavar="T", help="0 is the same each time")
    chat.add_argument("--max-tokens", type=int, metavar="N", help="tokens the answer may have")
    chat.add_argument("prompt", nargs="*", help="the prompt; without it standard input")

    embed = client("embed", "embed texts; one JSON list a line", examples.EMBED)
    model(embed)
    embed.add_argument("--dimensions", type=int, metavar="N", help="numbers in each vector")
    embed.add_argument(
        "--bulk",
        metavar="FILE",
        help='embed a file of JSON lines, each a text or {"id", "text"} or {"id", "input", ...}; '
        'prints {"id", "embedding"}',
    )
    embed.add_argument(
        "--output",
        metavar="FILE",
        help="with --bulk: where to; ids that it holds already are skipped",
    )
    embed.add_argument("text", nargs="*", help="texts; without any, lines of standard input")

    rerank = client("rerank", "order documents by relevance; best first", examples.RERANK)
    model(rerank)
    rerank.add_argument("--top-n", type=int, metavar="N", help="how many at most")
    rerank.add_argument("query", help="what they should be relevant to")
    rerank.add_argument(
        "document", nargs="*", help="documents; without any, lines of standard input"
    )

    transcribe = client(
        "transcribe", "transcribe a sound file, or sound as it comes", examples.TRANSCRIBE
    )
    model(transcribe)
    transcribe.add_argument("--language", help="ISO 639-1 code or English name")
    transcribe.add_argument("--translate", action="store_true", help="translate into English")
    transcribe.add_argument(
        "--format",
        default="json",
        metavar="F",
        help="json (prints the text), text, srt, vtt, verbose_json",
    )
    transcribe.add_argument(
        "--live",
        action="store_true",
        help="raw sound (16-bit little-endian, one channel), from standard input without a file",
    )
    transcribe.add_argument(
        "--rate", type=int, default=16000, metavar="N", help="its samples a second (default 16000)"
    )
    transcribe.add_argument("file", type=Path, nargs="?", help="any sound that the model can read")


def _credentials(parser: argparse.ArgumentParser) -> None:
    """Who we are to a running gateway, and how long it may take."""
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="authorities to trust, for TLS (PEM)"
    )
    parser.add_argument("--cert", type=Path, metavar="FILE", help="this client's certificate (PEM)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--key", default=os.environ.get("TETRAD_KEY", ""), help="API key (TETRAD_KEY)"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds that a call may take")


def _add_top(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "top", "watch a running gateway: calls, latency, errors", examples.TOP)
    parser.add_argument(
        "--url",
        default=os.environ.get("TETRAD_URL", "http://127.0.0.1:8080"),
        help="the gateway's REST address (TETRAD_URL; default http://127.0.0.1:8080)",
    )
    _credentials(parser)
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds between looks (default 2)"
    )
    parser.add_argument("--once", action="store_true", help="print one look and leave")
    parser.add_argument("--json", action="store_true", help="print one look as JSON and leave")
    parser.set_defaults(run=_top)


def _add_keys(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "keys", "make API keys", examples.KEYS)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = _add(
        actions, "new", "print a key once, and its hash for the configuration", examples.KEYS_NEW
    )
    new.add_argument("name", help="who holds the key")
    new.set_defaults(run=_new_key)


def _add_usage(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "usage", "what callers used, per key and model", _USAGE)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="default: ./tetrad.yaml")
    where.add_argument("--ledger", metavar="URL", help="a ledger, in place of the configuration's")
    parser.add_argument("--since", metavar="TIME", help="from this time on, or 7d, 12h, 30m ago")
    parser.add_argument("--until", metavar="TIME", help="before this time")
    parser.add_argument(
        "--by", default="key,model", metavar="NAMES", help="what to group by (default: key,model)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_usage)


def _add_codec(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(commands, "codec", "JSON to protobuf and back", _CODEC)
    parser.add_argument("action", choices=["encode", "decode", "roundtrip", "source"])
    parser.add_argument("message", metavar="MESSAGE", help="a message of tetrad.v1")
    parser.set_defaults(run=_codec)


def _add_completion(commands: Commands) -> None:  # type: ignore[type-arg]
    parser = _add(
        commands, "completion", "print a completion script for your shell", examples.COMPLETION
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])
    parser.set_defaults(run=_completion)


def _serve(args: argparse.Namespace) -> int:
    from services.commands import serve

    return serve.serve(args)


def _demo(args: argparse.Namespace) -> int:
    from services.commands import serve

    return serve.demo(args)


def _check(args: argparse.Namespace) -> int:
    from services.commands import check

    return check.check(args)


def _client(args: argparse.Namespace) -> int:
    from services import client

    return client.run(args)


def _top(args: argparse.Namespace) -> int:
    from services.commands import top

    return top.top(args)


def _new_key(args: argparse.Namespace) -> int:
    from services.commands import keys

    return keys.new(args)


def _usage(args: argparse.Namespace) -> int:
    from services.commands import usage

    return usage.usage(args)


def _codec(args: argparse.Namespace) -> int:
    from services.commands import codec

    return codec.run(args)


def _completion(args: argparse.Namespace) -> int:
    from services.commands import completion

    print(completion.script(args.shell, _parser()), end="")
    return 0
