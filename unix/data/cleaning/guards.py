"""Guards over a cleaned report: each looks for one fault, and its name lands in `flags`.

A cleaning may only take words away, so most guards ask whether what it kept stands in the raw report and whether what
it took was noise. Sentences that stand in the raw report word for word are safe, as often as they stand there; every
other one is an edit, held against the raw sentence that it resembles most. What is gone of the raw findings and
impression must look like noise wherever it speaks of what a chest image shows. `rejected`: something was added or
turned round. `flagged`: a person should look.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from unix.data.cleaning.sentences import split_sentences
from unix.data.labels import NEGATIVE, POSITIVE, Mention, find_mentions
from unix.data.phrases import PhraseBook, expand
from unix.data.sections import body_sections
from unix.errors import ConfigError
from unix.records import CleanedReport, Status

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")
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


class Sentence(NamedTuple):
    """A sentence's words in lower case, without its list number, and the text that they come from."""

    words: tuple[str, ...]
    text: str
    section: str = ""
    """`findings` or `impression`; "" where one of the two texts does not tell them apart."""

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """What makes two sentences the same."""
        return self.words, self.section


class Edit(NamedTuple):
    """A sentence of the cleaning that the raw report does not have, and the raw sentences that it comes from."""

    sentence: Sentence
    origin: Sentence
    places: range
    """Where the origin stands in the raw body; several places where the sentence runs over a sentence's end."""


