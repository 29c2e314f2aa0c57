"""ELIZA: answers by rules, the same to the same words. A program, and it says so.

Pure: the clauses of what was said last are looked up in the rules, and words caught by a rule
come back from the other side. Knows neither HTTP nor the wire's shapes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from demo.eliza_phrases import EARLIER, OTHERWISE, PHRASES, SILENCE
from demo.eliza_rules import TOPICS

INTRODUCTION: Final = (
    "I am ELIZA, a small rule-based program and not a language model: I turn your words round "
    "without understanding them."
)
"""First line of the first answer of a conversation."""

MOST_COUNTED: Final = 2000

_NOT_TEXT: Final = "(What you attached I cannot look at: I only read text.)"

_RULES: Final = (*TOPICS, *PHRASES)
_FRAGMENT_WORDS: Final = 14
_MOST_READ: Final = 4000
"""Characters of a turn, from its end, that the rules look at."""

_MOST_REMEMBERED: Final = 100
"""Turns."""

_MOST_CLAUSES: Final = 40
_MOST_TOLD: Final = 400

_CONTRACTIONS: Final = tuple(
    (re.compile(rf"\b{short}\b", re.IGNORECASE), long)
    for short, long in (
        ("can't", "cannot"),
        ("won't", "will not"),
        ("shan't", "shall not"),
        (r"(\w+)n't", r"\1 not"),
        ("i'm", "I am"),
        ("let's", "let us"),
        ("(what|who|where|how|that|it|he|she|there)'s", r"\1 is"),
        (r"(\w+)'re", r"\1 are"),
        (r"(\w+)'ve", r"\1 have"),
        (r"(\w+)'ll", r"\1 will"),
        (r"(i|you|we|they|he|she)'d", r"\1 would"),
        ("dont", "do not"),
        ("cant", "cannot"),
        ("im", "I am"),
    )
)

_PAIRS: Final = {
    ("i", "am"): "you are",
    ("i", "was"): "you were",
    ("am", "i"): "are you",
    ("was", "i"): "were you",
    ("you", "are"): "I am",
    ("you", "were"): "I was",
    ("are", "you"): "am I",
    ("were", "you"): "was I",
}
_SINGLES: Final = {
    "i": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "am": "are",
    "your": "my",
    "yours": "mine",
    "yourself": "myself",
}
_BEFORE_OBJECTS: Final = re.compile(
    "to|for|with|about|of|at|from|by|on|in|like|than|love|hate|need|want|tell|help|ask|give|see|"
    "know|thank|and|believe|trust|miss|understand",
    re.IGNORECASE,
)

_CLAUSES = re.compile(r"[.!?;\n]+|,\s+|\bbut\b|\bbecause\b(?=.*\bi\b)", re.IGNORECASE)
_WORDS = re.compile(r"[\w'-]+")
_NAMES = re.compile(r"\b[Mm]y name is (\w+)|\b[Cc]all me (\w+)")
_POSSESSIONS = re.compile(r"\bmy (\w{3,})", re.IGNORECASE)
_SMALL_SUM = re.compile(
    r"(?<![\d.-])(-?\d{1,9}(?:\.\d{1,6})?)(\s*)"
    r"(\+|plus|-|\u2212|minus|\*|x|\u00d7|times|multiplied by|/|divided by)(\s*)"
    r"(-?\d{1,9}(?:\.\d{1,6})?)(?![\d.]*\d)",
    re.IGNORECASE,
)
_ASKED = re.compile(r"what is|what's|how much|calculate|compute|=", re.IGNORECASE)
_SAY = re.compile(
    r"^\W*(?:please )?(?:say|repeat)(?: after me)?:?\s+(?P<quote>[\"']?)(.+)(?P=quote)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_COUNT = re.compile(r"\bcount (?:from (\d{1,6}) )?(?:up )?to (\d{1,6})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said. `other` tells that something came with it that is not text."""

    role: str
    text: str
    other: bool = False


def answers(turns: Sequence[Turn], seed: int = 0, count: int = 1) -> list[str]:
    """What ELIZA may say next; they differ as long as the rule that applies has answers left."""
    said = [turn.text for turn in turns if turn.role == "assistant"]
    texts = _said_next(turns, said[-_MOST_REMEMBERED:], seed, count)
    return texts if said else [f"{INTRODUCTION}\n\n{text}" for text in texts]


