"""The word lists behind the planted variants, joined with WordNet and with how often the corpus uses a word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from bench.core import words
from bench.core.wordnet import WordNet

TOKEN = re.compile(r"(?<![\w'’-])[A-Za-z]+(?![\w'’-])")


def _table(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in text.replace("\n", "|").split("|"):
        if parts := entry.split():
            found.setdefault(parts[0], []).extend(parts[1:])
    return found


def _arrows(text: str) -> dict[str, str]:
    pairs = (entry.partition(">") for entry in text.strip().replace("\n", "|").split("|"))
    return {found: new for found, _, new in pairs}


def put(text: str, start: int, end: int, new: str) -> str:
    """The text with one stretch replaced, its capital kept, and the article before it made to fit."""
    if text[start].isupper():
        new = new[0].upper() + new[1:]
    before = text[:start]
    if article := re.search(r"\b([Aa])(n?) $", before):
        wanted = "n" if new[0].lower() in "aeio" or new.startswith(("un", "up", "ul")) else ""
        before = before[: article.start()] + article[1] + wanted + " "
    return before + new + text[end:]


class Lexicon:
    """What the rules know of words; a pair of words stays only if WordNet states it too."""

    def __init__(self, wordnet: WordNet, texts: list[str]) -> None:
        self.wordnet = wordnet
        self.counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
        # "Spain" and "October" are nouns too, but as names they fit nowhere else.
        self._small = Counter(
            word for text in texts for word in re.findall(r"[A-Za-z]+", text) if word.islower()
        )
        self.named = {word for word, count in self.counts.items() if self._small[word] < 0.7 * count}
        self.opposite: dict[str, str] = {}
        for a, others in _table(words.ANTONYMS).items():
            if self._share(a, others[0], opposite=True):
                self.opposite |= {a: others[0], others[0]: a}
        self.spelling: dict[str, str] = {}
        for a, others in _table(words.SPELLINGS).items():
            for one, other in ((a, others[0]), (others[0], a)):
                self.spelling |= {one: other, one + "s": other + "s"}
        # "program" and "license", "dialog" are words of their own in American and in technical English.
        for word in (
            "program",
            "programs",
            "license",
            "licenses",
            "catalog",
            "catalogs",
            "dialog",
            "dialogs",
        ):
            self.spelling.pop(word)
        self.synonym: dict[str, list[str]] = {}
        for table in (words.ADVERBS, words.ADJECTIVES, words.NOUNS):
            for word, others in _table(table).items():
                if kept := [other for other in others if self._share(word, other)]:
                    self.synonym[word] = kept
        self.verbs = {
            word: kept
            for word, others in _table(words.VERBS).items()
            if (kept := [other for other in others if self._share(word, other)])
        }
        self.passives = {
            words.PARTICIPLES[word]: [
                words.PARTICIPLES[other] for other in others if other in words.PARTICIPLES
            ]
            for word, others in self.verbs.items()
            if word in words.PARTICIPLES
        }
        self.order = _arrows(words.ORDER)
        self.order_pattern = re.compile(rf"\b({'|'.join(sorted(self.order, key=len, reverse=True))})\b")
        self.phrases = _arrows(words.PHRASES)
        self.phrase_pattern = re.compile(
            rf"(?<![\w'-])({'|'.join(sorted(self.phrases, key=len, reverse=True))})(?! [^a-z]|[^ ])",
            re.IGNORECASE,
        )
        self.fields: dict[tuple[int, bool], list[str]] = defaultdict(list)
        for word in sorted(self.counts):
            if (found := self.noun_field(word)) and self.counts[word] >= 60:
                self.fields[found].append(word)

    def _share(self, a: str, b: str, *, opposite: bool = False) -> bool:
        """Whether WordNet knows the two as synonyms (in some synset) or as opposites."""
        for pos in "nvar":
            for sense in self.wordnet.senses.get((a, pos), []):
                synset = self.wordnet.synsets[sense]
                if ((a, b) in synset.antonyms) if opposite else (b in synset.words):
                    return True
        return False

    def noun_field(self, word: str) -> tuple[int, bool] | None:
        """(WordNet's field of the word's first sense, whether it is a plural), for a word that is always a noun."""
        if len(word) < 4 or word in words.VAGUE or word in self.named or word.endswith("ing"):
            return None
        for base, plural in ((word, False), (word.removesuffix("s"), True)):
            if (
                self.wordnet.one_use(base) == "n"
                and not base.endswith("s")
                and (base == word or not word.endswith("ss"))
            ):
                senses = self.wordnet.senses[base, "n"]
                place = self.wordnet.synsets[senses[0]].lexical_field
                return (place, plural) if len(senses) <= 4 and 4 <= place <= 28 else None
        return None

    def is_common(self, word: str) -> bool:
        """Whether a capital is only that of the sentence's start: "Exim" and "Octave" keep theirs."""
        return self.counts[word] >= 50 and self._small[word] >= 0.3 * self.counts[word]

    def parents(self, senses: set[str]) -> set[str]:
        return {parent for sense in senses for parent in self.wordnet.synsets[sense].parents}

    def all_senses(self, word: str) -> set[str]:
        senses = self.wordnet.senses
        return {s for base in (word, word.removesuffix("s")) for s in senses.get((base, "n"), [])}

    def around(self, senses: set[str]) -> set[str]:
        return set().union(*(self.wordnet.ancestors(sense) for sense in senses))
