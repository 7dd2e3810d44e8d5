"""Guards over a cleaned report: each looks for one fault, and its name lands in `flags`.

A cleaning may only take words away, so most guards ask whether what it kept stands in the raw report and whether what
it took was noise. Sentences that stand in the raw report word for word are safe, as often as they stand there; every
other one is an edit, held against the raw sentence that it resembles most. What is gone of the raw findings and
impression must look like noise wherever it speaks of what a chest image shows. `rejected`: something was added or
turned round. `flagged`: a person should look.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from unix.data.cleaning.alignment import Pair, Sentence, is_subsequence, words_of
from unix.data.cleaning.vocabulary import is_noise, is_request, tells_of_images, vocabulary
from unix.data.labels import NEGATIVE, POSITIVE, Mention, find_mentions
from unix.records import Status

_NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        "one two three four five six seven eight nine ten eleven twelve first second third fourth fifth sixth seventh "
        "eighth ninth tenth eleventh twelfth mm cm",
    )
)
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
    return sum(len(sentence.words) for sentence in pair.kept) > len(words_of(pair.raw))


def too_short(pair: Pair) -> bool:
    """Under a fifth of the words of a findings and impression of some length, what ails the patient left out."""
    kept = sum(len(sentence.words) for sentence in pair.kept)
    sentences = {sentence.words: sentence.text for sentence in pair.body}
    if sum(map(len, sentences)) < max(40, 5 * kept + 1):
        return False
    return 5 * kept < sum(len(words) for words, text in sentences.items() if not is_request(text))


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
    """Words in another order or place: an edited sentence is no part of neighbouring raw ones of its section."""
    return any(
        not is_subsequence(edit.sentence.words, edit.origin.words)
        or any(pair.body[place].section != edit.sentence.section for place in edit.places)
        for edit in pair.edits
    )


def numbers_changed(pair: Pair) -> bool:
    """A number, in digits or words, or its unit that the sentence it comes from does not have."""
    return any(_is_number(word) for word in pair.excess) or any(
        not is_subsequence(_numbers(edit.sentence), _numbers(edit.origin)) for edit in pair.edits
    )


def number_lost(pair: Pair) -> bool:
    """A measurement is gone from a sentence that stayed."""
    return any(
        Counter(_MEASUREMENT.findall(edit.origin.text)) - Counter(_MEASUREMENT.findall(edit.sentence.text))
        for edit in pair.edits
    )


_MEASUREMENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:mm|cm|centimet|millimet|%|x\s*\d)", re.IGNORECASE)


def laterality_changed(pair: Pair) -> bool:
    """Another side than the sentence it comes from has."""
    return any(word in _SIDE for word in pair.excess) or any(
        not is_subsequence(_sides(edit.sentence), _sides(edit.origin)) for edit in pair.edits
    )


def laterality_lost(pair: Pair) -> bool:
    """A side is gone from a sentence that otherwise stayed."""
    return any(
        len(_sides(sentence)) < len(_sides(origin)) and 4 * len(sentence.words) >= 3 * len(origin.words)
        for sentence, origin, _ in pair.edits
    )


def negation_flipped(pair: Pair) -> bool:
    """A finding denied in the raw report and affirmed here, or the reverse."""
    for sentence, origin, _ in pair.edits:
        if any(word in _NEGATORS for word in Counter(sentence.words) - Counter(origin.words)):
            return True
        if _lost_its_negation(sentence.words, origin.words):
            return True
        before = _values(find_mentions(origin.text))
        for phrase, values in _values(find_mentions(sentence.text)).items():
            if phrase in before and (NEGATIVE in values) != (NEGATIVE in before[phrase]) and len(before[phrase]) == 1:
                return True
    return False


def _lost_its_negation(kept: Sequence[str], origin: Sequence[str]) -> bool:
    """A negator is gone and what it denied stayed.

    `No focal consolidation` has lost it in `consolidation`, but not `no change of the consolidation`, nor `no prior
    study, the consolidation`.
    """
    place = 0
    cut: list[str] = []
    for word in origin:
        if place < len(kept) and word == kept[place]:
            place += 1
            if not _NEGATORS.isdisjoint(cut) and "change" not in cut and not is_noise(" ".join(cut)):
                return True
            cut = []
        else:
            cut.append(word)
    return False


def uncertainty_changed(pair: Pair) -> bool:
    """A finding uncertain in the raw report and certain here, or the reverse."""
    for sentence, origin, _ in pair.edits:
        before = _values(find_mentions(origin.text))
        for phrase, values in _values(find_mentions(sentence.text)).items():
            certain = {value for value in values if value != NEGATIVE}
            if phrase in before and NEGATIVE not in before[phrase] and certain and certain != before[phrase]:
                return True
    return False


def degree_changed(pair: Pair) -> bool:
    """A size, severity, course or certainty, `normal` or `upper`, that the sentence it comes from does not have."""
    return any(
        vocabulary().degree.search(" ".join(Counter(edit.sentence.words) - Counter(edit.origin.words)))
        for edit in pair.edits
    )


def label_gained(pair: Pair) -> bool:
    """A class is affirmed here that the raw findings and impression nowhere affirm or suspect."""
    if not pair.edits:
        return False
    mentions = [mention for sentence in pair.body for mention in find_mentions(sentence.text)]
    raised = {name for mention in mentions if mention.value != NEGATIVE for name in mention.classes}
    return any(mention.value == POSITIVE and not raised.issuperset(mention.classes) for mention in pair.kept_mentions)


def finding_lost(pair: Pair) -> bool:
    """A sentence with an affirmed or suspected finding went, or lost it.

    Why the study was asked for may name a finding. Who was told of one is noise where the finding stands elsewhere. Who
    was told of a tube or line, and which view was made after it was placed, is noise unless it says where that ends.
    """
    kept = {name for mention in pair.kept_mentions if mention.value != NEGATIVE for name in mention.classes}
    for loss in pair.losses:
        raised = [mention for mention in find_mentions(loss.origin.text) if mention.value != NEGATIVE]
        if not raised or is_request(loss.origin.text):
            continue
        known = vocabulary()
        told = known.told.search(loss.words) is not None
        occasion = told or (known.technique.search(loss.words) is not None and is_noise(loss.words))
        occasion = occasion and known.ends.search(loss.words) is None
        left = {mention.phrase for mention in find_mentions(loss.rest_text) if mention.value != NEGATIVE}
        for mention in raised:
            elsewhere = told and kept.issuperset(mention.classes)
            device = set(mention.classes) == {"Support Devices"}
            if mention.phrase not in left and not elsewhere and not (device and occasion):
                return True
    return False


def content_lost(pair: Pair) -> bool:
    """Words for what a chest image shows went, and not as noise."""
    return any(tells_of_images(loss.words) and not is_request(loss.origin.text) for loss in pair.losses)


def _pattern_guard(expression: str, flags: int = re.IGNORECASE) -> Callable[[Pair], bool]:
    compiled = re.compile(expression, flags)
    return lambda pair: compiled.search(pair.text) is not None


def _new_pattern_guard(expression: str) -> Callable[[Pair], bool]:
    """As `_pattern_guard`, for what a report may hold itself: only what the raw text does not have counts."""
    compiled = re.compile(expression, re.IGNORECASE | re.MULTILINE)
    return lambda pair: any(match[0].strip() not in pair.raw for match in compiled.finditer(pair.text))


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
chat_left = _new_pattern_guard(
    r"```|\*\*\w|^#{1,6} |^\s*[-*] \w|\bas an ai\b|\b(?:here is|here's) the\b"
    r"|\bcleaned (?:report|version|text)\b|^sure[,!]|\bi (?:have )?removed\b|\bi hope\b"
)
prompt_leaked = _new_pattern_guard(
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
    Guard(
        "degree_changed",
        degree_changed,
        Status.REJECTED,
        "A size, severity, course or certainty was changed.",
    ),
    Guard("label_gained", label_gained, Status.REJECTED, "A finding was affirmed that the report does not affirm."),
    Guard("prompt_leaked", prompt_leaked, Status.REJECTED, "Words of these instructions stood in the answer."),
    Guard("chat_left", chat_left, Status.REJECTED, "There was markup or talk around the report."),
    Guard("too_long", too_long, Status.REJECTED, "The answer was longer than the report."),
    Guard("added_word", added_word, Status.FLAGGED, "There was a word that the report does not have."),
    Guard("reworded", reworded, Status.FLAGGED, "A sentence was reordered or moved."),
    Guard("finding_lost", finding_lost, Status.FLAGGED, "A finding of the report was missing."),
    Guard("content_lost", content_lost, Status.FLAGGED, "Words about the images were missing."),
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
    return sum(count for word, count in pair.excess.items() if word not in _FUNCTION_WORDS and not _is_number(word))


def _is_number(word: str) -> bool:
    return word[0].isdigit() or word in _NUMBER_WORDS


def _numbers(sentence: Sentence) -> list[str]:
    return [word for word in sentence.words if _is_number(word)]


def _sides(sentence: Sentence) -> list[str]:
    return [_SIDE[word] for word in sentence.words if word in _SIDE]


def _values(mentions: Sequence[Mention]) -> dict[str, set[int]]:
    values: dict[str, set[int]] = {}
    for mention in mentions:
        values.setdefault(mention.phrase, set()).add(mention.value)
    return values
