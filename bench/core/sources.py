"""Real English sentences out of the documentation that Debian packages ship, and WordNet's files beside them.

The packages are fetched by the ordinary client into a cache folder and read from there, never installed. Their
versions are pinned to those of Debian 12, chosen among packages that no longer change, because the bench states
the counts it must find; another version still works and says so.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import orjson
import zstandard

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
EXTRACTOR = 4  # raise it when a rule below changes: it is part of the cache's key

WORDNET = ("wordnet-base", "1:3.0-37")
PACKAGES = (
    ("anarchism", "15.3-3"),
    ("aptitude-doc-en", "0.8.13-5"),
    ("autoconf-doc", "2.71-3"),
    ("bash-doc", "5.2.15-2"),
    ("cmake-doc", "3.25.1-1"),
    ("debian-faq", "11.1"),
    ("debian-handbook", "11.20220922"),
    ("debian-policy", "4.6.2.0"),
    ("debian-reference-en", "2.100"),
    ("developers-reference", "12.18"),
    ("exim4-doc-html", "4.96-1"),
    ("ganeti-doc", "3.0.2-3"),
    ("gap-doc", "4.12.1-2"),
    ("gimp-help-en", "2.10.34-2"),
    ("gnome-user-docs", "43.0-2"),
    ("kicad-doc-en", "6.0.11+dfsg-1"),
    ("libboost1.74-doc", "1.74.0+ds1-21"),
    ("lilypond-doc-html", "2.24.1-2"),
    ("llvm-15-doc", "1:15.0.6-4"),
    ("maint-guide", "1.2.53"),
    ("maxima-doc", "5.46.0-11"),
    ("octave-doc", "7.3.0-2"),
    ("python-biopython-doc", "1.80+dfsg-4"),
    ("python-pandas-doc", "1.5.3+dfsg-2"),
    ("python-scipy-doc", "1.10.1-2"),
    ("python-sqlalchemy-doc", "1.4.46+ds1-1"),
    ("python-sympy-doc", "1.11.1-1"),
    ("r-doc-html", "4.2.2.20221110-2"),
    ("rust-doc", "1.63.0+dfsg1-2"),
)


@dataclass(frozen=True, slots=True)
class Sentences:
    """The distinct sentences in a fixed order, and what they were read from."""

    texts: list[str]
    versions: dict[str, str]


_RENEWING = threading.Lock()  # apt keeps a lock of its own, which a second thread would fail at


def _download(name: str, version: str) -> Path:
    """The package's file in the cache; fetched if it is not there, in the pinned version if that is still served."""
    folder = CACHE / "debs"
    folder.mkdir(parents=True, exist_ok=True)
    pinned = version.replace(":", "%3a")
    if found := sorted(folder.glob(f"{name}_{pinned}_*.deb")):
        return found[0]
    for attempt, wanted in enumerate((f"{name}={version}", f"{name}={version}", name)):
        if attempt == 1:  # the list of packages is old or missing: renewing it needs root, and may fail
            with _RENEWING:
                subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", wanted]
            subprocess.run(command, cwd=inside, check=False, capture_output=True)
            if files := sorted(Path(inside).glob("*.deb")):
                return files[0].replace(folder / files[0].name)
    raise RuntimeError(f"the Debian package {name} could not be fetched: try `apt-get update` as root")


def _version(package: Path) -> str:
    return package.name.split("_")[1].replace("%3a", ":")


def _members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Each regular file of a package with its content, in the package's own order, without unpacking to disk."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if member.isfile() and (member.name.endswith(_PAGES) or "/wordnet/" in member.name):
                file = archive.extractfile(member)
                content = file.read() if file is not None else b""
                yield member.name, gzip.decompress(content) if member.name.endswith(".gz") else content


def wordnet_files() -> dict[str, str]:
    """WordNet's files by their names (`data.noun`, `index.verb`, ...)."""
    return {
        Path(name).name: content.decode() for name, content in _members(_download(*WORDNET)) if "." in name
    }


_PAGES = (".html", ".html.gz", ".htm", ".page")
# Folders and endings of pages in other languages, of listings of source, and of lists that programs wrote.
_SKIPPED = re.compile(
    r"/(?!en-US/|en/|en_US/)[a-z]{2}([-_][A-Z]{2})?/(?=[^/]+$)|\.(?!en)[a-z]{2}(_[A-Z]{2})?\.html"
    r"|html/src/|implementors|genindex|/core/arch/|/stdarch|changelog|release|whatsnew|/help/(?!C/)[^/]+/[^/]+/.*page"
)
_DROPPED = re.compile(
    r"<!--.*?-->|<(script|style|pre|head|nav|table|footer|svg|math|title|kbd|screen|h[1-6])\b.*?</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_INLINE = re.compile(
    r"</?(?:a|b|i|em|strong|code|tt|span|var|samp|acronym|abbr|cite|dfn|q|u|font|sub|sup|small|gui\w*|app|key|link|cmd)"
    r"\b[^>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^>]*>")
