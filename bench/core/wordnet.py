"""Word facts out of WordNet 3.0's own files: strict synonyms, antonyms, and nouns of one field.

WordNet lists every sense a word ever had, so a first-come synonym is often wrong. Here two words are synonyms only
if each is the other's first sense and neither is ambiguous; what is left was read, most frequent first, and the
pairs that would change a sentence are struck out by name below.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from bench.core.sources import wordnet_files

POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_SENSE = {
    "1": "n",
    "2": "v",
    "3": "a",
    "4": "r",
    "5": "a",
}  # the part of speech in a sense key: word%2:30:00::


@dataclass(slots=True)
class Synset:
    words: list[str]
    lexical_field: int
    parents: list[str] = field(default_factory=list)
    antonyms: list[tuple[str, str]] = field(default_factory=list)  # (this word, the opposite one)


class WordNet:
    """The dictionary; a word's senses are in the order of how often tagged texts used them."""

    def __init__(self) -> None:
        files = wordnet_files()
        self.synsets: dict[str, Synset] = {}
        self.senses: dict[tuple[str, str], list[str]] = {}
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        links: list[tuple[str, int, str, int]] = []
        for name, pos in POS.items():
            for line in files[f"data.{name}"].splitlines():
                if not line.startswith("  "):
                    self._read_synset(pos, line.split(" | ")[0].split(), links)
            for line in files[f"index.{name}"].splitlines():
                if not line.startswith("  "):
                    parts = line.split()
                    count = int(parts[2])
                    self.senses[parts[0], pos] = [pos + offset for offset in parts[-count:]]
        for source, i, target, j in links:
            self.synsets[source].antonyms.append(
                (self.synsets[source].words[i - 1], self.synsets[target].words[j - 1])
            )
        for line in files["cntlist.rev"].splitlines():
            key, _, count_text = line.split()
            word, _, rest = key.partition("%")
            self.counts[word, _SENSE[rest[0]]] += int(count_text)

    def _read_synset(self, pos: str, parts: list[str], links: list[tuple[str, int, str, int]]) -> None:
        count = int(parts[3], 16)
        words = [parts[4 + 2 * i].split("(")[0].lower() for i in range(count)]
        synset = Synset(words, int(parts[1]))
        at = 4 + 2 * count
        for _ in range(int(parts[at])):
            symbol, offset, kind, ends = parts[at + 1 : at + 5]
            target = ("a" if kind == "s" else kind) + offset
            if symbol in {"@", "@i"}:
                synset.parents.append(target)
            elif symbol == "!":
                links.append((pos + parts[0], int(ends[0:2], base=16), target, int(ends[2:4], base=16)))
            at += 4
        self.synsets[pos + parts[0]] = synset

    def uses(self, word: str) -> list[str]:
        """The parts of speech that a word may have, without those that tagged texts hardly ever gave it."""
        found = [pos for pos in POS.values() if (word, pos) in self.senses]
        total = sum(self.counts[word, pos] for pos in found)
        return [pos for pos in found if self.counts[word, pos] >= 0.1 * total or total == 0]

    def one_use(self, word: str) -> str | None:
        """The word's part of speech if it has only one."""
        found = [pos for pos in POS.values() if (word, pos) in self.senses]
        return found[0] if len(found) == 1 else None

    def synonyms(self, word: str) -> list[str]:
        pos = self.one_use(word)
        senses = self.senses[word, pos] if pos else []
        if pos is None or not 1 <= len(senses) <= 3:
            return []
        return [
            other
            for other in self.synsets[senses[0]].words
            if other != word
            and other.isalpha()
            and len(other) > 3
            and self.one_use(other) == pos
            and self.senses[other, pos][0] == senses[0]
            and len(self.senses[other, pos]) <= 3
        ]

    def antonyms(self, word: str) -> list[str]:
        """The opposites that WordNet states for the word's first two senses, in its only part of speech."""
        uses = self.uses(word)
        if len(uses) != 1:
            return []
        found = []
        for sense in self.senses[word, uses[0]][:2]:
            found += [b for a, b in self.synsets[sense].antonyms if a == word and b.isalpha()]
        return list(dict.fromkeys(found))

    def ancestors(self, sense: str) -> set[str]:
        found: set[str] = set()
        todo = [sense]
        while todo:
            for parent in self.synsets[todo.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    todo.append(parent)
        return found
