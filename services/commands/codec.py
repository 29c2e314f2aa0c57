"""`tetrad codec`: the JSON codec by itself, from standard input to standard output."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable

from services import codec

BAD_USAGE = 2


def run(args: argparse.Namespace) -> int:
    """Encode, decode, both, or print the compiled source. 1 for a body that is refused."""
    try:
        codec.plan(args.message)
    except KeyError:
        near = difflib.get_close_matches(args.message, codec.message_names(), 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        print(f"tetrad: there is no message {args.message}{hint}", file=sys.stderr)
        return BAD_USAGE
    if args.action == "source":
        print(codec.source(args.message))
        return 0
    data = sys.stdin.buffer.read()
    try:
        result = _ACTIONS[args.action](args.message, data)
    except ValueError as error:  # CodecError and JsonError
        print(f"tetrad: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(result)
    return 0


def _roundtrip(message: str, data: bytes) -> bytes:
    return codec.decode(message, codec.encode(message, data)) + b"\n"


def _decode(message: str, data: bytes) -> bytes:
    return codec.decode(message, data) + b"\n"


_ACTIONS: dict[str, Callable[[str, bytes], bytes]] = {
    "encode": codec.encode,
    "decode": _decode,
    "roundtrip": _roundtrip,
}
