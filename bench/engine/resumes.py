"""A practice run that was interrupted after so many calls, and what `tfgrpo.resume` does until its first request."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from bench.engine import lessons, work

import tfgrpo
from tfgrpo.config import load_config
from tfgrpo.errors import RunStoppedError
from tfgrpo.models import Model, OpenAIModel, open_session
from tfgrpo.protocols import Observer
from tfgrpo.run.stop import StopSwitch
from tfgrpo.types import Choice, ModelReply, ModelRequest, Role, Usage

TASKS, BATCH, HELD_OUT = 1000, 100, 20


class Canned:
    """Answers in process as the mock provider would, and asks the run to stop after so many calls."""

    group_limit = 1

    def __init__(self, calls: int, switch: StopSwitch) -> None:
        self._left = calls
        self._switch = switch

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        self._left -= 1
        if self._left <= 0:
            self._switch.stop()
        choices = lessons.ANSWERS[_rule(request)]["choices"]
        text = choices[zlib.crc32(key.encode()) % len(choices)]
        return ModelReply((Choice(text),), Usage(1, 600, 0, 100), work.MODEL)

    async def aclose(self) -> None:
        return


class Once:
    """The shipped client; the run is asked to stop when the first answer is there."""

    group_limit = 1

    def __init__(self, model: Model, switch: StopSwitch) -> None:
        self._model = model
        self._switch = switch

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        reply = await self._model.complete(request, key=key, observer=observer, stream=stream)
        self._switch.stop()
        return reply

    async def aclose(self) -> None:
        await self._model.aclose()


def _rule(request: ModelRequest) -> int:
    """Which of the provider's rules a request meets."""
    if request.response_schema is not None:
        return ("advantage", "propose", "consolidate").index(request.schema_name)
    return 3 if any(lessons.OBJECTIVE in message.content for message in request.messages) else 4


def prepare(folder: Path, calls: int) -> Path:
    """Data and configuration; so many epochs that the run cannot end before it is interrupted."""
    for name, first, count in (("practice", 0, TASKS), ("held_out", 500_000, HELD_OUT)):
        rows = (
            {"id": f"t{number:06}", "input": work.question(number), "truth": lessons.TRUTH}
            for number in range(first, first + count)
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    path = folder / "config.toml"
    path.write_text(
        f"""
[model]
base_url = "http://127.0.0.1:9/v1"
name = "{work.MODEL}"
[limits]
concurrency = 256
[data]
practice = "practice.jsonl"
held_out = "held_out.jsonl"
[practice]
epochs = {calls // 8000 + 1}
batch_size = {BATCH}
learning_objective = "{lessons.OBJECTIVE}"
[expert.practice]
summaries = "always"
[agent]
system = {json.dumps(work.SYSTEM)}
""",
        encoding="utf-8",
    )
    return path


async def fill_run(ask: dict[str, Any]) -> dict[str, Any]:
    """The run, up to the interruption."""
    folder = Path(ask["directory"])
    config = load_config(prepare(folder, ask["calls"]), environment=False)
    switch = StopSwitch()
    models: dict[Role, Model] = dict.fromkeys(Role, Canned(ask["calls"], switch))
    try:
        await tfgrpo.practice(config, run_dir=folder / "run", models=models, stop=switch)
    except RunStoppedError:
        return {}
    raise RuntimeError("the run ended before it was interrupted")


async def first_of_run(ask: dict[str, Any]) -> dict[str, Any]:
    """Resume it with the shipped client, until the first new answer."""
    switch = StopSwitch()
    async with open_session(ask["in_flight"]) as session:
        model = OpenAIModel(ask["url"], work.MODEL, session=session, group_requests="never")
        models: dict[Role, Model] = dict.fromkeys(Role, Once(model, switch))
        try:
            await tfgrpo.resume(Path(ask["directory"]) / "run", models=models, stop=switch)
        except RunStoppedError:
            return {}
    raise RuntimeError("the run ended without a new call")
