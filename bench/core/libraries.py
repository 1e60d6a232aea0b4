"""Libraries that other projects learned: what of them is called a duplicate, and what a look-up in them costs.

    TFGRPO_BENCH_LIBRARIES=<folder> python -m bench.core.libraries [--show]

The files are not shipped. Each entry is asked for again in three ways whose answer is known: as it is and in capitals
without its last mark (a duplicate), and with a number changed (never one).
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench.core.corpus import real_libraries

from tfgrpo.library import ExperienceLibrary, Verdict
from tfgrpo.types import Operation, OperationKind

#: How many experiences each file has: another number means that it was read wrongly.
EXPECTED = {
    "ace-appworld-no-gt-playbook.txt": 318,
    "ace-initial-playbook.txt": 8,
    "flex-aime-deepseek.json": 139,
    "youtu-math.yaml": 27,
    "youtu-web.yaml": 46,
}
RECORD = Path(__file__).parents[1] / "record" / "libraries.md"
COLUMNS = [
    "library",
    "entries",
    "kept",
    "insert µs",
    "found as it is",
    "found in capitals",
    "numbers changed",
    "merged",
    "query µs",
]


def measure(name: str, texts: Sequence[str], *, show: bool) -> list[str]:
    """The row of one library."""
    operations = [Operation(OperationKind.ADD, text=text, index=index) for index, text in enumerate(texts)]
    start = time.process_time()
    library, report = ExperienceLibrary.empty().apply(operations)
    insert = (time.process_time() - start) / len(texts)
    if show:
        for drop in report.dropped:
            print(f"  {drop.reason}: {drop.operation.text}")
    entries = [entry.text for entry in library]
    spent = []

    def duplicate(text: str) -> bool:
        start = time.process_time()
        judgement = library.judge(text)
        spent.append(time.process_time() - start)
        return judgement.verdict is Verdict.DUPLICATE

    same = sum(duplicate(text) for text in entries)
    capitals = sum(duplicate(text.upper().rstrip(".")) for text in entries)
    changed = [re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text) for text in entries]
    changed = [text for text, entry in zip(changed, entries, strict=True) if text != entry]
    merged = sum(duplicate(text) for text in changed)
    cells = [name, len(texts), len(entries), f"{insert * 1e6:.0f}", same, capitals, len(changed), merged]
    return [*map(str, cells), f"{statistics.median(spent) * 1e6:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="print what is dropped as a duplicate")
    options = parser.parse_args()
    libraries = real_libraries()
    if not libraries:
        raise SystemExit("TFGRPO_BENCH_LIBRARIES names no folder with libraries: nothing is measured.")
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for name, texts in libraries.items():
        if len(texts) != EXPECTED.get(name, len(texts)):
            raise SystemExit(f"{name}: {len(texts)} experiences were read, {EXPECTED[name]} are in it.")
        rows.append(measure(name, texts, show=options.show))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    print(table)
    RECORD.write_text(f"# Libraries that other projects learned\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