def pieces(text: str) -> list[str]:
    """The text cut before the spaces that precede its words; joined, they are the text."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


def count_words(text: str) -> int:
    """What usage counts."""
    return len(text.split())


def _said_next(turns: Sequence[Turn], said: Sequence[str], seed: int, count: int) -> list[str]:
    if turns and turns[-1].role in ("tool", "function"):
        told = turns[-1].text.strip()[:_MOST_TOLD] or "nothing"
        return [f"The tool says: {told}"] * count
    heard = [turn for turn in turns if turn.role == "user"][-_MOST_REMEMBERED:]
    last = heard[-1] if heard else Turn("user", "")
    start = zlib.crc32(f"{seed}\n{len(turns)}\n{last.text}".encode("utf-8", "replace"))
    if last.text.strip():
        exact = _exact(last.text)
        candidates = [exact] if exact else _candidates(last.text, heard)
        note = f" {_NOT_TEXT}" if last.other else ""
    else:
        candidates = [_NOT_TEXT] if last.other else list(SILENCE)
        note = ""
    # Fresh ones first, so that ELIZA repeats itself only when all has been said.
    turned = [candidates[(start + step) % len(candidates)] for step in range(len(candidates))]
    turned.sort(key=lambda one: any(one in earlier for earlier in said))
    return [turned[index % len(turned)] + note for index in range(count)]


def _candidates(text: str, heard: Sequence[Turn]) -> list[str]:
    plain = _plain(text)
    clauses = [clause for clause in _CLAUSES.split(plain) if clause.strip()]
    whole = [plain, *clauses[-_MOST_CLAUSES:]]
    found = [
        (rule.rank, len(whole) - place, rule, match)
        for place, clause in enumerate(whole)
        for rule in _RULES
        if (match := rule.pattern.search(clause))
    ]
    if not found:
        nouns = [n for turn in heard[:-1] for n in _POSSESSIONS.findall(_plain(turn.text))]
        remembered = [text.format(noun.lower()) for noun in nouns[-1:] for text in EARLIER]
        return [*remembered, *OTHERWISE]
    # Of equal ranks what is more exact, a clause rather than all, and what was said last.
    best = max(rank for rank, *_ in found)
    _, _, rule, match = min((one for one in found if one[0] == best), key=lambda one: one[1])
    groups = [group for group in match.groups() if group]
    mirrored = [mirror(group) for group in groups]
    return [
        _fill(one, mirrored, groups, _name(heard))
        for one in rule.answers
        if len(mirrored) > _highest(one)
    ] or list(OTHERWISE)


def _highest(template: str) -> int:
    """Number of the last group that an answer uses; -1 for none."""
    return max((int(n) for n in re.findall(r"\{(\d)\}", template)), default=-1)


def _fill(template: str, mirrored: Sequence[str], groups: Sequence[str], name: str) -> str:
    raw = groups[0].strip() if groups else ""
    # Replaced by hand: what was said may hold braces.
    values = {"{raw}": raw, "{name}": f", {name}" if name else ""}
    values |= {f"{{{index}}}": group for index, group in enumerate(mirrored)}
    return re.sub(r"\{\w+\}", lambda found: values[found[0]], template)


def _plain(text: str) -> str:
    """Without contractions, curly apostrophes and runs of blanks; lines stay lines."""
    text = text[-_MOST_READ:].replace("\u2019", "'")
    for short, long in _CONTRACTIONS:
        text = short.sub(long, text)
    return re.sub(r"[ \t]+", " ", text)


def mirror(text: str) -> str:
    """The words from the other side: "my dog saw you" is "your dog saw me"."""
    words = _WORDS.findall(text)[:_FRAGMENT_WORDS]
    return " ".join(_mirrored(words))


def _mirrored(words: Sequence[str]) -> Iterator[str]:
    index = 0
    while index < len(words):
        low = words[index].lower()
        pair = (low, words[index + 1].lower()) if index + 1 < len(words) else (low, "")
        if pair in _PAIRS:
            yield _PAIRS[pair]
            index += 2
            continue
        if low == "you":
            is_object = not pair[1] or (index > 0 and _BEFORE_OBJECTS.fullmatch(words[index - 1]))
            yield "me" if is_object else "I"
        else:
            yield _SINGLES.get(low, words[index])
        index += 1


def _name(heard: Sequence[Turn]) -> str:
    pairs = [pair for turn in heard for pair in _NAMES.findall(turn.text[-_MOST_READ:])]
    names = [name for pair in pairs for name in pair if name]
    return names[-1].capitalize() if names else ""


# What needs no rule, because it can be worked out.


def _exact(text: str) -> str:
    text = text[-_MOST_READ:]
    if repeated := _SAY.search(text):
        return repeated[2].strip()
    if counted := _COUNT.search(text):
        first, last = int(counted[1] or 1), int(counted[2])
        if 0 <= last - first < MOST_COUNTED:
            return " ".join(map(str, range(first, last + 1)))
        return f"That is too far for me: I count {MOST_COUNTED} numbers at most."
    found = _SMALL_SUM.search(text)
    # 24/7 and 10-20 are no sums, unless somebody asks.
    if found and (found[2] or found[4] or _ASKED.search(text)):
        return _sum(float(found[1]), found[3].lower(), float(found[5]))
    return ""


def _sum(left: float, sign: str, right: float) -> str:
    if sign in ("/", "divided by"):
        if not right:
            return "By nothing one cannot divide, and a rule of mine says so."
        value = left / right
    elif sign in ("+", "plus"):
        value = left + right
    elif sign in ("-", "\u2212", "minus"):
        value = left - right
    else:
        value = left * right
    return f"That makes {value:.12g}. Sums I can do, they are rules like me."
