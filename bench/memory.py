"""Memory does not grow with the work: peak RSS of jobs of several sizes at the compiled mock server, and a resume.

`make bench-memory` writes bench/record/memory.md. Each job is a process of its own:

- map: `Engine.map` over so many requests; the outcomes are only counted.
- practice: a practice run of so many attempts, groups of five, baseline and evaluation of 20 tasks beside it.

The last part kills a map with SIGKILL about halfway and resumes it: the server's counts by key, and the store, say
whether a completed call was paid again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.engine import work
from bench.engine.provider import Provider

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "target" / "bench" / "release"
RECORD = ROOT / "bench" / "record" / "memory.md"
SIZES = (20_000, 100_000)
GROUP = 5


def requests(count: int) -> Iterator[tuple[str, Any]]:
    import tfgrpo

    for number in range(count):
        system, question = work.messages(number)
        messages = (
            tfgrpo.Message("system", system["content"]),
            tfgrpo.Message("user", f"{question['content']} (variant {number})"),
        )
        yield f"call/{number}", tfgrpo.ModelRequest(messages, max_tokens=work.MAX_TOKENS)


async def mapped(folder: Path, url: str, count: int) -> int:
    import tfgrpo

    endpoint = {"base_url": f"{url}/v1", "name": work.MODEL, "group_requests": "never"}
    limits = tfgrpo.Limits(concurrency=256, requests_per_minute=60_000_000)
    done = 0
    async with tfgrpo.Engine(endpoint, store=folder / "job.db", limits=limits) as engine:
        async for _key, outcome in engine.map(requests(count)):
            done += isinstance(outcome, tfgrpo.ModelReply)
    return done


async def practised(folder: Path, url: str, count: int) -> int:
    import tfgrpo

    for name, tasks in (("practice", count // GROUP), ("held_out", 20)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(tasks):
                text = f"{work.question(number)} ({name} {number})"
                file.write(json.dumps({"id": f"{name}{number}", "input": text, "truth": "7"}) + "\n")
    (folder / "config.toml").write_text(
        f'[model]\nbase_url = "{url}/v1"\nname = "{work.MODEL}"\n[expert.model]\ngroup_requests = "never"\n'
        '[data]\npractice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n'
        f"[practice]\nepochs = 1\nbatch_size = {count // GROUP}\ngroup_size = {GROUP}\n[evaluation]\nsamples = 1\n"
        "[limits]\nconcurrency = 256\nrequests_per_minute = 60_000_000\n",
        encoding="utf-8",
    )
    run = folder / "run"
    if (run / "journal.db").exists():
        await tfgrpo.resume(run)
    else:
        await tfgrpo.practice(tfgrpo.load_config(folder / "config.toml"), run_dir=run)
    return count


def child(job: str, folder: str, url: str, count: int) -> None:
    import uvloop

    started, cpu = time.perf_counter(), time.process_time()
    work_on = {"map": mapped, "practice": practised}[job]
    done = uvloop.run(work_on(Path(folder), url, count))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "done": done,
                "peak": usage.ru_maxrss / 1024,
                "cpu": time.process_time() - cpu,
                "wall": time.perf_counter() - started,
            }
        )
    )


def start(job: str, folder: Path, provider: Provider, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.memory", "--child", job, str(folder), provider.url, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finished(process: subprocess.Popen[str]) -> dict[str, float]:
    said, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a job ended with {process.returncode}")
    found: dict[str, float] = json.loads(said)
    return found


def measure(job: str, count: int, provider: Provider) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        provider.configure({"latency": {"seconds": 0.1}})
        found = finished(start(job, Path(folder), provider, count))
        served = provider.counts()["served"]
        asked = count if job == "map" else count + 40
        if served != asked or found["done"] != count:
            raise SystemExit(
                f"{job} {count}: {served} calls served, {found['done']:.0f} answers, {asked} wanted"
            )
        return found


def killed(count: int, provider: Provider) -> dict[str, float]:
    """Kill a map when half of it is served, resume it; nothing that was completed is served again."""
    from tfgrpo.journal import JournalReader

    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as name:
        folder = Path(name)
        provider.configure({"latency": {"seconds": 0.1}, "record_keys": True})
        process = start("map", folder, provider, count)
        while provider.counts()["served"] < count // 2:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with JournalReader(folder / "job.db") as reader:
            completed = {call.key.text for call in reader.calls() if call.state == "completed"}
            in_flight = reader.open_intents()
        time.sleep(0.5)
        provider.configure({"latency": {"seconds": 0.1}, "record_keys": True})
        found = finished(start("map", folder, provider, count))
        again = completed & set(provider.counts(keys=True)["keys"])
        return {**found, "completed": len(completed), "in flight": in_flight, "paid twice": len(again)}


def table(
    rows: dict[tuple[str, int], dict[str, float]], resumed: dict[str, float], sizes: tuple[int, ...]
) -> str:
    machine = f"{os.cpu_count()} cores, {platform.platform()}, CPython {platform.python_version()}"
    lines = [
        "# Memory beside the amount of work",
        "",
        f"`make bench-memory`, {machine}.",
        "Answers after 0.1 s, 256 in flight, store on disk. Every count is checked against the server's.",
        "",
        "| job | attempts | peak RSS, MB | CPU a call, µs | seconds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {job} | {count:,} | {found['peak']:.0f} | {found['cpu'] / count * 1e6:.0f} | {found['wall']:.0f} |"
        for (job, count), found in rows.items()
    ]
    lines.append("")
    small, large = sizes
    for job in ("map", "practice"):
        growth = rows[job, large]["peak"] / rows[job, small]["peak"] - 1
        lines.append(
            f"- {job}: {growth:+.1%} from {small:,} to {large:,} (at most +10 % is wanted, and 400 MB: "
            f"{'held' if growth <= 0.1 and rows[job, large]['peak'] <= 400 else 'missed'})"
        )
    lines.append(
        f"- map of {large:,}, killed at half and resumed: {resumed['completed']:,.0f} completed before the kill, "
        f"{resumed['in flight']:.0f} in flight, {resumed['paid twice']:.0f} completed calls paid again; peak of the "
        f"resume {resumed['peak']:.0f} MB."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.child:
        job, folder, url, count = given.child
        child(job, folder, url, int(count))
        return
    sizes = (1_000, 5_000) if given.quick else SIZES
    (ROOT / ".cache").mkdir(exist_ok=True)
    with Provider(SERVER) as provider:
        rows = {(job, count): measure(job, count, provider) for job in ("map", "practice") for count in sizes}
        resumed = killed(sizes[-1], provider)
    text = table(rows, resumed, sizes)
    print(text)
    if not given.quick:
        RECORD.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
