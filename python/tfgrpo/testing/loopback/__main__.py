"""The loopback server as a process of its own: `python -m tfgrpo.testing.loopback --script module:function`.

The first line on stdout is the base URL; the process survives its clients and serves until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

import anyio

from tfgrpo.testing.faults import TRANSIENT, FaultPlan, FaultType
from tfgrpo.testing.loopback import LoopbackServer, RatePlan
from tfgrpo.testing.scripts import Script


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is the base URL."""
    options = _parser().parse_args(argv)
    anyio.run(_serve, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tfgrpo.testing.loopback", description=__doc__)
    parser.add_argument("--script", default="tfgrpo.testing.scripts:tickets", help="module:function")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", help="append one line per served call to this file")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--model", action="append", help="a model name to serve (repeatable)")
    parser.add_argument("--no-n", action="store_true", help="refuse n > 1")
    parser.add_argument("--no-schema", action="store_true", help="refuse response_format")
    parser.add_argument("--no-stream", action="store_true", help="refuse stream")
    parser.add_argument("--requests-per-minute", type=float, help="a rate limit, told in OpenAI's headers")
    parser.add_argument("--tokens-per-minute", type=float, help="another")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of attempts that break")
    parser.add_argument("--fault-seed", type=int, default=0)
    parser.add_argument(
        "--fault-types",
        type=lambda text: [FaultType(name) for name in text.split(",")],
        default=list(TRANSIENT),
        help="comma-separated; default: " + ",".join(TRANSIENT),
    )
    parser.add_argument("--fault-attempts", type=int, help="only the first so many attempts of a key break")
    parser.add_argument("--retry-after", type=float, default=0.0, help="seconds, for 429 and 503")
    return parser


def load_script(name: str) -> Script:
    """Import a script by "module:function"."""
    module, _, function = name.partition(":")
    script: Script = getattr(importlib.import_module(module), function)
    return script


async def _serve(options: argparse.Namespace) -> None:
    faults = FaultPlan.random(
        options.fault_seed,
        options.fault_rate,
        options.fault_types,
        attempts=options.fault_attempts,
        retry_after=options.retry_after,
    )
    server = LoopbackServer(
        load_script(options.script),
        faults=faults,
        latency=options.latency,
        supports_n=not options.no_n,
        supports_schema=not options.no_schema,
        supports_stream=not options.no_stream,
        rates=RatePlan(options.requests_per_minute, options.tokens_per_minute)
        if options.requests_per_minute or options.tokens_per_minute
        else None,
        models=options.model or ("scripted",),
        log=options.log,
        port=options.port,
    )
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with server:
            sys.stdout.write(server.base_url + "\n")
            sys.stdout.flush()
            async for _ in signals:
                return


if __name__ == "__main__":
    main()