_ENDS = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[A-Z\"(])")
_NO_END = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|Dr|Mr|Mrs|St|No|Fig|Sec|Ch|al|approx|p|pp|ed|vol|[A-Z]))\.$"
)
_FUNCTION = frozenset(
    [
        "the",
        "of",
        "to",
        "and",
        "is",
        "that",
        "which",
        "with",
        "for",
        "this",
        "you",
        "it",
        "in",
        "on",
        "by",
        "be",
        "can",
        "are",
        "not",
        "as",
        "from",
        "if",
        "when",
    ]
)
# Signs of code, formulas, paths, links and lost markup.
_CODE = re.compile(
    r"[{}<>=\\|^~_@#$%*\[\]¶§«»�/\x00-\x1f]|::|->|\(\)|--|\.\.|\d\.\d+\.|\.\w{2,4}\b(?=[ ,)])|\s[,.;:)]|\(\s"
    r"|[a-z][A-Z]|[.,;:!?][A-Za-z]|''|``|\b[a-z]+\d"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*$")


def _is_sentence(text: str) -> bool:
    words = text.split(" ")
    if not 5 <= len(words) <= 40 or not text[0].isupper() or text[-1] not in ".!?" or _CODE.search(text):
        return False
    if text.count("(") != text.count(")") or text.count('"') % 2 or not text.isprintable():
        return False
    bare = [word.strip(".,;:!?\"'()“”‘’") for word in words]
    plain = sum(1 for word in bare if _WORD.match(word))
    capitals = sum(1 for word in bare[1:] if word[:1].isupper())
    known = sum(1 for word in bare if word.lower() in _FUNCTION)
    short = sum(1 for word in bare if len(word) < 2 and word not in {"a", "A", "I"})
    return (
        plain >= 0.85 * len(words)
        and capitals <= 0.3 * len(words)
        and known >= max(2, len(words) // 8)
        and short <= 1
        and max(map(len, bare)) <= 20
    )


def sentences_of(page: str) -> Iterator[str]:
    """The plain sentences of one page: what looks like code, a heading, a fragment or a table is left out."""
    page = page.replace("\x00", "")
    page = _TAG.sub("\x00", _INLINE.sub("", _DROPPED.sub("\x00", page)))
    for block in page.split("\x00"):
        if len(block) < 20:
            continue
        text = " ".join(html.unescape(block).split())
        start = ""
        for part in _ENDS.split(text):
            candidate = f"{start} {part}" if start else part
            if _NO_END.search(candidate):
                start = candidate
                continue
            start = ""
            if candidate and _is_sentence(candidate):
                yield candidate


_FOLD = re.compile(r"[\W_]+")


def folded(text: str) -> str:
    """The text without case, spacing and punctuation: two sentences alike in this are one to the corpus."""
    return _FOLD.sub(" ", text.casefold()).strip()


def _in_own_process(package: Path) -> list[str]:
    """A package's sentences, read by another run of this file, so that every core reads one."""
    run = subprocess.run([sys.executable, __file__, str(package)], check=True, stdout=subprocess.PIPE)
    texts: list[str] = orjson.loads(run.stdout)
    return texts


def _sentences_in(package: Path) -> list[str]:
    return [
        text
        for name, content in _members(package)
        if not _SKIPPED.search(name)
        for text in sentences_of(content.decode("utf-8", "replace"))
    ]


@cache
def sentences() -> Sentences:
    """All the sentences; the second call and the next run read them from the cache."""
    with ThreadPoolExecutor(4) as pool:
        packages = list(pool.map(lambda wanted: _download(*wanted), (WORDNET, *PACKAGES)))
    versions = {package.name.split("_")[0]: _version(package) for package in packages}
    key = hashlib.sha256(orjson.dumps([EXTRACTOR, versions])).hexdigest()[:16]
    path = CACHE / f"sentences-{key}.zst"
    if not path.exists():
        found: dict[str, str] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for package, texts in zip(packages[1:], pool.map(_in_own_process, packages[1:]), strict=True):
                before = len(found)
                for text in texts:
                    found.setdefault(folded(text), text)
                print(f"{package.name}: {len(found) - before} sentences", file=sys.stderr)
        packed = zstandard.compress("\n".join(found.values()).encode(), 9)
        path.with_suffix(".part").write_bytes(packed)
        path.with_suffix(".part").replace(path)
    changed = {name: versions[name] for name, version in (*PACKAGES, WORDNET) if versions[name] != version}
    if changed:
        print(f"not the pinned versions, so other counts are to be expected: {changed}", file=sys.stderr)
    return Sentences(zstandard.decompress(path.read_bytes()).decode().split("\n"), versions)


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(_sentences_in(Path(sys.argv[1]))))
