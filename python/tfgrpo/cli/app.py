"""The commands and their flags; each one is a thin shell around the library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter
from rich.console import Console

import tfgrpo
from tfgrpo.cli import init as init_room
from tfgrpo.cli import settings, terminal
from tfgrpo.cli.estimate import show as show_estimate
from tfgrpo.cli.inspect import comparison_of, diff_text, entries_text
from tfgrpo.config import Config, load_config, parse_override, trace_config
from tfgrpo.errors import ConfigError, TfgrpoError
from tfgrpo.forecast.estimate import Estimate
from tfgrpo.models.weights import fetch as fetch_weights
from tfgrpo.models.weights import known
from tfgrpo.observe import Progress
from tfgrpo.report.terminal import comparison_lines, summary
from tfgrpo.run.api import evaluate, practice, resume
from tfgrpo.run.doctor import examine, line
from tfgrpo.run.finish import Run, write_report
from tfgrpo.run.forecasting import estimate_practice
from tfgrpo.run.reading import library_of, log_of, log_text

app = App(
    name="tfgrpo",
    help="Training-Free GRPO: a frozen language model learns a library of experiences instead of weights.",
    version=tfgrpo.__version__,
    error_console=terminal.console,
)
library_app = App(name="library", help="Read a learned library: of a run directory, or a library file.")
models_app = App(name="models", help="The weights of the embedded model.")
config_app = App(name="config", help="Read a configuration file.")
app.command(config_app)
app.command(library_app)
app.command(models_app)

Json = Annotated[
    bool, Parameter(name="--json", negative=(), show_default=False, help="The result as JSON on stdout.")
]
Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative=(), show_default=False, help="KEY=VALUE over the file, repeatable."),
]
RunDir = Annotated[Path | None, Parameter(name="--run-dir", help="Default: runs/NAME-ID.")]


@app.command(name="practice")
def practice_command(
    config: Path,
    *,
    run_dir: RunDir = None,
    estimate: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    from_run: Annotated[Path | None, Parameter(name="--from", show_default=False)] = None,
    set: Sets = (),
    json: Json = False,
) -> int:
    """Learn a library and say whether it helps: baseline, practice, evaluation, comparison, report.

    Parameters
    ----------
    config
        The configuration file.
    estimate
        Only say what the run will take: calls, tokens, dollars, the least time. Nothing is sent or written.
    from_run
        With --estimate: a run directory whose means take the place of the guesses.
    """
    loaded = _load(config, set)
    if from_run is not None and not estimate:
        raise ConfigError("--from RUN_DIR goes with --estimate: it names the run whose means are taken.")
    if estimate:
        return _estimated(estimate_practice(loaded, from_run), json)
    with Progress(terminal.console) as progress:
        run = terminal.run_job(
            lambda stop: practice(
                loaded, hooks=[progress], run_dir=run_dir, stop=stop, fetching=terminal.Fetching()
            )
        )
    return _finish(run, json)


@app.command(name="evaluate")
def evaluate_command(
    config: Path,
    *,
    library: Path | None = None,
    run_dir: RunDir = None,
    set: Sets = (),
    json: Json = False,
) -> int:
    """Answer the held-out tasks, with a library or without, and report the mean reward.

    Parameters
    ----------
    config
        The configuration file.
    library
        A run directory or a library file to put in the prompt; without it the model runs as it is.
    """
    loaded = _load(config, set)
    prior = None if library is None else library_of(library)
    with Progress(terminal.console) as progress:
        run = terminal.run_job(
            lambda stop: evaluate(
                loaded,
                library=prior,
                hooks=[progress],
                run_dir=run_dir,
                stop=stop,
                fetching=terminal.Fetching(),
            )
        )
    return _finish(run, json)


@app.command(name="resume")
def resume_command(run: Path, *, set: Sets = (), json: Json = False) -> int:
    """Go on with a stopped run at the next call that is not completed.

    Parameters
    ----------
    run
        The run directory. --set changes only what `tfgrpo config show` marks as speed, such as limits and budget.
    """
    overrides = dict(parse_override(text) for text in set)
    with Progress(terminal.console) as progress:
        resumed = terminal.run_job(
            lambda stop: resume(
                run, overrides=overrides, hooks=[progress], stop=stop, fetching=terminal.Fetching()
            )
        )
    return _finish(resumed, json)


@app.command
def report(run: Path, *, json: Json = False) -> int:
    """Write result.json and report.html of a finished run again, from its journal.

    Parameters
    ----------
    run
        The run directory.
    """
    return _finish(write_report(run), json)


@app.command
def compare(run_a: Path, run_b: Path, *, json: Json = False) -> int:
    """Compare two runs on the held-out tasks they share, in pairs: B against A.

    Parameters
    ----------
    run_a
        A run directory; its evaluation with the learned library counts.
    run_b
        Another one.
    """
    comparison = comparison_of(run_a, run_b)
    if json:
        terminal.emit(comparison)
    else:
        terminal.say(comparison_lines(comparison, str(run_a), str(run_b)))
    return terminal.DONE


@app.command
def doctor(config: Path, *, set: Sets = (), json: Json = False) -> int:
    """Check configuration, data, endpoint, key, model, limits and disk, and say what to do.

    One test call of a few tokens is made.

    Parameters
    ----------
    config
        The configuration file.
    """
    overrides = dict(parse_override(text) for text in set)
    findings = terminal.run_job(lambda _stop: examine(config, overrides, terminal.Fetching()))
    if json:
        terminal.emit(findings)
    else:
        for finding in findings:
            terminal.say(line(finding))
    return terminal.DONE if all(finding.ok for finding in findings) else terminal.BAD_INPUT


@app.command
def init(
    folder: Path = Path(),
    *,
    data: Annotated[Path | None, Parameter(show_default=False)] = None,
    practice: Annotated[Path | None, Parameter(show_default=False)] = None,
    held_out: Annotated[Path | None, Parameter(show_default=False)] = None,
    base_url: Annotated[str | None, Parameter(show_default=False)] = None,
    model: Annotated[str | None, Parameter(show_default=False)] = None,
    api_key_env: Annotated[str | None, Parameter(show_default=False)] = None,
    local: Annotated[str | None, Parameter(show_default=False)] = None,
    recipe: Annotated[str | None, Parameter(show_default=False)] = None,
    verifier: Annotated[str | None, Parameter(show_default=False)] = None,
    seed: int = 0,
    force: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Json = False,
) -> int:
    """Write a first config.toml around your data. On a terminal, asks for what the flags do not say.

    Parameters
    ----------
    folder
        The folder to write into.
    data
        JSON lines (id, input, truth) to split by the seed into practice.jsonl and held_out.jsonl, one third held out.
    practice
        JSON lines to practise on, used where they are; goes with --held-out.
    held_out
        JSON lines to measure by.
    base_url
        An OpenAI-compatible chat endpoint; goes with --model.
    model
        The name of the endpoint's model.
    api_key_env
        The environment variable that holds the key; by default no key is sent.
    local
        Instead of an endpoint, an embedded model: "default", or a name from `tfgrpo models list`.
    recipe
        "paper" or "small-model"; by default "small-model" for an embedded model, else "paper".
    verifier
        "exact" (the default), "math", or "module:function".
    seed
        Of the split and of the run.
    force
        Overwrite files that exist.
    """
    given = init_room.Given(
        data, practice, held_out, base_url, model, api_key_env, local, recipe, verifier, seed, force
    )
    written = init_room.write_start(folder, given, estimate_practice)
    if json:
        terminal.emit(written)
    else:
        terminal.say(init_room.told(written))
    return terminal.DONE


@config_app.command(name="show")
def show_config(config: Path, *, set: Sets = (), json: Json = False) -> int:
    """Print every effective value, its mark (shapes results, or speed), and where it came from.

    Parameters
    ----------
    config
        The configuration file.
    """
    rows = settings.rows(trace_config(config, dict(parse_override(text) for text in set)))
    if json:
        terminal.emit(rows)
    else:
        terminal.say("\n".join(settings.lines(rows)))
    return terminal.DONE


@library_app.command
def show(source: Path, *, json: Json = False) -> int:
    """Print the experiences of a library.

    Parameters
    ----------
    source
        A run directory (its newest library) or a library file.
    """
    library = library_of(source)
    if json:
        sys.stdout.buffer.write(library.to_json() + b"\n")
    else:
        terminal.say(entries_text(library))
    return terminal.DONE


@library_app.command
def log(run: Path, *, json: Json = False) -> int:
    """What each step did to the library: operations applied, dropped and why, and the gate.

    Parameters
    ----------
    run
        A run directory.
    """
    steps = log_of(run)
    if json:
        terminal.emit(steps)
    else:
        terminal.say(log_text(steps))
    return terminal.DONE


@library_app.command
def diff(old: Path, new: Path, *, json: Json = False) -> int:
    """What changed from one library to another, by experience id.

    Parameters
    ----------
    old
        A run directory or a library file.
    new
        Another one.
    """
    difference = library_of(old).diff(library_of(new))
    if json:
        terminal.emit(difference)
    else:
        terminal.say(diff_text(difference))
    return terminal.DONE


@models_app.command(name="list")
def list_models(*, json: Json = False) -> int:
    """The models that `local = "…"` knows by name."""
    if json:
        terminal.emit(known())
    else:
        for weights in known():
            terminal.say(f"{weights.name}: {weights.bytes / 1e6:,.0f} MB, {weights.licence}")
    return terminal.DONE


@models_app.command
def fetch(name: str = "default", *, json: Json = False) -> int:
    """Download the weights of an embedded model and verify their hash.

    Parameters
    ----------
    name
        "default", a name from `tfgrpo models list`, or "hf:owner/repo/file.gguf".
    """
    path = terminal.run_job(lambda _stop: fetch_weights(name, terminal.Fetching()))
    if json:
        terminal.emit({"name": name, "path": str(path)})
    else:
        terminal.say(str(path))
    return terminal.DONE


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 done, 2 bad configuration or input, 3 stopped by budget or provider with everything kept, 130
        interrupted with everything kept.
    """
    try:
        result = app(arguments, exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        return terminal.BAD_INPUT  # cyclopts has said what is wrong
    except TfgrpoError as error:
        terminal.tell(error)
        return terminal.exit_code(error)
    except KeyboardInterrupt:
        terminal.console.print("tfgrpo: interrupted; everything acknowledged is kept.", style="red")
        return terminal.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return terminal.DONE
    return result if isinstance(result, int) else terminal.DONE


def _load(config: Path, sets: tuple[str, ...]) -> Config:
    return load_config(config, dict(parse_override(text) for text in sets))


def _estimated(estimate: Estimate, json: bool) -> int:
    if json:
        terminal.emit(estimate)
    else:
        show_estimate(estimate, Console(highlight=False))
    return terminal.DONE


def _finish(run: Run, json: bool) -> int:
    if json:
        terminal.emit(run.result)
    else:
        summary(run.result, terminal.console)
        if run.directory is not None:
            terminal.console.print(f"report: {run.directory / 'report.html'}", markup=False)
    return terminal.DONE
