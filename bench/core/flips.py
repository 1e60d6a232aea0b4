"""How a flipped fact is made: a small change after which the sentence says something else.

Each rule returns the variant, or None where the change might say nothing ("left or right", "as long as"): a flip
that is none would blame the guard for a right answer.
"""

from __future__ import annotations

import random
import re

from bench.core import words
from bench.core.lexicon import TOKEN, Lexicon, put

_NUMBER = re.compile(r"(?<![\w.,'’-])(?<!\w\()\d{1,4}(?![\w'’-]|[.,]\d)")
_SPELLED = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NEGATABLE = re.compile(
    r"\b(is|are|was|were|must|should|will|would|could|does|do|did|may|can|has been|have been)\b"
)
_SUBJECT = frozenset(
    ["it", "this", "that", "these", "those", "they", "you", "we", "he", "she", "which", "who", "there"]
)
_ENDED = r"(?=[.,;]|$| (?:and|or|in|by|at|when|if|is|are|with|for|using|on)\b)"
_SWAP = re.compile(
    rf"\bfrom (?P<a>the [a-z]+) (?:in)?to (?P<b>the [a-z]+){_ENDED}"
    rf"|\bfrom (?P<a1>an? [a-z]+) (?:in)?to (?P<b1>an? [a-z]+){_ENDED}"
    rf"|\bfrom (?!the\b|an?\b)(?P<a2>[a-z]+) (?:in)?to (?!the\b|an?\b)(?P<b2>[a-z]+){_ENDED}"
    rf"|(?<!of )(?P<c>\b(?:the|an?) [a-z]+) (?:before|after|instead of|rather than) (?P<d>(?:the|an?) [a-z]+){_ENDED}"
    rf"|\b(?!the\b|an?\b)(?P<g>[a-z]+) (?:rather than|instead of) (?!the\b|an?\b)(?P<h>[a-z]+){_ENDED}"
    r"|(?P<e>\b(?:the|an?) [a-z]+) (?:is|are) (?:larger|smaller|greater|less|higher|lower|faster|slower|older|newer"
    rf"|longer|shorter|better|worse|bigger|cheaper) than (?P<f>(?:the|an?) [a-z]+){_ENDED}"
)
_SYMMETRIC = re.compile(
    r"\b(?:distance|differ\w*|away|equal\w*|independent|vary|varies|rang\w+|mov\w+ back)\b"
)
_FIXED_AFTER = re.compile(r"(?:(?:un)?(?:known|defined) as|(?:absolute|relative|appear) to)\b")
_FIXED = re.compile(r" all\b| (?:place|examples?|sections?|chapters?|figure|paragraphs?|page)\b|[^ ,.]")


