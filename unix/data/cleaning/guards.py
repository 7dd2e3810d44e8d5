"""Guards over a cleaned report: each looks for one fault, and its name lands in `flags`.

A cleaning may only take words away, so most guards ask whether what it kept stands in the raw report and whether what
it took was noise. Sentences that stand in the raw report word for word are safe; every other one is held against the
raw sentence that it resembles most. `rejected`: something was added or turned round. `flagged`: a person should look.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from unix.data.cleaning.sentences import split_sentences
from unix.data.labels import NEGATIVE, POSITIVE, Mention, find_mentions
from unix.data.sections import body_sections
from unix.records import CleanedReport, Status

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIDE = {
    **dict.fromkeys(("left", "lt", "leftward", "lll", "lul", "lingula", "lingular"), "left"),
    **dict.fromkeys(("right", "rt", "rightward", "rll", "rml", "rul"), "right"),
    **dict.fromkeys(("bilateral", "bilaterally", "both"), "both"),
    **dict.fromkeys(("unilateral", "unilaterally"), "one"),
}
_NEGATORS = frozenset(
    {"no", "not", "without", "none", "never", "neither", "nor", "negative", "absent", "free", "denies"}
)
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was were be been there of in on at to for and or with by from as this that these those it its "
        "has have had s which",
    )
)


class Sentence(NamedTuple):
    """A sentence's words in lower case, without its list number, and the text that they come from."""

    words: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Pair:
    """A raw report and its cleaning, with what several guards need of them."""

    raw: str
    cleaned: CleanedReport
    repaired: bool = False
    """The answer's JSON had to be taken out of other text."""
    removes_priors: bool = False
    """The prompt asked for the removal of references to earlier studies."""

    @cached_property
    def text(self) -> str:
        """Findings and impression of the cleaning."""
        return f"{self.cleaned.findings}\n\n{self.cleaned.impression}".strip()

    @cached_property
    def body(self) -> list[Sentence]:
        """Sentences of the raw report's findings and impression, or of what stands for them."""
        texts = [self.raw[span.body : span.end] for span in body_sections(self.raw)]
        return [sentence for text in texts for sentence in _sentences(text)]

    @cached_property
    def kept(self) -> list[Sentence]:
        """Sentences of the cleaning."""
        return [*_sentences(self.cleaned.findings), *_sentences(self.cleaned.impression)]

    @cached_property
    def edited(self) -> list[tuple[Sentence, Sentence]]:
        """Sentences of the cleaning that the raw report does not have word for word, each with its likeliest origin."""
        known = {sentence.words for sentence in self.body}
        changed = [sentence for sentence in self.kept if sentence.words not in known]
        return [(sentence, _most_alike(sentence, self.body)) for sentence in changed] if self.body else []

    @cached_property
    def dropped(self) -> list[tuple[Sentence, Sentence]]:
        """Sentences of the raw body that the cleaning does not have word for word, each with what is left of it.

        Only an edited sentence can be what is left: one that stands in the raw report word for word is itself.
        """
        known = {sentence.words for sentence in self.kept}
        distinct = {sentence.words: sentence for sentence in self.body if sentence.words not in known}
        edited = [sentence for sentence, _ in self.edited] or [Sentence((), "")]
        return [(sentence, _most_alike(sentence, edited)) for sentence in distinct.values()]

    @cached_property
    def excess(self) -> Counter[str]:
        """Words that the cleaning has more often than the raw report."""
        counts = Counter(word for sentence in self.kept for word in sentence.words)
        counts.subtract(_words(self.raw))
        return +counts

    @cached_property
    def kept_mentions(self) -> list[Mention]:
        """What the cleaning names."""
        return find_mentions(self.text)


class Verdict(NamedTuple):
    """What the guards make of a cleaning."""

    status: Status
    flags: tuple[str, ...]


class Guard(NamedTuple):
    """A fault's name, how to see it, and what follows from it."""

    name: str
    finds: Callable[[Pair], bool]
    status: Status
    explanation: str
    """What to tell a model that did it."""


