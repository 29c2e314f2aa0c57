"""`tetrad serve` and `tetrad demo`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvloop

from services import app
from services.commands import embedded, warnings, welcome
from services.config import Config, ConfigError, load, parse
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
    try:
        if path is None:
            config = Config.for_upstreams(args.upstream)
        else:
            config = load(path, os.environ, upstreams=args.upstream)
        config = config.with_overrides(
            grpc=args.grpc, http=args.http, workers=args.workers, required_types=args.require
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    warnings.print_all(config)
    return _run(config)


def demo(args: argparse.Namespace) -> int:
    """Start the embedded models as a process of their own, and the gateway in front of them."""
    try:
        with embedded.EmbeddedModels() as models:
            config = parse(embedded.CONFIG.format(url=models.url), "the demo", {})
            config = config.with_overrides(grpc=args.grpc, http=args.http)
            return _run(config, demo=True)
    except (embedded.DemoError, ConfigError) as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return BAD_CONFIGURATION


def _run(config: Config, *, demo: bool = False) -> int:
    logs.set_up(config.telemetry.log_format)

    def announce(running: app.Running) -> None:
        print(welcome.text(running, demo=demo), flush=True)

    try:
        uvloop.run(app.serve(config, announce))
    except app.StartError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except app.BindErrors as error:
        print(f"tetrad: {error}", file=sys.stderr)
        return COULD_NOT_BIND
    return CLEAN
