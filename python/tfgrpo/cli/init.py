"""`tfgrpo init`: writes a first configuration around the user's data, and splits the data where it is one file."""

from __future__ import annotations

import os
import random
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tfgrpo.cli import terminal
from tfgrpo.cli.template import Choices, template
from tfgrpo.config import Config, resolve_config
from tfgrpo.dataset import Dataset, load_dataset
from tfgrpo.errors import ConfigError, DataError
from tfgrpo.types import Struct

PRACTICE, HELD_OUT = "practice.jsonl", "held_out.jsonl"

#: A split holds out one question in so many.
ONE_IN = 3

NEEDS_DATA = (
    "tfgrpo init needs your data: --data FILE (JSON lines, split into practice and held-out tasks), or "
    "--practice FILE and --held-out FILE."
)
NEEDS_MODEL = (
    "tfgrpo init needs a model: --base-url URL and --model NAME of an OpenAI-compatible endpoint, or "
    "--local default for the embedded model."
)


@dataclass(frozen=True)
class Given:
    """The flags as they were given; None is not said."""

    data: Path | None = None
    practice: Path | None = None
    held_out: Path | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    local: str | None = None
    recipe: str | None = None
    verifier: str | None = None
    seed: int = 0
    force: bool = False


class Written(Struct, frozen=True):
    """The files that were written or are used, and how many tasks they hold."""

    config: str
    practice: str
    held_out: str
    practice_tasks: int
    held_out_tasks: int


def write_start(folder: Path, given: Given, check: Callable[[Config], object]) -> Written:
    """Write a configuration, and the two data files where one is split.

    Args:
        folder: the folder to write into, created where it is missing.
        given: the flags; on a terminal the rest is asked, elsewhere defaults are taken.
        check: raises a ConfigError where a run with the configuration would be refused.

    Raises:
        ConfigError: a flag is missing or contradicts another, a file exists already, or data are unusable; then
            nothing was written.
    """
    config_path = folder / "config.toml"
    _contradictions(given)
    _must_be_free(config_path, given)
    given = _asked(given)
    with TemporaryDirectory(prefix="tfgrpo-init-") as name:
        # A split is tried before it is written: an error leaves nothing behind.
        staged = Path(name)
        texts: dict[Path, str] = {}
        if given.data is not None:
            for part, text in _split(_data(given.data, "--data", given.verifier), given.seed).items():
                _must_be_free(folder / part, given)
                (staged / part).write_text(text, encoding="utf-8", newline="\n")
                texts[folder / part] = text
            practice, held_out = staged / PRACTICE, staged / HELD_OUT
            named = (PRACTICE, HELD_OUT)
        elif given.practice is not None and given.held_out is not None:
            practice, held_out = given.practice.resolve(), given.held_out.resolve()
            named = (_relative(practice, folder), _relative(held_out, folder))
        else:
            raise ConfigError(NEEDS_DATA)
        tasks = [
            len(_data(path, flag, given.verifier).tasks)
            for path, flag in ((practice, "--practice"), (held_out, "--held-out"))
        ]
        texts[config_path] = template(_choices(given, folder, named))
        overrides = {"data.practice": practice, "data.held_out": held_out}
        body = tomllib.loads(texts[config_path])
        check(resolve_config(body, overrides, place=str(config_path), environment=False))
    _write(folder, texts, force=given.force)
    places = [str(folder / path) for path in named]
    return Written(str(config_path), places[0], places[1], tasks[0], tasks[1])


def told(written: Written) -> str:
    """The files and the next commands, for a person."""
    config = written.config
    return (
        f"wrote {config}: {written.practice_tasks:,} tasks to practise on in {written.practice}, "
        f"{written.held_out_tasks:,} held out in {written.held_out}\n"
        f"next:  tfgrpo doctor {config}\n"
        f"       tfgrpo practice --estimate {config}\n"
        f"       tfgrpo practice {config}"
    )


def _contradictions(given: Given) -> None:
    if given.data is not None and (given.practice or given.held_out):
        raise ConfigError(
            "--data is one file to split; leave it out, or leave --practice and --held-out out."
        )
    if given.local is not None and (given.base_url or given.model or given.api_key_env):
        raise ConfigError(
            "--local is the embedded model; --base-url, --model and --api-key-env do not go with it."
        )


def _must_be_free(path: Path, given: Given) -> None:
    if given.data is not None and path.exists() and given.data.exists() and path.samefile(given.data):
        raise ConfigError(f"{path} is the file to split and would be overwritten; choose another folder.")
    if path.exists() and not given.force:
        raise ConfigError(f"{path} exists already; choose another folder, or overwrite it with --force.")


