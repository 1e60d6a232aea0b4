"""Answer every prompt of a JSON-lines file into another file; started again, it goes on where it stopped.

    python million.py prompts.jsonl answers.jsonl --base-url https://api.example.com/v1 --model some-model

A prompt is a line `{"id": "p1", "prompt": "…"}`, an answer a line `{"id": "p1", "answer": "…"}`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import tfgrpo


async def answer(engine: tfgrpo.Engine, prompts: Path, answers: Path) -> int:
    """Answer what the file of answers lacks, in the order in which calls end; returns how many calls failed."""
    done, failed = answered(answers), 0
    with answers.open("a", encoding="utf-8") as out:
        async for key, outcome in engine.map(requests(prompts, done)):
            if isinstance(outcome, tfgrpo.Fault):
                failed += 1
                print(f"{key}: {outcome.error}: {outcome.message}", file=sys.stderr)
            else:
                out.write(json.dumps({"id": key, "answer": outcome.content}) + "\n")
    return failed


def requests(prompts: Path, done: set[str]) -> Iterator[tuple[str, tfgrpo.ModelRequest]]:
    """One request a prompt, read as there is room for it."""
    with prompts.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["id"] not in done:
                message = tfgrpo.Message("user", record["prompt"])
                yield record["id"], tfgrpo.ModelRequest((message,), max_tokens=512)


def answered(answers: Path) -> set[str]:
    """The ids that have an answer; a last line that a kill has torn is cut off."""
    done: set[str] = set()
    if answers.exists():
        with answers.open("r+b") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    lines.truncate(lines.seek(-len(line), 2))
                    break
                done.add(json.loads(line)["id"])
    return done


async def main(options: argparse.Namespace) -> int:
    """Open an engine on `<answers>.db` and answer; returns the exit code."""
    stop = tfgrpo.StopSwitch()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.stop)
    price = {"input": options.input_price, "output": options.output_price}
    endpoint = {"base_url": options.base_url, "name": options.model, "price": price}
    if options.api_key_env:
        endpoint["api_key_env"] = options.api_key_env
    async with tfgrpo.Engine(
        endpoint,
        store=f"{options.answers}.db",
        limits=tfgrpo.Limits(concurrency=options.concurrency),
        budget=tfgrpo.Budget(usd=options.usd),
        stop=stop,
    ) as engine:
        try:
            failed = await answer(engine, options.prompts, options.answers)
        except tfgrpo.RunStoppedError as stopped:
            print(f"{stopped} Start it again to go on.", file=sys.stderr)
            return 3
        print(f"${engine.spent.usd:.2f} for {engine.spent.calls:,} calls; {failed:,} failed", file=sys.stderr)
        return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key-env", help="the environment variable that holds the key")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--usd", type=float, help="the hard stop")
    parser.add_argument("--input-price", type=float, default=0.0, help="US dollars per million tokens")
    parser.add_argument("--output-price", type=float, default=0.0)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
