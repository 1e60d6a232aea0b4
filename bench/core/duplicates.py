"""How a planted duplicate is made: each rule returns the variant, or None where it is not sure.

A rule that guesses spoils the bench: a "duplicate" whose meaning changed is a wrong answer that a right guard would
be blamed for. So each one refuses the sentences that it does not understand, and the next sentence is asked.
"""

from __future__ import annotations

import random
import re

from bench.core import words
from bench.core.lexicon import TOKEN, Lexicon, put

_CUES = frozenset(
    [
        "to",
        "can",
        "must",
        "will",
        "should",
        "may",
        "might",
        "could",
        "would",
        "you",
        "we",
        "they",
        "not",
        "cannot",
        "users",
        "and",
        "or",
    ]
)
_BE = frozenset(["is", "are", "was", "were", "be", "been", "being"])
_LEADING = re.compile(r"(If|When|Because|Although|Once|Unless|Whenever|After|Before) ([^,;:]+), ([^,;:]+)\.")
_TRAILING = re.compile(r"([^,;:]+?) (if|when|because|although|unless|whenever) ([^,;:]+)\.")
_FRONTED = re.compile(
    r"(By default|In practice|In this case|In general|At this point|As a result|In most cases), (.+)\."
)
_BOUND = re.compile(
    r"\b(?:even|only|as|and|or|but|just|especially|except|particularly|that|is|are|be|was|were|been|of|to)$"
)
# "The same", "the few", "the first" lose their meaning without the article.
_ARTICLE = re.compile(
    r"(?<=[a-z] )the (?=[a-z]{4,}\b)"
    r"(?!same|many|very|whole|entire|more|less|few|first|last|only|most|other|least|latter)"
)
_BEFORE_ALSO = frozenset(
    ["is", "are", "was", "were", "can", "could", "may", "must", "should", "will", "would", "you"]
)
_NO_STATEMENT = re.compile(
    r"(?:true|false|none|check|see|test|decide|verify|ask|if|when|how|what|why|who|which|is|are|do|does|can)\b"
)


def _is_filler(previous: str, word: str, text: str) -> bool:
    """Whether the word may go: "not very fast" is not "not fast", and "only ... but also" belongs together."""
    if word not in words.DROPPABLE or "only" in text or previous.endswith(("n't", "n’t", ",", "(")):
        return False
    if word == "also":
        return previous in _BEFORE_ALSO
    return previous.lower() not in {
        "not",
        "cannot",
        "so",
        "as",
        "too",
        "how",
        "the",
        "or",
        "and",
        "but",
        "never",
    }


