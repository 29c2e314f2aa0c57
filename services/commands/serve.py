"""`tetrad serve` and `tetrad demo`.

With several workers this process supervises them, and must never load gRPC: what does is imported
where one process serves by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from services import supervisor
from services.commands import embedded, warnings
from services.config import Config, ConfigError, load, parse
from services.reload import FileSource
from services.supervisor_ports import PortError, Ports, shared_faults
from services.telemetry import logs

CLEAN, BAD_CONFIGURATION, BAD_USAGE, COULD_NOT_BIND = 0, 1, 2, 3

DEFAULT = Path("tetrad.yaml")


def serve(args: argparse.Namespace) -> int:
    """Start on a configuration, on `--upstream` servers, or on both."""
    path = args.config or (DEFAULT if DEFAULT.exists() and not args.upstream else None)
    if path is None and not args.upstream:
        print(
            "tetrad: nothing to serve: there is no ./tetrad.yaml. Give --config FILE or "
            "--upstream URL, or try `tetrad demo`.",
            file=sys.stderr,
        )
        return BAD_USAGE

    def read() -> Config:
        if path is None:
            config = Config.for_upstreams(args.upstream)
        else:
            config = load(path, os.environ, upstreams=args.upstream)
        return config.with_overrides(
            grpc=args.grpc, http=args.http, workers=args.workers, required_types=args.require
        )

    try:
        source = FileSource(path, read)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    warnings.print_all(source.config)
    workers = supervisor.workers_of(source.config)
    return _run(source.config, source) if workers == 1 else _supervise(source, workers)


def demo(args: argparse.Namespace) -> int:
    """Start the embedded models as a process of their own, and the gateway in front of them."""
    try:
        with embedded.EmbeddedModels() as models:
            config = parse(embedded.CONFIG.format(url=models.url), "the demo", {})
            config = config.with_overrides(grpc=args.grpc, http=args.http)
            return _run(config, None, demo=True)
    except (embedded.DemoError, ConfigError) as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return BAD_CONFIGURATION


def _run(config: Config, source: FileSource | None, *, demo: bool = False) -> int:
    """One process that serves."""
    import uvloop

    from services import app
    from services.commands import welcome

    logs.set_up(config.telemetry.log_format)

    def announce(running: app.Running) -> None:
        _print(welcome.text(running, demo=demo))

    try:
        uvloop.run(app.serve(config, announce, source))
    except app.StartError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except app.BindErrors as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return COULD_NOT_BIND
    return CLEAN


def _supervise(source: FileSource, workers: int) -> int:
    """Processes that share the ports, and this one above them."""
    config = source.config
    faults = shared_faults(config) + config.required_type_faults(
        # What --upstream servers have is for the workers to find out.
        config.required_types if config.upstreams else ()
    )
    if faults:
        print(*faults, sep="\n", file=sys.stderr)
        return BAD_CONFIGURATION
    logs.set_up(config.telemetry.log_format)
    try:
        with Ports(config) as ports:
            program = supervisor.Supervisor(source, config, ports, workers)
            return asyncio.run(program.run(_print))
    except PortError as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return COULD_NOT_BIND


def _print(welcome: str) -> None:
    print(welcome, flush=True)
