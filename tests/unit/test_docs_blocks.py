"""The scripts that the pages show run as they stand, each in a process of its own with an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "how-to" / "your-own-parts.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_of_a_page_run(page: Path, tmp_path: Path) -> None:
    scripts = [code for code in BLOCK.findall(page.read_text("utf-8")) if code.startswith("import")]
    assert scripts
    # One process for all: starting Python takes longer than any of them. Each has names of its own.
    lines = ["import runpy, warnings", "warnings.simplefilter('error')"]
    for number, code in enumerate(scripts):
        path = tmp_path / f"script_{number}.py"
        path.write_text(code, "utf-8")
        lines.append(f"runpy.run_path({str(path)!r}, run_name='__main__')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout
