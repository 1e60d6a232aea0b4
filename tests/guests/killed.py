"""A practice run with a stranger's agent, killed again and again: each life is a forked child of a warm process.

`python -m tests.guests.killed FOLDER KILLS SEED` prints one JSON line: how many kills met a living engine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.guests.agents import ThreeTurns

import tfgrpo


def live(folder: Path) -> None:
    """Begin the run, or go on with it, to its end."""
    run = folder / "run"
    if (run / "journal.db").exists():
        tfgrpo.resume_sync(run, agent=ThreeTurns())
    else:
        tfgrpo.practice_sync(tfgrpo.load_config(folder / "config.toml"), run_dir=run, agent=ThreeTurns())


def fork(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(folder)
            code = 0
        finally:
            os._exit(code)
    return child


def main(folder: Path, kills: int, seed: int) -> int:
    draw, met = random.Random(seed), 0
    served = folder / "served.jsonl"
    for _ in range(kills):
        before = served.stat().st_size
        child = fork(folder)
        while served.stat().st_size == before and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.25))  # after the first call that this life paid for
        os.kill(child, signal.SIGKILL)
        met += os.waitpid(child, 0)[1] == signal.SIGKILL
    code = os.waitstatus_to_exitcode(os.waitpid(fork(folder), 0)[1])
    sys.stdout.write(json.dumps({"met": met, "code": code}) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