class Loss(NamedTuple):
    """A sentence of the raw report that the cleaning does not have, and what is left of it."""

    origin: Sentence
    rest: tuple[str, ...]
    rest_text: str

    @property
    def words(self) -> str:
        """The words that are gone, in their order."""
        rest = Counter(self.rest)
        gone: list[str] = []
        for word in self.origin.words:
            if rest[word]:
                rest[word] -= 1
            else:
                gone.append(word)
        return " ".join(gone)


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
    def _sections(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Section and text of the raw body and of the cleaning; no section's name where only one of them has both."""
        raw = [(span.name, self.raw[span.body : span.end]) for span in body_sections(self.raw)]
        cleaned = [("findings", self.cleaned.findings), ("impression", self.cleaned.impression)]
        cleaned = [(name, text) for name, text in cleaned if text.strip()]
        if {name for name, _ in raw} == {name for name, _ in cleaned}:
            return raw, cleaned
        return [("", text) for _, text in raw], [("", text) for _, text in cleaned]

    @cached_property
    def body(self) -> list[Sentence]:
        """Sentences of the raw report's findings and impression, or of what stands for them."""
        return [sentence for section, text in self._sections[0] for sentence in _sentences(text, section)]

    @cached_property
    def kept(self) -> list[Sentence]:
        """Sentences of the cleaning."""
        return [sentence for section, text in self._sections[1] for sentence in _sentences(text, section)]

    @cached_property
    def gone(self) -> list[int]:
        """Places in `body` of the sentences that the cleaning does not have word for word."""
        known = {sentence.key for sentence in self.kept}
        return [place for place, sentence in enumerate(self.body) if sentence.key not in known]

    @cached_property
    def edits(self) -> list[Edit]:
        """Sentences of the cleaning that the raw report does not have word for word, or less often."""
        if not self.body:
            return []
        left = Counter(sentence.key for sentence in self.body)
        edits: list[Edit] = []
        for sentence in self.kept:
            if left[sentence.key]:
                left[sentence.key] -= 1
            elif (edit := self._edit(sentence)) is not None:
                edits.append(edit)
        return edits

    def _edit(self, sentence: Sentence) -> Edit | None:
        """The sentence with its likeliest origin; None where it repeats another and stands for none that is gone."""
        words = set(sentence.words)
        likeness = [_likeness(words, other) for other in self.body]
        place = max(self.gone, key=lambda place: likeness[place], default=0)
        if any(sentence.words == other.words for other in self.body) and (not self.gone or likeness[place] < _ALIKE):
            return None
        if not self.gone or likeness[place] < _ALIKE:
            place = max(range(len(self.body)), key=lambda place: likeness[place])
        for first, last in ((place, place), (place - 1, place), (place, place + 1), (place - 1, place + 1)):
            if first >= 0 and last < len(self.body):
                joined = tuple(word for origin in self.body[first : last + 1] for word in origin.words)
                merged = first == last or len(sentence.words) >= _MERGED * len(joined)
                if merged and _is_subsequence(sentence.words, joined):
                    text = " ".join(origin.text for origin in self.body[first : last + 1])
                    return Edit(sentence, Sentence(joined, text), range(first, last + 1))
        return Edit(sentence, self.body[place], range(place, place + 1))

    @cached_property
    def losses(self) -> list[Loss]:
        """Sentences of the raw body that are gone, each with what is left of it."""
        rest: dict[int, list[Sentence]] = {}
        for edit in self.edits:
            for place in edit.places:
                rest.setdefault(place, []).append(edit.sentence)
        distinct = {self.body[place].key: place for place in self.gone}
        return [
            Loss(
                self.body[place],
                tuple(word for sentence in rest.get(place, ()) for word in sentence.words),
                " ".join(f"{sentence.text.rstrip('.')}." for sentence in rest.get(place, ())),
            )
            for place in distinct.values()
        ]

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
    """Words in another order or place: an edited sentence is no part of neighbouring raw ones of its section."""
    return any(
        not _is_subsequence(edit.sentence.words, edit.origin.words)
        or any(pair.body[place].section != edit.sentence.section for place in edit.places)
        for edit in pair.edits
    )


def numbers_changed(pair: Pair) -> bool:
    """A number, in digits or words, or its unit that the sentence it comes from does not have."""
    return any(_is_number(word) for word in pair.excess) or any(
        not _is_subsequence(_numbers(edit.sentence), _numbers(edit.origin)) for edit in pair.edits
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
        not _is_subsequence(_sides(edit.sentence), _sides(edit.origin)) for edit in pair.edits
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
            if not _NEGATORS.isdisjoint(cut) and "change" not in cut and not _is_noise(" ".join(cut)):
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
        _vocabulary().degree.search(" ".join(Counter(edit.sentence.words) - Counter(edit.origin.words)))
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
        if not raised or _is_request(loss.origin.text):
            continue
        told = _vocabulary().told.search(loss.words) is not None
        occasion = told or (_TECHNIQUE.search(loss.origin.text) is not None and _is_noise(loss.words))
        occasion = occasion and _vocabulary().ends.search(loss.words) is None
        left = {mention.phrase for mention in find_mentions(loss.rest_text) if mention.value != NEGATIVE}
        for mention in raised:
            elsewhere = told and kept.issuperset(mention.classes)
            device = set(mention.classes) == {"Support Devices"}
            if mention.phrase not in left and not elsewhere and not (device and occasion):
                return True
    return False


def content_lost(pair: Pair) -> bool:
    """Words for what a chest image shows went, and not as noise."""
    return any(_tells_of_images(loss.words) and not _is_request(loss.origin.text) for loss in pair.losses)


def _tells_of_images(words: str) -> bool:
    """Whether words name what a chest image shows, and neither tell who was told nor, of its parts, how it was made."""
    vocabulary = _vocabulary()
    if vocabulary.abnormal.search(words):
        return vocabulary.told.search(words) is None
    return vocabulary.parts.search(words) is not None and not _is_noise(words)


def _is_noise(words: str) -> bool:
    """Whether words tell who was told, or how the study was made without saying what it shows."""
    told, _, noise, shows, *_ = _vocabulary()
    return told.search(words) is not None or (noise.search(words) is not None and shows.search(words) is None)


def _is_request(text: str) -> bool:
    """Whether a sentence says why the study was asked for, or how it was made."""
    if _REQUEST.search(text) is not None:
        return True
    return _HISTORY.search(text) is not None and _vocabulary().shows.search(text.lower()) is None


_REQUEST = re.compile(
    r"^\W*(?:indications?|history|clinical (?:history|information|indication)|reason for \w+|technique|comparisons?"
    r"|exam(?:ination)?|procedure|notification)\s*:|^\W*(?:an? |the )?addend\w+\b"
    r"|^\W*(?:please )?(?:evaluate|assess|rule out|r/o|eval|question of|history of)\b|\bICD[- ]?(?:9|10)\b"
    r"|\b(?:study|exam(?:ination)?|image|film) (?:is |was )?(?:\w+ )?(?:limited|degraded)\b",
    re.IGNORECASE,
)
_TECHNIQUE = re.compile(
    r"^\W*(?:an? |the )?(?:portable|single|frontal|lateral|ap|pa|upright|supine|semi\w*|bedside|chest|repeat|views?)\b"
    r"[^.]*\b(?:views?|radiographs?|films?|x-?rays?|images?)\b",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\byears?[- ]old\b|\b(?:history of|patient with)\b"
    r"|\b(?:presents|presented|presenting|admitted|complain\w+) (?:with|for|of|to)\b",
    re.IGNORECASE,
)


class _Vocabulary(NamedTuple):
    """The word lists of `guards.yaml`, compiled."""

    told: re.Pattern[str]
    ends: re.Pattern[str]
    noise: re.Pattern[str]
    shows: re.Pattern[str]
    parts: re.Pattern[str]
    abnormal: re.Pattern[str]
    degree: re.Pattern[str]


@cache
def _vocabulary() -> _Vocabulary:
    path = Path(__file__).parent / "guards.yaml"
    lists = cast(dict[str, list[str]], yaml.safe_load(path.read_text(encoding="utf-8")))
    if set(lists) != set(_Vocabulary._fields):
        raise ConfigError(f"{path} has the lists {', '.join(lists)}; it needs {', '.join(_Vocabulary._fields)}")
    phrases = {name: [phrase for pattern in patterns for phrase in expand(pattern)] for name, patterns in lists.items()}
    return _Vocabulary(**{name: re.compile(PhraseBook(dict.fromkeys(phrases[name], True)).pattern()) for name in lists})


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


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _sentences(text: str, section: str) -> Iterator[Sentence]:
    for _, sentence in split_sentences(_with_items_apart(text)):
        if words := _words(sentence):
            yield Sentence(tuple(words), sentence, section)


def _with_items_apart(text: str) -> str:
    """A numbered list in a running line, each item on a line of its own: its numbers measure nothing."""
    number, place = 1, 0
    if not text.lstrip().startswith(("1.", "1)")):
        return text
    parts: list[str] = []
    while match := re.compile(rf"(?:^|(?<=\s)){number}[.)]\s+(?=\D)").search(text, place):
        parts.append(text[place : match.start()])
        number, place = number + 1, match.end()
    return "\n\n".join([*parts, text[place:]])


_ALIKE = 0.3
"""Share of words in common from which a sentence may be what is left of another."""
_MERGED = 0.6
"""Share of the words of neighbouring sentences that one which runs over their ends must have kept."""


def _likeness(words: set[str], other: Sentence) -> float:
    shared = len(words.intersection(other.words))
    return shared / (len(words) + len(other.words) - shared) if shared else 0.0


def _is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    remaining = iter(whole)
    return all(word in remaining for word in part)


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
