"""`python -m demo`: binds, says where, serves until it is told to stop or its parent is gone.

Exit codes: 0 ended as told, 2 bad usage, 3 could not bind.
"""

from __future__ import annotations

import argparse
import signal
import sys

PACE = 15.0


def main() -> int:
    """The program; returns its exit code."""
    # Ctrl-C while the rest is imported ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = _arguments()

    from demo import server

    return server.run(args.host, args.port, args.pace / 1000, args.exit_with_stdin)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Serves small models as an OpenAI and TEI upstream."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 (default) takes a free one")
    parser.add_argument(
        "--pace",
        type=_milliseconds,
        default=PACE,
        metavar="MS",
        help="milliseconds that a streamed word of chat takes (default: %(default)g)",
    )
    parser.add_argument(
        "--exit-with-stdin", action="store_true", help="end when standard input does"
    )
    return parser.parse_args()


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError("must be from 0 to 60000")
    return value


if __name__ == "__main__":
    sys.exit(main())
