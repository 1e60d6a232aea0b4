"""Real sentences and word counts out of the text that packages ship: HTML, plain text, WordNet's data files.

Nothing of a text goes into the word table but how often a word occurs.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES = {".html", ".htm", ".txt", ".text", ".rst", ".jsonl", ".md"}

_DROPPED = re.compile(
    r"<(script|style|pre|head|nav|footer|svg|code|tt)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_BLOCK = re.compile(
    r"</?(p|div|li|ul|ol|dl|dt|dd|h[1-6]|td|th|tr|table|br|section|blockquote)\b[^>]*>", re.IGNORECASE
)
_TAG = re.compile(r"<[^>]*>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:'\"()?!%$+/=-]+")


def fold(text: str) -> str:
    """Fold a text as the Rust core's `text::key` does before it embeds: NFKC and lower case."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def words(folded: str) -> list[str]:
    """Split a folded text into runs of letters and runs of digits."""
    return _WORD.findall(folded)


def _blocks(path: Path) -> Iterator[str]:
    raw = path.read_bytes().decode("utf-8", errors="replace")
    if path.suffix in {".html", ".htm"}:
        raw = _DROPPED.sub(" ", raw)
        raw = _TAG.sub("", _BLOCK.sub("\n\n", raw))
        raw = html.unescape(raw)
    elif path.suffix == ".jsonl":
        raw = "\n\n".join(str(json.loads(line).get("input", "")) for line in raw.split("\n") if line.strip())
    elif path.name.startswith("data."):  # WordNet: the gloss stands behind the bar
        raw = "\n\n".join(
            ". ".join(part.strip(' "').capitalize() for part in line.partition(" | ")[2].split(";"))
            for line in raw.splitlines()
        )
    for block in re.split(r"\n\s*\n", raw):
        line = " ".join(block.split())
        if line:
            yield line


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the text files under the paths, in the order of their names."""
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and (file.suffix in SUFFIXES or file.name.startswith("data.") or file == path):
                yield file


def _is_sentence(line: str) -> bool:
    spaces = line.count(" ")
    letters = sum(character.isalpha() for character in line)
    return 4 <= spaces < 40 and len(line) < 320 and letters > 0.7 * len(line) and bool(_PLAIN.fullmatch(line))


def read(paths: Iterable[Path]) -> tuple[Counter[str], Counter[str], list[str]]:
    """Count each word, count in how many of the paths it occurs, and collect the distinct sentences."""
    counts: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    seen: set[bytes] = set()
    sentences: dict[str, str] = {}
    for path in paths:
        here: Counter[str] = Counter()
        for block in (block for file in files([path]) for block in _blocks(file)):
            folded = fold(block)
            mark = hashlib.blake2b(folded.encode("utf-8", "replace"), digest_size=8).digest()
            if mark in seen:  # menus, licences and footers repeat on every page
                continue
            seen.add(mark)
            here.update(words(folded))
            for line in _SENTENCE_END.split(block):
                if _is_sentence(line):
                    sentences.setdefault(fold(line).rstrip(" .!?,;:"), line)
        counts.update(here)
        spread.update(here.keys())
    return counts, spread, list(sentences.values())


def part(text: str, parts: int) -> int:
    """Put a sentence into one of `parts` parts by its hash: the same part whatever else is read."""
    return int.from_bytes(hashlib.blake2b(fold(text).encode(), digest_size=8).digest(), "little") % parts