def judge(pair: Pair) -> Verdict:
    """Run every guard; the gravest one decides."""
    if empty(pair):
        return Verdict(Status.REJECTED, ("empty",))
    found = [guard for guard in GUARDS if guard.finds(pair)]
    status = Status.ACCEPTED
    if found:
        status = Status.REJECTED if any(guard.status is Status.REJECTED for guard in found) else Status.FLAGGED
    return Verdict(status, tuple(guard.name for guard in found))


def explain(flags: Sequence[str]) -> str:
    """The faults in words that a model can act on."""
    known = {guard.name: guard.explanation for guard in GUARDS}
    return " ".join(known[flag] for flag in flags if flag in known)


def empty(pair: Pair) -> bool:
    """Neither findings nor impression."""
    return not pair.text


def too_long(pair: Pair) -> bool:
    """More words than the raw report has."""
    return sum(len(sentence.words) for sentence in pair.kept) > len(_words(pair.raw))


def too_short(pair: Pair) -> bool:
    """Under a fifth of the words of a findings and impression of some length."""
    length = sum(len(words) for words in {sentence.words for sentence in pair.body})
    return length >= 40 and 5 * sum(len(sentence.words) for sentence in pair.kept) < length


def json_repaired(pair: Pair) -> bool:
    """The answer's JSON stood inside other text."""
    return pair.repaired


def added_content(pair: Pair) -> bool:
    """Two or more words of content that the raw report does not have."""
    return _num_added(pair) >= 2


def added_word(pair: Pair) -> bool:
    """One word of content, or several small words, that the raw report does not have."""
    small = sum(count for word, count in pair.excess.items() if word in _FUNCTION_WORDS)
    return _num_added(pair) == 1 or small >= 2


def reworded(pair: Pair) -> bool:
    """Words of the raw report in another order: an edited sentence is no subsequence of the report's body."""
    body = [word for sentence in pair.body for word in sentence.words]
    return any(
        not _is_subsequence(sentence.words, origin.words) and not _is_subsequence(sentence.words, body)
        for sentence, origin in pair.edited
    )


def numbers_changed(pair: Pair) -> bool:
    """A number that the sentence it comes from does not have."""
    return any(_NUMBER.fullmatch(word) for word in pair.excess) or any(
        not _is_subsequence(_numbers(sentence), _numbers(origin)) for sentence, origin in pair.edited
    )


def number_lost(pair: Pair) -> bool:
    """A measurement is gone from a sentence that stayed."""
    return any(
        _MEASUREMENT.search(origin.text) and len(_numbers(sentence)) < len(_numbers(origin))
        for sentence, origin in pair.edited
    )


_MEASUREMENT = re.compile(r"\d\s*(?:mm|cm|centimet|millimet|%|x\s*\d)", re.IGNORECASE)


def laterality_changed(pair: Pair) -> bool:
    """Another side than the sentence it comes from has."""
    return any(word in _SIDE for word in pair.excess) or any(
        not _is_subsequence(_sides(sentence), _sides(origin)) for sentence, origin in pair.edited
    )


def laterality_lost(pair: Pair) -> bool:
    """A side is gone from a sentence that otherwise stayed."""
    return any(
        len(_sides(sentence)) < len(_sides(origin)) and 4 * len(sentence.words) >= 3 * len(origin.words)
        for sentence, origin in pair.edited
    )


def negation_flipped(pair: Pair) -> bool:
    """A finding denied in the raw report and affirmed here, or the reverse."""
    for sentence, origin in pair.edited:
        missing = Counter(origin.words) - Counter(sentence.words)
        gone = set(missing) - _FUNCTION_WORDS
        if gone and gone <= _NEGATORS:
            return True
        if any(word in _NEGATORS for word in Counter(sentence.words) - Counter(origin.words)):
            return True
        before = _values(find_mentions(origin.text))
        for phrase, values in _values(find_mentions(sentence.text)).items():
            if phrase in before and (NEGATIVE in values) != (NEGATIVE in before[phrase]) and len(before[phrase]) == 1:
                return True
    return False


