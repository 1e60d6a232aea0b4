"""The command line: `tfgrpo practice config.toml` and its kin. Results go to stdout, all else to stderr."""

from tfgrpo.cli.app import main

__all__ = ["main"]
