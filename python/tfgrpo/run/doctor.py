"""`tfgrpo doctor`: looks at everything a run needs before it costs anything, and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfgrpo.config import Config, load_config
from tfgrpo.dataset import load_dataset
from tfgrpo.distill import Prompts
from tfgrpo.errors import TfgrpoError
from tfgrpo.forecast.ceiling import CallSize, files_warning, open_files, which_binds
from tfgrpo.forecast.facts import LOCAL_SLOTS
from tfgrpo.run.build import build_verifier
from tfgrpo.run.inputs import limits_of, unpriced
from tfgrpo.run.providers import Fetching, no_fetching, open_models
from tfgrpo.types import Message, ModelRequest, Role, Struct

#: Free bytes below which a run is likely to fill the disk.
DISK_NEEDED = 1_000_000_000


class Finding(Struct, frozen=True):
    """One thing looked at: whether it is well, what was found, and what to do."""

    what: str
    ok: bool
    found: str


def line(finding: Finding) -> str:
    """A finding as a line."""
    return f"{'ok  ' if finding.ok else 'BAD '} {finding.what}: {finding.found}"


async def examine(
    path: Path, overrides: Mapping[str, Any], fetching: Fetching = no_fetching
) -> list[Finding]:
    """Look at a configuration and all it names; one test call of a few tokens is made per model."""
    try:
        config = load_config(path, dict(overrides))
    except TfgrpoError as error:
        return [Finding("configuration", False, error.message)]
    findings = [Finding("configuration", True, f"{path} is valid")]
    findings += _data(config)
    findings += [_disk(), *_limits(config), _money(config)]
    findings += await _models(config, fetching)
    return findings


def _data(config: Config) -> list[Finding]:
    findings = []
    for key, path in (("data.practice", config.data.practice), ("data.held_out", config.data.held_out)):
        if path is not None:
            try:
                data = load_dataset(path, key=key)
            except TfgrpoError as error:
                findings.append(Finding(key, False, error.message))
                continue
            truths = sum(task.truth is not None for task in data.tasks)
            found = f"{len(data.tasks):,} tasks, {truths:,} with a truth"
            findings.append(Finding(key, truths > 0 or config.verifier.kind == "python", found))
    for what, check in (
        ("verifier", lambda: build_verifier(config.verifier)),
        ("prompts", lambda: Prompts(config.distill.prompts)),
    ):
        try:
            check()
        except TfgrpoError as error:
            findings.append(Finding(what, False, error.message))
        else:
            findings.append(Finding(what, True, "loads"))
    return findings


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:,.1f} GB free here"
    return Finding("disk", free >= DISK_NEEDED, found if free >= DISK_NEEDED else f"{found}; free some first")


def _limits(config: Config) -> list[Finding]:
    """Which limit will bind, for each endpoint; and whether there are files enough for it."""
    limits = limits_of(config)
    files = open_files(limits.concurrency)
    if warning := files_warning(files, limits.concurrency):
        findings = [Finding("open files", False, warning)]
    else:
        raised = "" if files.permitted >= files.needed else f", raised from {files.permitted:,} for the run"
        findings = [Finding("open files", True, f"{files.needed:,} needed{raised}")]
    endpoints = {config.model.role(role): role for role in (Role.DISTILLER, Role.ROLLOUT)}
    for endpoint, role in sorted(endpoints.items(), key=lambda pair: pair[1] is Role.DISTILLER):
        what = "limits" if len(endpoints) == 1 else f"limits of the {role}"
        slots = LOCAL_SLOTS if endpoint.local is not None else None
        findings.append(Finding(what, True, which_binds(limits, CallSize(), slots)))
    return findings


def _money(config: Config) -> Finding:
    if roles := unpriced(config):
        found = f"budget.usd is set, but the {roles[0]} model has no [model.price]: set it, or budget.tokens"
        return Finding("budget", False, found)
    limits = config.budget.model_dump(exclude_none=True)
    return Finding(
        "budget", True, ", ".join(f"{key} = {value:,}" for key, value in limits.items()) or "none set"
    )


async def _models(config: Config, fetching: Fetching) -> list[Finding]:
    findings = []
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="tfgrpo-doctor-")))
        try:
            endpoints = {role: config.model.role(role) for role in Role}
            models = await open_models(endpoints, limits_of(config), stack, directory, fetching)
        except TfgrpoError as error:
            return [Finding("model", False, error.message)]
        seen: dict[int, None] = {}
        for role in Role:
            model = models[role]
            if id(model) in seen:
                continue
            seen[id(model)] = None
            endpoint = config.model.role(role)
            request = ModelRequest((Message("user", "Answer with the word ready."),), max_tokens=8)
            try:
                reply = await model.complete(request, key="doctor")
            except TfgrpoError as error:
                findings.append(Finding(f"model of the {role}", False, error.message))
                continue
            said = " ".join(reply.choices[0].content.split())[:40]
            where = endpoint.base_url or f"local:{endpoint.local}"
            found = f"{endpoint.label} at {where} answers ({reply.usage.tokens} tokens: {said!r})"
            findings.append(Finding(f"model of the {role}", True, found))
    return findings