class Flips:
    """Variants that contradict or change the fact."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def number(self, text: str, draw: random.Random) -> str | None:
        """Another number."""
        if found := list(_NUMBER.finditer(text)):
            match = draw.choice(found)
            old = match[0]
            if len(old) == 4:  # a year: another one nearby
                other = str(int(old) + draw.choice((-10, -2, -1, 1, 2, 10)))
                return text[: match.start()] + other + text[match.end() :]
            ways = [str(int(old) + 1), old + "0" if int(old) else "1", old[::-1], str(max(int(old) - 1, 0))]
            others = [way for way in ways if int(way) != int(old) and (way == "0" or way[0] != "0")]
            return text[: match.start()] + draw.choice(others) + text[match.end() :]
        if found := [match for match in TOKEN.finditer(text) if match[0] in _SPELLED]:
            match = draw.choice(found)
            return put(text, *match.span(), draw.choice([word for word in _SPELLED if word != match[0]]))
        return None

    def negation(self, text: str, draw: random.Random) -> str | None:
        """A "not" put in or taken out of a plain statement."""
        if text.endswith("?"):
            return None
        inner = list(re.finditer(r" not (?!only\b|just\b|to\b|necessarily\b|merely\b|all\b)", text))
        plain = not re.search(r"\b(?:or|if|whether|why|but|and|does|do|did) not\b|not,|n't|n’t", text)
        if inner and plain:
            match = draw.choice(inner)
            return text[: match.start()] + " " + text[match.end() :]
        if (cannot := re.search(r"\bcannot\b", text)) and "not only" not in text:
            return text[: cannot.start()] + "can" + text[cannot.end() :]
        if re.search(r"\b(?:not|no|never|neither|nor|none|nothing|hardly|only|any|without)\b|n't|n’t", text):
            return None
        found = []
        for match in _NEGATABLE.finditer(text):
            after = text[match.end() :].split(" ")[1:2]
            before = text[: match.start()].split(" ")[-2:-1]
            if match[0] in {"do", "does", "did", "has been", "have been", "may"} or not after or not before:
                continue
            if before[0].endswith((",", ";")) or after[0].lower() in _SUBJECT or not after[0][:1].islower():
                continue
            found.append(match)
        if not found:
            return None
        first = found[0]
        new = "cannot" if first[0] == "can" else f"{first[0]} not"
        return text[: first.start()] + new + text[first.end() :]

    def antonym(self, text: str, draw: random.Random) -> str | None:
        """A word replaced by its opposite."""
        found = [match for match in TOKEN.finditer(text) if match[0] in self.lexicon.opposite]
        if not found or len(
            {match[0] for match in found} & {self.lexicon.opposite[match[0]] for match in found}
        ):
            return None  # both opposites in one sentence ("true or false"): changing one makes no clear flip
        match = draw.choice(found)
        if re.search(r"\b(?:as|so|[Ii]n) $", text[: match.start()]):
            return None  # "as long as", "so long", "in addition"
        if _FIXED_AFTER.match(match[0] + text[match.end() :]) or (
            match[0] == "complete"
            and re.search(r"\b(?:to|will|can|must|should|you|not|and) $", text[: match.start()])
        ):
            return None
        return put(text, *match.span(), self.lexicon.opposite[match[0]])

    def reorder(self, text: str, draw: random.Random) -> str | None:
        """An order, bound or extremum word turned around."""
        found = []
        for match in self.lexicon.order_pattern.finditer(text):
            before = text[: match.start()].split(" ")[-2:-1]
            known = {word.lower().strip(",(") for word in before}
            after = text[match.end() :]
            fixed = _FIXED.match(after)
            if (
                not known & words.ABOUT_TEXT
                and not fixed
                and not re.search(r"\b(?:no|not|nor|nothing|little|or|and) $", text[: match.start()])
            ):
                found.append(match)
        if len(found) != 1:
            return None  # two such words may cancel out
        new = self.lexicon.order[found[0][0]]
        told = [word for word in new.split(" ") if word not in {"the", "of", "at", "than"}]
        return None if re.search(rf"\b{told[0]}\b", text) else put(text, *found[0].span(), new)

    def swap(self, text: str, _draw: random.Random) -> str | None:
        """The two ends of "from ... to", "... before ...", "... is larger than ..." exchanged."""
        match = _SWAP.search(text)
        if match is None or _SYMMETRIC.search(text[: match.start()]):
            return None
        (left, a), (right, b) = [(name, value) for name, value in match.groupdict().items() if value]
        if re.search(rf"\b{b} (?:in)?to {a}\b", text):
            return None  # both directions are listed
        nouns = [part.split(" ")[-1] for part in (a, b)]
        if (
            nouns[0] == nouns[1]
            or any(noun.endswith("ing") for noun in nouns)
            or not all("n" in self.lexicon.wordnet.uses(noun.removesuffix("s")) for noun in nouns)
        ):
            return None
        return (
            text[: match.start(left)]
            + b
            + text[match.end(left) : match.start(right)]
            + a
            + text[match.end(right) :]
        )

    def noun(self, text: str, draw: random.Random) -> str | None:
        """A noun replaced by another of the same field, neither a synonym nor a broader or narrower word."""
        found = []
        previous = ""
        for match in TOKEN.finditer(text):
            if (
                (place := self.lexicon.noun_field(match[0]))
                and self.lexicon.counts[match[0]] >= 60
                and previous in {"the", "a", "an", "of"}
            ):
                found.append((match, place))
            previous = match[0].lower()
        if not found:
            return None
        match, place = draw.choice(found)
        own = self.lexicon.all_senses(match[0])
        for _ in range(10):
            other = draw.choice(self.lexicon.fields[place])
            senses = self.lexicon.all_senses(other)
            near = self.lexicon.around(own) & senses or self.lexicon.around(senses) & own or own & senses
            near = near or self.lexicon.parents(own) & self.lexicon.parents(senses)  # "method" and "approach"
            if other[:4] != match[0][:4] and other[-5:] != match[0][-5:] and not near and other not in text:
                return put(text, *match.span(), other)
        return None