class Duplicates:
    """Variants that say the same."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def exact(self, text: str, _draw: random.Random) -> str | None:
        """The same text."""
        return text

    def case(self, text: str, draw: random.Random) -> str | None:
        """Another case, spacing or final mark."""
        choice = draw.randrange(8)
        if choice < 3:
            if re.search(r"\b[A-Z]{2,}|\b[B-HJ-Z]\b", text):
                return None  # "US" and "us", "C" and "c" are different things
            return [text.lower(), text.upper(), text.lower().rstrip(".!")][choice]
        at = draw.choice([match.start() for match in re.finditer(" ", text)])
        return [
            text[:at] + "  " + text[at:],
            text[:-1] if text.endswith(".") else text + " ",
            "- " + text,
            text[:-1] + " " + text[-1],
            text[0].lower() + text[1:-1] if not text[1].isupper() and text[-1] == "." else "  " + text,
        ][choice - 3]

    def edit(self, text: str, draw: random.Random) -> str | None:
        """A typo in a long word, a dropped "the", or another spelling."""
        found = list(TOKEN.finditer(text))
        spelled = [match for match in found if match[0] in self.lexicon.spelling]
        if spelled:
            match = draw.choice(spelled)
            return text[: match.start()] + self.lexicon.spelling[match[0]] + text[match.end() :]
        articles = list(_ARTICLE.finditer(text))
        if articles and draw.random() < 0.3:
            match = draw.choice(articles)
            return text[: match.start()] + text[match.end() :]
        long = [match for match in found if len(match[0]) >= 6 and match[0].islower()]
        if not long:
            return None
        match = draw.choice(long)
        word = match[0]
        at = draw.randrange(1, len(word) - 1)
        typo = [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        ][draw.randrange(3)]
        known = typo in self.lexicon.counts or any(
            (typo, pos) in self.lexicon.wordnet.senses for pos in "nvar"
        )
        return None if known or typo == word else text[: match.start()] + typo + text[match.end() :]

    def _places(self, text: str) -> list[tuple[int, int, list[str]]]:
        """Where a synonym may stand: (start, end, choices)."""
        found = []
        previous = ""
        for match in TOKEN.finditer(text):
            word = match[0]
            choices = self.lexicon.synonym.get(word, [])
            if previous in _CUES - {"and", "or"}:
                choices = choices or self.lexicon.verbs.get(word, [])
            elif previous in _BE:
                choices = choices or self.lexicon.passives.get(word, [])
            if previous in {"very", "so", "as", "too", "how", "more", "most", "less"}:
                choices = []  # "too often", "as large as": the other word may not fit there
            if choices:
                found.append((match.start(), match.end(), choices))
            previous = word.lower()
        return found

    def _replace(self, text: str, places: list[tuple[int, int, list[str]]], draw: random.Random) -> str:
        for start, end, choices in sorted(places, reverse=True):
            text = put(text, start, end, draw.choice(choices))
        return text

    def synonyms(self, text: str, draw: random.Random) -> str | None:
        """One or two words replaced by true synonyms."""
        places = self._places(text)
        if not places:
            return None
        return self._replace(text, draw.sample(places, min(len(places), draw.choice((1, 1, 2)))), draw)

    def _lower(self, text: str) -> str | None:
        """The text with its first letter small, unless its first word may be a name."""
        word = text.split(" ", maxsplit=1)[0]
        if not word.isalpha() or not (
            word.lower() == "a" or (len(word) > 1 and self.lexicon.is_common(word.lower()))
        ):
            return None
        return text[0].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else None

    def _turned(self, text: str) -> str | None:
        """The same with its clauses the other way round."""
        if match := _FRONTED.fullmatch(text):
            rest = match[2]
            return f"{rest[0].upper()}{rest[1:]} {match[1].lower()}." if "," not in rest else None
        if match := _LEADING.fullmatch(text):
            word, condition, main = match.groups()
            # A pronoun in the main clause points back at the condition: turned around it would point at nothing.
            if (
                re.match(r"(?:then|it|they|this|that|these|those|its|their|he|she|and|but|or)\b", main)
                or " as" in main
                or " then " in text
                or condition == "all"
            ):
                return None
            return f"{main[0].upper()}{main[1:]} {word.lower()} {condition}."
        if match := _TRAILING.fullmatch(text):
            main, word, condition = match.groups()
            lowered = self._lower(main)
            # "especially if", "it is because", "is not ... because": there the clause belongs to the word before it.
            bound = _BOUND.search(main.lower()) or (word == "because" and re.search(r"\bnot\b|n't|n’t", main))
            clear = len(re.findall(r"\b(?:if|when|because|that|which|and|or|but|to)\b", main.lower())) == 0
            pronoun = re.match(
                r"(?:it|they|this|that|these|those|its|their|he|she|not|so|even|also|doing|and|or|then)\b",
                condition,
            )
            question = _NO_STATEMENT.match(main.lower())
            if (
                lowered
                and clear
                and not bound
                and len(main.split()) > 3
                and not pronoun
                and not question
                and len(condition.split()) > 2
            ):
                return f"{word.capitalize()} {condition}, {lowered}."
        return None

    def paraphrase(self, text: str, draw: random.Random) -> str | None:
        """Several harmless replacements, filler dropped, and the clauses turned around where that is safe."""
        places = self._places(text)
        changed = self._replace(text, draw.sample(places, min(len(places), 4)), draw)
        changes = min(len(places), 4)

        def phrase(match: re.Match[str]) -> str:
            new = self.lexicon.phrases[match[0].lower()]
            return new.capitalize() if match[0][0].isupper() else new

        changed, count = self.lexicon.phrase_pattern.subn(phrase, changed)
        changes += count
        before = ["", *changed.split(" ")]
        kept = [word for i, word in enumerate(before[1:]) if not (i and _is_filler(before[i], word, changed))]
        if len(kept) >= 5:
            changes += len(changed.split(" ")) - len(kept)
            changed = " ".join(kept)
        turned = self._turned(changed)
        if turned is not None:
            return turned if changes >= 1 else None
        return changed if changes >= 3 else None
