"""The mock provider's process, seen from the runner."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CEILING_CALLS, CEILING_BODY = 60_000, 2_500


class Provider:
    """Starts the server and talks to it; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen([folder / "bench-server"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        if len(said) != 3:
            raise SystemExit("the mock server did not start")
        self.port = int(said[2])
        self.url = f"http://127.0.0.1:{self.port}"

    def configure(self, settings: dict[str, Any]) -> None:
        """New settings, all counts at zero."""
        self._ask(urllib.request.Request(f"{self.url}/configure", json.dumps(settings).encode()))

    def counts(self, *, keys: bool = False) -> dict[str, Any]:
        """What happened since."""
        return self._ask(urllib.request.Request(f"{self.url}/counts" + ("?keys=1" if keys else "")))

    def ceiling(self) -> dict[str, float]:
        """What the server alone can do here."""
        self.configure({})
        before = self.counts()["server_cpu"]
        command = [str(self.folder / "bench-ceiling"), str(self.port), str(CEILING_CALLS), str(CEILING_BODY)]
        rate = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        spent = self.counts()["server_cpu"] - before
        return {"calls a second": rate, "microseconds a call": spent / CEILING_CALLS * 1e6}

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        # No proxy of the environment stands between us.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.wait()
