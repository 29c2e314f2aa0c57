"""`tetrad top`: a live view of a running gateway, or one look at it.

Draws on a terminal with the escape sequences that all of them know. Leaves it as it was, however
it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import ssl
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from types import FrameType
from typing import Any, Final

from services.commands.top_figures import Figures, figures, restarted
from services.commands.top_pages import Pages, Source, Unreachable
from services.commands.top_screen import lines

DONE, FAILED, BAD_USAGE = 0, 1, 2

SMOOTH: Final = 10.0
"""Seconds that a live view's rates and quantiles are of, or an interval if that is longer."""

_LEAST: Final = 0.1
_WIDTH: Final = 80
_TIMEOUT: Final = 10.0

_ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def top(args: argparse.Namespace) -> int:
    """Show it until somebody leaves. 1 if no gateway answers, 2 for bad usage."""
    try:
        source = _source(args)
    except ValueError as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return BAD_USAGE
    except OSError as error:
        print(f"tetrad: {error.filename}: {(error.strerror or '').lower()}", file=sys.stderr)
        return BAD_USAGE
    try:
        first = source.read()
        if args.once or args.json or not _is_screen():
            _once(args, source, first)
        else:
            _live(args, source, first)
    except Unreachable as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return FAILED
    finally:
        source.close()
    return DONE


def _source(args: argparse.Namespace) -> Source:
    """Raises ValueError, and OSError for files that cannot be read."""
    if not isfinite(args.interval) or args.interval < _LEAST:
        raise ValueError(f"--interval needs a number of seconds from {_LEAST} on")
    if args.timeout is not None and not args.timeout > 0:
        raise ValueError("--timeout needs a number of seconds above 0")
    if bool(args.cert) is not bool(args.key_file):
        raise ValueError("--cert and --key-file go together")
    return Source(args.url, args.key, args.timeout or _TIMEOUT, _tls(args))


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if not (args.ca or args.cert):
        return None
    for path in (args.ca, args.cert, args.key_file):
        if path is not None:
            path.open("rb").close()  # ssl's own error does not name the file
    try:
        tls = ssl.create_default_context(cafile=args.ca)
        if args.cert:
            tls.load_cert_chain(args.cert, args.key_file)
    except ssl.SSLError as error:
        raise ValueError(f"--ca, --cert or --key-file: {error.reason or error}") from None
    return tls


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _colours() -> bool:
    return _is_screen() and not os.environ.get("NO_COLOR")


def _once(args: argparse.Namespace, source: Source, first: Pages) -> None:
    time.sleep(args.interval)  # what it measures over
    now = source.read()
    found = figures(now, None if restarted(now, first) else first)
    if args.json:
        print(json.dumps(_finite(asdict(found)), ensure_ascii=False, indent=2))
        return
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    print(*lines(found, source.url, width, colour=_colours()), sep="\n")


def _finite(value: Any) -> Any:
    """JSON has no infinity: what lies above the highest bucket is null there."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_finite, value)]
    return value if not isinstance(value, float) or isfinite(value) else None


def _live(args: argparse.Namespace, source: Source, first: Pages) -> None:
    history = deque([first])
    shown, trouble = figures(first, None), ""
    with _screen() as screen:
        while True:
            screen.draw(shown, source.url, trouble)
            if screen.left(args.interval):
                return
            try:
                now = source.read()
            except Unreachable as error:
                trouble = str(error).partition("\n")[0]
                continue
            trouble = ""
            if restarted(now, history[-1]):
                history.clear()
            while len(history) > 1 and now.read_at - history[1].read_at >= SMOOTH:
                history.popleft()
            shown = figures(now, history[0] if history else None)
            history.append(now)


class _Screen:
    """A terminal that is drawn over and over."""

    def __init__(self, colour: bool, keys: bool) -> None:
        self._colour, self._keys = colour, keys

    def draw(self, shown: Figures, url: str, trouble: str) -> None:
        """One frame, written at once so that it does not flicker."""
        width, height = shutil.get_terminal_size((_WIDTH, 24))
        rows = lines(shown, url, width, height - 1, colour=self._colour)[: height - 1]
        foot = f"{trouble}; trying again" if trouble else "q leaves" if self._keys else ""
        red = self._colour and trouble
        foot = f"\x1b[31m{foot[:width]}\x1b[0m" if red else foot[:width]
        text = "".join(f"{row}{_CLEAR_LINE}\r\n" for row in rows)
        sys.stdout.write(f"{_HOME}{text}{foot}{_CLEAR_LINE}{_CLEAR_BELOW}")
        sys.stdout.flush()

    def left(self, seconds: float) -> bool:
        """Waits; whether somebody wants to leave. Any other key ends the wait."""
        watched = [sys.stdin] if self._keys else []
        if not select.select(watched, [], [], seconds)[0]:
            return False
        return os.read(sys.stdin.fileno(), 64)[:1] in (b"q", b"Q", b"\x04", b"")


@contextmanager
def _screen() -> Iterator[_Screen]:
    """A screen of our own and keys without Enter; all is put back at the end."""
    keys = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if keys else []

    def enter(*_: object) -> None:
        if keys:
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ends = (signal.SIGTERM, signal.SIGHUP)
    old = {number: signal.signal(number, stop) for number in ends}
    old[signal.SIGCONT] = signal.signal(signal.SIGCONT, enter)  # after Ctrl-Z the shell was there
    try:
        enter()
        yield _Screen(_colours(), keys)
    except KeyboardInterrupt:
        pass  # Ctrl-C is how one leaves
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keys:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        for number, handler in old.items():
            signal.signal(number, handler)