def _asked(given: Given) -> Given:
    """Complete the flags: asked on a terminal, else by defaults; raises a ConfigError where there is no default."""
    ask = _question if sys.stdin.isatty() else None
    found = dict(vars(given))
    if not given.data and not (given.practice and given.held_out):
        if ask is None:
            raise ConfigError(NEEDS_DATA)
        if not (given.practice or given.held_out):
            found["data"] = ask("data file to split, JSON lines (empty: two files)", NEEDS_DATA, Path)
        if not found["data"]:
            for key, what in (("practice", "practice tasks"), ("held_out", "held-out tasks")):
                found[key] = found[key] or ask(f"file of the {what}, JSON lines", NEEDS_DATA, Path)
        if not found["data"] and not (found["practice"] and found["held_out"]):
            raise ConfigError(NEEDS_DATA)
    if not given.local and not (given.base_url and given.model):
        if ask is None:
            raise ConfigError(NEEDS_MODEL)
        found["base_url"] = given.base_url or ask(
            "base URL of the endpoint (empty: the embedded model)", NEEDS_MODEL, str
        )
        if found["base_url"]:
            found["model"] = given.model or ask("name of the model", NEEDS_MODEL, str)
            if not found["model"]:
                raise ConfigError(NEEDS_MODEL)
        elif given.model:
            raise ConfigError(NEEDS_MODEL)
        else:
            found["local"] = "default"
    if ask is not None and found["base_url"] and given.api_key_env is None:
        found["api_key_env"] = ask("environment variable with the key (empty: none)", NEEDS_MODEL, str)
    if ask is not None and given.verifier is None:
        found["verifier"] = ask("verifier: exact, math or module:function (empty: exact)", NEEDS_MODEL, str)
    found["verifier"] = found["verifier"] or "exact"
    found["recipe"] = found["recipe"] or ("small-model" if found["local"] else "paper")
    return Given(**found)


def _question(question: str, needed: str, kind: Callable[[str], object]) -> object:
    """Ask on stderr; None for an empty answer.

    Raises:
        ConfigError: the input ended; it says what is needed.
    """
    terminal.console.print(f"{question}: ", end="", markup=False, soft_wrap=True)
    line = sys.stdin.readline()
    if not line:
        raise ConfigError(needed)
    return kind(line.strip()) if line.strip() else None


def _data(path: Path, flag: str, verifier: str | None) -> Dataset:
    """A data file, checked for truths where the verifier compares with them."""
    if not path.is_file():
        raise DataError(f"{flag}: there is no file {path}.")
    data = load_dataset(path, key=flag)
    missing = [task.id for task in data.tasks if task.truth is None]
    if missing and ":" not in str(verifier):
        raise DataError(
            f"{flag}: {len(missing)} of {len(data.tasks)} tasks of {path} have no truth, the first is {missing[0]!r}, "
            f"and the verifier {verifier} compares with it; add the truths, or grade with --verifier module:function."
        )
    return data


def _split(data: Dataset, seed: int) -> dict[str, str]:
    """Split a data file by the seed into the texts of two; tasks of equal input stay together."""
    inputs = list(dict.fromkeys(task.input.strip() for task in data.tasks))
    if len(inputs) < 2:
        raise DataError(f"--data: {data.path} holds one question only; a split needs two different ones.")
    held_out = set(random.Random(f"{seed}/split").sample(inputs, max(1, len(inputs) // ONE_IN)))
    # By bytes, as the data file is read: a carriage return inside a line is no end of it.
    text = Path(data.path).read_bytes().decode("utf-8-sig")
    lines = [line for line in text.split("\n") if line.strip()]
    parts: dict[str, list[str]] = {PRACTICE: [], HELD_OUT: []}
    for task, line in zip(data.tasks, lines, strict=True):
        parts[HELD_OUT if task.input.strip() in held_out else PRACTICE].append(line.strip() + "\n")
    return {part: "".join(own) for part, own in parts.items()}


def _choices(given: Given, folder: Path, data: tuple[str, str]) -> Choices:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-")[:40]
    return Choices(
        name=name or "run",
        seed=given.seed,
        base_url=given.base_url,
        model=given.model,
        api_key_env=given.api_key_env,
        local=given.local,
        recipe=str(given.recipe),
        verifier=str(given.verifier),
        practice=data[0],
        held_out=data[1],
    )


def _relative(path: Path, folder: Path) -> str:
    """A path as the configuration names it: relative to its folder if it lies there, else absolute."""
    inside = path.is_relative_to(folder.resolve())
    return path.relative_to(folder.resolve()).as_posix() if inside else path.as_posix()


def _write(folder: Path, texts: dict[Path, str], *, force: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from None
