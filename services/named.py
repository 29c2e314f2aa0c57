"""Servers named by `--upstream URL`: what each is, asked until it answers, and what the gateway
cannot start for."""

from __future__ import annotations

import asyncio
from typing import Final

from services.config import Fault
from services.errors import DeadlineExceeded, TetradError, UpstreamUnavailable
from services.routing.table import RoutedModel
from services.upstream import probe
from services.upstream.transport import Transport

FIRST_ANSWER: Final = 10.0
"""Seconds that a server named by `--upstream` may take to answer at the start."""

_ASK_AGAIN: Final = 0.25
"""Seconds between two attempts to reach it."""


class StartError(Exception):
    """The gateway cannot run on this configuration; `faults` are for the user."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def clash(url: str, known: RoutedModel, found: RoutedModel) -> Fault:
    said = f"its model `{found.name}` is of type {found.type}, one of that name is {known.type}"
    hint = "give one of them another name in a configuration"
    return Fault("", 0, 0, f"--upstream {url}", said, hint)


async def first_answer(transport: Transport, url: str) -> probe.Recognised:
    """What the server at an `--upstream URL` is. It may still be starting. Raises StartError."""
    until = asyncio.get_running_loop().time() + FIRST_ANSWER
    said = "it does not answer"
    try:
        async with asyncio.timeout_at(until):
            while True:
                try:
                    return await probe.recognise(transport, url, "")
                except (UpstreamUnavailable, DeadlineExceeded) as error:
                    said = str(error)
                await asyncio.sleep(_ASK_AGAIN)
    except TimeoutError:
        said = f"no answer within {FIRST_ANSWER:g} s: {said}"
    except TetradError as error:
        said = str(error)
    hint = "start the server, or correct the URL"
    raise StartError([Fault("", 0, 0, f"--upstream {url}", said, hint)])
