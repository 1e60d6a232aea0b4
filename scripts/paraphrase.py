"""Mechanical paraphrases of real sentences: synonyms of WordNet, clauses in another order, fewer function words."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION_WORDS = frozenset(
    {
        "a",
        "an",
        "the",
        "this",
        "these",
        "those",
        "that",
        "which",
        "its",
        "their",
        "it",
        "of",
        "to",
        "in",
        "on",
        "for",
        "by",
        "with",
        "as",
        "at",
        "is",
        "are",
        "was",
        "be",
        "can",
        "may",
        "will",
    }
)
_JOINT = re.compile(r", | (?=(?:if|when|because|unless|while|since|so that|after|before)\b)")
_WORD = re.compile(r"[a-z]+|[^a-z]+")


class Synonyms:
    """For a word its synonyms in the first sense that has any, with a naive plural, -ed and -ing."""

    def __init__(self, folder: Path) -> None:
        self._of: dict[str, list[str]] = {}
        for kind in ("noun", "verb", "adj", "adv"):
            sets = {}
            for line in (folder / f"data.{kind}").read_text(encoding="latin-1").split("\n"):
                if line[:1].isdigit():
                    fields = line.split(" ", 60)
                    count = int(fields[3], 16)
                    lemmas = [fields[4 + 2 * i].split("(")[0].lower() for i in range(min(count, 25))]
                    sets[fields[0]] = [lemma for lemma in lemmas if lemma.isascii() and lemma.isalpha()]
            for line in (folder / f"index.{kind}").read_text(encoding="latin-1").split("\n"):
                fields = line.split()
                if line[:1].isalpha() and fields[0].isalpha() and fields[0] not in self._of:
                    for offset in fields[-int(fields[2]) :]:
                        others = [lemma for lemma in sets.get(offset, ()) if lemma != fields[0]]
                        if others:
                            self._of[fields[0]] = others
                            break

    def of(self, word: str) -> list[str]:
        """Give the synonyms of a word in the form of the word; none for short and function words."""
        if len(word) < 4 or word in FUNCTION_WORDS:
            return []
        if word in self._of:
            return self._of[word]
        for ending, back in (
            ("ies", "y"),
            ("es", ""),
            ("s", ""),
            ("ed", ""),
            ("ed", "e"),
            ("ing", ""),
            ("ing", "e"),
        ):
            stem = word.removesuffix(ending) + back
            if word.endswith(ending) and stem in self._of:
                return [_inflect(other, ending) for other in self._of[stem]]
        return []


def _inflect(word: str, ending: str) -> str:
    if ending in {"ies", "es", "s"}:
        if word.endswith("y") and word[-2:-1] not in "aeiou":
            return word[:-1] + "ies"
        return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
    return word.removesuffix("e") + ending


def paraphrase(sentence: str, synonyms: Synonyms, rng: random.Random, share: float) -> str | None:
    """Say a folded sentence in other words; None if fewer than two of its words have synonyms.

    `share` is how many of the words that have synonyms are replaced.
    """
    sentence = sentence.rstrip(" .!?:;,")
    places = _WORD.findall(sentence)
    options = [i for i, word in enumerate(places) if word.isalpha() and synonyms.of(word)]
    if len(options) < 2:
        return None
    chosen = rng.sample(options, max(2, round(len(options) * share)))
    for i in chosen:
        places[i] = rng.choice(synonyms.of(places[i]))
    changed = "".join(places)
    parts = _JOINT.split(changed)
    if len(parts) > 1:
        at = rng.randrange(1, len(parts))
        changed = ", ".join(parts[at:] + parts[:at])
    kept = [
        word for word in changed.split(" ") if word.strip(",") not in FUNCTION_WORDS or rng.random() < 0.4
    ]
    return " ".join(kept)
