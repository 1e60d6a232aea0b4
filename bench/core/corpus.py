"""The corpus of the near-duplicate bench: n texts, a fifth of them planted, with the truth of each written down.

`build(n, seed)` gives the same texts on every machine that serves the same packages; `python bench/core/corpus.py N`
prints the counts, examples and a digest, so that a bench can state what it expects to find.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import zstandard

if __package__ in {None, ""}:  # run as a script: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.core.duplicates import Duplicates
from bench.core.flips import Flips
from bench.core.lexicon import Lexicon
from bench.core.sources import CACHE, folded, sentences
from bench.core.wordnet import WordNet

_RULES = (
    "corpus",
    "duplicates",
    "flips",
    "lexicon",
    "sources",
    "wordnet",
    "words",
)  # what a cached corpus rests on

# Shares of the whole corpus, in thousandths: as many duplicates as flipped facts. The kinds that few sentences
# allow have smaller shares.
SHARES = {
    "exact": 20,
    "case": 25,
    "edit": 25,
    "synonym": 20,
    "paraphrase": 10,
    "flip-number": 18,
    "flip-negation": 20,
    "flip-antonym": 20,
    "flip-order": 17,
    "flip-swap": 2,
    "flip-noun": 23,
}
DUPLICATES = frozenset(kind for kind in SHARES if not kind.startswith("flip-"))


@dataclass(frozen=True, slots=True)
class Planted:
    """The text at `index` was made from the one at `base`, which comes before it."""

    index: int
    base: int
    kind: str


@dataclass(frozen=True, slots=True)
class Corpus:
    texts: list[str]
    planted: list[Planted]
    versions: dict[str, str]  # of the packages that the texts come from

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()


def _mixed(texts: list[str], count: int, draw: random.Random) -> Iterator[str]:
    """More texts than there are sentences: the head of one and the tail of another. For speed only."""
    seen: set[tuple[int, int, int]] = set()
    while len(seen) < count:
        a, b = draw.randrange(len(texts)), draw.randrange(len(texts))
        head, tail = texts[a].split(" "), texts[b].split(" ")
        cut = draw.randrange(2, max(3, len(head) - 2))
        if a != b and (a, b, cut) not in seen:
            seen.add((a, b, cut))
            yield " ".join(head[:cut] + tail[len(tail) // 2 :])


def _make(n: int, seed: int) -> tuple[list[str], list[Planted]]:
    draw = random.Random(f"corpus/{n}/{seed}")
    real = sentences().texts
    wanted = {kind: n * share // 1000 for kind, share in SHARES.items()}
    lexicon = Lexicon(WordNet(), real)
    same, other = Duplicates(lexicon), Flips(lexicon)
    rules: dict[str, Callable[[str, random.Random], str | None]] = {
        "exact": same.exact,
        "case": same.case,
        "edit": same.edit,
        "synonym": same.synonyms,
        "paraphrase": same.paraphrase,
        "flip-number": other.number,
        "flip-negation": other.negation,
        "flip-antonym": other.antonym,
        "flip-order": other.reorder,
        "flip-swap": other.swap,
        "flip-noun": other.noun,
    }
    bases = draw.sample(real, min(len(real), n - sum(wanted.values())))
    taken = {folded(text) for text in bases}
    made: list[tuple[int, str, str]] = []
    free = set(range(len(bases)))
    # The kinds that fit the fewest sentences choose first; each sentence is the base of one variant at most.
    for kind in sorted(wanted, key=lambda kind: (kind in {"exact", "case", "edit"}, wanted[kind])):
        count = 0
        for base in draw.sample(sorted(free), len(free)):
            if count == wanted[kind]:
                break
            text = rules[kind](bases[base], draw)
            if text is None or (kind != "exact" and text == bases[base]):
                continue
            if kind not in {"exact", "case"} and folded(text) in taken:
                continue
            taken.add(folded(text))
            made.append((base, kind, text))
            free.discard(base)
            count += 1
    # What a scarce kind could not fill is filled with other sentences, and then with mixed ones.
    missing = n - len(bases) - len(made)
    spare = [text for text in real if folded(text) not in taken]
    bases += draw.sample(spare, min(missing, len(spare)))
    bases += _mixed(real, n - len(bases) - len(made), draw)
    at = [draw.random() for _ in bases]
    order = [(when, i, -1) for i, when in enumerate(at)]
    order += [(draw.uniform(at[base], 1.0), base, j) for j, (base, _, _) in enumerate(made)]
    order.sort()
    where = {i: index for index, (_, i, j) in enumerate(order) if j < 0}
    texts = [bases[i] if j < 0 else made[j][2] for _, i, j in order]
    planted = [Planted(index, where[i], made[j][1]) for index, (_, i, j) in enumerate(order) if j >= 0]
    return texts, planted


def build(n: int, seed: int = 0) -> Corpus:
    """The corpus of n texts; made once and then read from the cache."""
    versions = sentences().versions
    code = [Path(__file__).with_name(f"{name}.py").read_text() for name in _RULES]
    key = hashlib.sha256(orjson.dumps([code, versions])).hexdigest()[:12]
    path = CACHE / f"corpus-{n}-{seed}-{key}.zst"
    if not path.exists():
        texts, planted = _make(n, seed)
        value = [texts, [[p.index, p.base, p.kind] for p in planted]]
        path.with_suffix(".part").write_bytes(zstandard.compress(orjson.dumps(value), 6))
        path.with_suffix(".part").replace(path)
    texts, rows = orjson.loads(zstandard.decompress(path.read_bytes()))
    return Corpus(texts, [Planted(*row) for row in rows], versions)


def real_library(path: Path) -> list[str]:
    """The experiences of one library that another project learned: its yaml, its playbook or its json."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(dict.fromkeys(_experiences(orjson.loads(text)["library"])))
    if path.suffix in {".yaml", ".yml"}:
        # The instructions are one quoted yaml string; an experience may be folded over several lines.
        text = re.sub(r"\\\n\s*(?:\\(?= ))?", "", text).replace("\\n", "\n").replace('\\"', '"')
        parts = re.split(r"\[G\d+\]\.?\s+", text)[1:]
        ends = [re.split(r"\n\s*\n\S|\"\n|'\n|\n[a-z_]+:", part)[0] for part in parts]
        return [" ".join(part.replace("''", "'").split()) for part in ends]
    parts = re.split(r"^\[[a-z]+-\d+\] ", text, flags=re.MULTILINE)[1:]
    return [" ".join(re.split(r"^## ", part, flags=re.MULTILINE)[0].split()) for part in parts]