def uncertainty_changed(pair: Pair) -> bool:
    """A finding uncertain in the raw report and certain here, or the reverse."""
    for sentence, origin in pair.edited:
        before = _values(find_mentions(origin.text))
        for phrase, values in _values(find_mentions(sentence.text)).items():
            certain = {value for value in values if value != NEGATIVE}
            if phrase in before and NEGATIVE not in before[phrase] and certain and certain != before[phrase]:
                return True
    return False


def label_gained(pair: Pair) -> bool:
    """A class is affirmed here that the raw report nowhere affirms or suspects."""
    if not pair.edited:
        return False
    raised = {name for mention in find_mentions(pair.raw) if mention.value != NEGATIVE for name in mention.classes}
    return any(mention.value == POSITIVE and not raised.issuperset(mention.classes) for mention in pair.kept_mentions)


def finding_lost(pair: Pair) -> bool:
    """A sentence with an affirmed or suspected finding went, or lost it."""
    kept = {name for mention in pair.kept_mentions if mention.value != NEGATIVE for name in mention.classes}
    for sentence, rest in pair.dropped:
        raised = [mention for mention in find_mentions(sentence.text) if mention.value != NEGATIVE]
        if not raised:
            continue
        noise = _NOT_OF_THE_IMAGES.search(sentence.text) is not None
        left = {mention.phrase for mention in find_mentions(rest.text) if mention.value != NEGATIVE}
        for mention in raised:
            if not kept.issuperset(mention.classes) or (not noise and mention.phrase not in left):
                return True
    return False


_NOT_OF_THE_IMAGES = re.compile(
    r"\b(?:dr|m\.?d|discussed|communicated|notified|informed|telephone|paged|compar\w+|prior|previous|history of"
    r"|evaluate|assess|rule out|radiographs?|views?|dictated|reviewed)\b|_{2,}",
    re.IGNORECASE,
)


def _pattern_guard(expression: str, flags: int = re.IGNORECASE) -> Callable[[Pair], bool]:
    compiled = re.compile(expression, flags)
    return lambda pair: compiled.search(pair.text) is not None


deidentification_left = _pattern_guard(r"_{2,}|\bX{3,}\b|\[\*\*|\*\*\]", 0)
notification_left = _pattern_guard(
    r"\b(?:discussed|communicated|relayed|conveyed) (?:with|to|by|at)\b"
    r"|\b(?:was|were) (?:notified|informed|paged|telephoned)\b"
    r"|\btelephone\b|\bby phone\b|\bminutes after\b|\bdictated\b|\btranscribed\b|\belectronically signed\b"
)
date_left = _pattern_guard(
    r"\b\d{1,2}:\d{2}\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b(?:19|20)\d{2}-\d{2}-\d{2}\b|\b\d{1,2}\s*[ap]\.?m\b"
    r"|\b(?:january|february|april|june|july|august|september|october|november|december)\s+\d"
)
name_left = _pattern_guard(r"\b[Dd]rs?\.\s*(?:[A-Z_]|$)|\bM\.?D\.?(?=[\s,.)]|$)|\bMrs?\.\s+[A-Z]", 0)
chat_left = _pattern_guard(
    r"```|\*\*\w|^#{1,6} |^\s*[-*] \w|\bas an ai\b|\b(?:here is|here's) the\b"
    r"|\bcleaned (?:report|version|text)\b|^sure[,!]|\bi (?:have )?removed\b|\bi hope\b",
    re.IGNORECASE | re.MULTILINE,
)
prompt_leaked = _pattern_guard(
    r"</?report>|\"(?:findings|impression|removed|category)\"|\bjson\b|\bprior_reference\b|\bdeidentification\b"
    r"|\b(?:findings|impression) section of (?:the|a) report\b|\byou clean radiology\b"
)
header_left = _pattern_guard(
    r"\b(?:FINDINGS?|IMPRESSIONS?|TECHNIQUE|COMPARISON|INDICATION|EXAMINATION|HISTORY|NOTIFICATION|WET READ"
    r"|FINAL REPORT)\s*:",
    0,
)
_prior = re.compile(
    r"\b(?:unchanged|compared (?:to|with)|comparison|prior|previous(?:ly)?|interval(?:ly)?"
    r"|again (?:seen|noted)|since the)\b",
    re.IGNORECASE,
)


