"""`tetrad check`: validates a configuration; with --probe also asks every provider."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from services import assembly, certificates
from services.commands import warnings
from services.config import Config, ConfigError, load
from services.errors import Reason, TetradError
from services.upstream import probe
from services.upstream.transport import Transport

CLEAN, FAULTY = 0, 1

_ADVICE = {
    Reason.UPSTREAM_UNAVAILABLE: "start it, or correct the provider's url",
    Reason.DEADLINE_EXCEEDED: "start it, or correct the provider's url",
    Reason.UPSTREAM_AUTH: "correct the provider's key",
}
_LOOK = "look at that server's log"


def check(args: argparse.Namespace) -> int:
    """One line per fault on standard error and exit code 1, or a summary and 0."""
    try:
        config = load(args.config or Path("tetrad.yaml"), os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return FAULTY
    warnings.print_all(config)
    faults = [str(fault) for fault in config.required_type_faults()]
    try:
        certificates.read(config)
    except certificates.CertificateError as error:
        faults += map(str, error.faults)
    if args.probe:
        faults += asyncio.run(_probe(config))
    for line in faults:
        print(line, file=sys.stderr)
    if faults:
        return FAULTY
    providers = sum(len(model.providers) for model in config.models)
    print(f"{config.source}: good; {len(config.models)} models, {providers} providers")
    return CLEAN


async def _probe(config: Config) -> list[str]:
    transport = Transport()
    _, watched = assembly.configured_models(config, transport)
    try:
        answers = await asyncio.gather(*(_ask(one, transport) for one in watched))
    finally:
        await transport.aclose()
    return [line for line in answers if line]


async def _ask(one: assembly.Watched, transport: Transport) -> str:
    """What is wrong with a provider, or ""; what is right is printed."""
    where = f"{one.model.name}: {one.endpoint.url}"
    try:
        endpoint = one.endpoint
        recognised = await probe.recognise(
            transport, endpoint.url, endpoint.key, via=endpoint.transport
        )
    except TetradError as error:
        return f"{where}: {error}; {_ADVICE.get(error.reason, _LOOK)}"
    names = [found.model for found in recognised.models]
    if recognised.of(one.endpoint.model) is None:
        return f"{where}: the server ({recognised.kind}) has no model {one.endpoint.model}; " + (
            f"set model_name to one of: {', '.join(names)}" if names else "it lists none"
        )
    print(f"{where}: {recognised.kind}, serves {one.endpoint.model}")
    return ""