def _experiences(value: object) -> Iterator[str]:
    """Every method and rule anywhere in a FLEX library."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key in {"method", "rule", "warning", "pitfall", "experience"}:
                yield " ".join(inner.split())
            else:
                yield from _experiences(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _experiences(inner)


def real_libraries(folder: Path | None = None) -> dict[str, list[str]]:
    """All libraries of a folder by file name; TFGRPO_BENCH_LIBRARIES names it where no folder is given, else none."""
    named = folder or os.environ.get("TFGRPO_BENCH_LIBRARIES")
    if not named:
        return {}
    files = sorted(
        path for path in Path(named).iterdir() if path.suffix in {".yaml", ".yml", ".txt", ".json"}
    )
    return {path.name: real_library(path) for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=3)
    parser.add_argument("--libraries", type=Path, help="folder of real libraries to count as well")
    options = parser.parse_args()
    corpus = build(options.n, options.seed)
    counts = Counter(p.kind for p in corpus.planted)
    for kind in SHARES:
        print(f"\n{kind}: {counts[kind]}")
        for p in [p for p in corpus.planted if p.kind == kind][: options.examples]:
            print(f"  - {corpus.texts[p.base]}\n    {corpus.texts[p.index]}")
    same = sum(counts[kind] for kind in DUPLICATES)
    print(f"\n{len(corpus.texts)} texts, {same} duplicates, {len(corpus.planted) - same} flipped facts")
    print("packages " + " ".join(f"{name}={version}" for name, version in corpus.versions.items()))
    for name, library in real_libraries(options.libraries).items():
        print(f"library {name}: {len(library)} experiences")
    print(f"sha256 {corpus.digest}")


if __name__ == "__main__":
    main()