def prior_left(pair: Pair) -> bool:
    """A reference to an earlier study, where the prompt asked for their removal."""
    return pair.removes_priors and _prior.search(pair.text) is not None


GUARDS: tuple[Guard, ...] = (
    Guard("empty", empty, Status.REJECTED, "Findings and impression were both empty."),
    Guard("added_content", added_content, Status.REJECTED, "There were words that the report does not have."),
    Guard("numbers_changed", numbers_changed, Status.REJECTED, "A number was changed."),
    Guard("laterality_changed", laterality_changed, Status.REJECTED, "A side (left, right, both) was changed."),
    Guard(
        "negation_flipped",
        negation_flipped,
        Status.REJECTED,
        "A finding was affirmed that the report denies, or denied.",
    ),
    Guard("label_gained", label_gained, Status.REJECTED, "A finding was affirmed that the report does not affirm."),
    Guard("prompt_leaked", prompt_leaked, Status.REJECTED, "Words of these instructions stood in the answer."),
    Guard("chat_left", chat_left, Status.REJECTED, "There was markup or talk around the report."),
    Guard("too_long", too_long, Status.REJECTED, "The answer was longer than the report."),
    Guard("added_word", added_word, Status.FLAGGED, "There was a word that the report does not have."),
    Guard("reworded", reworded, Status.FLAGGED, "A sentence was reordered."),
    Guard("finding_lost", finding_lost, Status.FLAGGED, "A finding of the report was missing."),
    Guard(
        "uncertainty_changed",
        uncertainty_changed,
        Status.FLAGGED,
        "An uncertain finding was made certain, or the reverse.",
    ),
    Guard("number_lost", number_lost, Status.FLAGGED, "A measurement was missing."),
    Guard("laterality_lost", laterality_lost, Status.FLAGGED, "A side was missing."),
    Guard("too_short", too_short, Status.FLAGGED, "Most of the report was missing."),
    Guard("deidentification_left", deidentification_left, Status.FLAGGED, "Blanks (___ or XXXX) were left."),
    Guard("notification_left", notification_left, Status.FLAGGED, "Who told or signed what was left."),
    Guard("date_left", date_left, Status.FLAGGED, "A date or time was left."),
    Guard("name_left", name_left, Status.FLAGGED, "A person was left."),
    Guard("header_left", header_left, Status.FLAGGED, "A section header was left."),
    Guard("prior_left", prior_left, Status.FLAGGED, "A reference to an earlier study was left."),
    Guard("json_repaired", json_repaired, Status.FLAGGED, "The JSON object did not stand alone."),
)
"""Every guard, gravest first."""


def _num_added(pair: Pair) -> int:
    return sum(
        count for word, count in pair.excess.items() if word not in _FUNCTION_WORDS and not _NUMBER.fullmatch(word)
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _sentences(text: str) -> Iterator[Sentence]:
    for _, sentence in split_sentences(text):
        if words := _words(sentence):
            yield Sentence(tuple(words), sentence)


def _most_alike(sentence: Sentence, others: Sequence[Sentence]) -> Sentence:
    """The other sentence that shares most words with this one; the first of equals."""
    words = set(sentence.words)
    return max(others, key=lambda other: _likeness(words, other))


def _likeness(words: set[str], other: Sentence) -> float:
    shared = len(words.intersection(other.words))
    return shared / (len(words) + len(other.words) - shared) if shared else 0.0


def _is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    remaining = iter(whole)
    return all(word in remaining for word in part)


def _numbers(sentence: Sentence) -> list[str]:
    return [word for word in sentence.words if word[0].isdigit()]


def _sides(sentence: Sentence) -> list[str]:
    return [_SIDE[word] for word in sentence.words if word in _SIDE]


def _values(mentions: Sequence[Mention]) -> dict[str, set[int]]:
    values: dict[str, set[int]] = {}
    for mention in mentions:
        values.setdefault(mention.phrase, set()).add(mention.value)
    return values
