"""CheXpert-14 labels of a report by rules: phrases, negation, uncertainty and their reach.

One pass finds every phrase of the lexicon; each sentence's phrases are then read in order. What names a class, and what
follows from the words around it, is as the CheXpert labeler has it (Irvin et al. 2019), also where that is peculiar:

- A class that is affirmed anywhere is positive; else suspected, uncertain; else denied, negative; else null.
- The heart, the mediastinum and every contour count as enlarged unless said to be normal; top normal is normal,
  unchanged and borderline are uncertain. Heart failure makes cardiomegaly uncertain.
- Vascular congestion is at most uncertain edema; "no new" makes uncertain; fluid overload and engorgement are nothing.
- A blunted angle, a granuloma, a calcified nodule, a plaque or volume loss has no class, but ends No Finding.
- Any valve, plate or coil is a device ("platelike" too); sternotomy wires and clips are none. Devices leave No Finding,
  but for a tracheostomy and a defibrillator.

It departs where the labeler's parser misses plain words: "is not seen" denies, and "clear except for" affirms. The code
and the phrase lists are this project's own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unix.data.label_lexicon import (
    ABNORMAL,
    AFFIRMED,
    ALTERNATIVE,
    BREAK,
    COMMA,
    CONJUNCTION,
    CUE,
    FINDING,
    HINT,
    MENTION,
    NEGATION_ADJACENT,
    NEGATION_AFTER,
    NEGATION_BEFORE,
    NEGATION_NEAR,
    NORMAL,
    QUIET,
    SEPARATOR,
    SINGULAR,
    STATE,
    SUBJECT,
    TOPIC,
    UNCERTAINTY_AFTER,
    UNCERTAINTY_BEFORE,
    VERB,
    VERSUS,
    load_lexicon,
)
from unix.records import Labels, no_labels

POSITIVE, NEGATIVE, UNCERTAIN = 1, 0, -1


class _Event(NamedTuple):
    """A phrase in place: `roles` and `classes` of its cue, and where it begins and ends."""

    roles: int
    classes: tuple[str, ...]
    start: int
    end: int


@dataclass(slots=True)
class Mention:
    """One naming of a finding: its phrase in lower case, the classes it counts for, and 1, 0 or -1.

    A finding of no class still speaks against No Finding.
    """

    phrase: str
    classes: tuple[str, ...]
    value: int
    start: int
    end: int


def label_report(text: str) -> Labels:
    """All 14 labels of a text; No Finding is 1 when nothing but support devices is positive or uncertain."""
    return labels_of(find_mentions(text))


def labels_of(mentions: Sequence[Mention]) -> Labels:
    """Labels from mentions: positive beats uncertain beats negative."""
    labels = no_labels()
    for mention in mentions:
        for name in mention.classes:
            labels[name] = _stronger(labels[name], mention.value)
        if mention.value != NEGATIVE and mention.phrase in ("chf", "heart failure"):
            labels["Cardiomegaly"] = _stronger(labels["Cardiomegaly"], UNCERTAIN)
    if all(mention.value == NEGATIVE or _leaves_no_finding(mention) for mention in mentions):
        labels["No Finding"] = POSITIVE
    return labels


def find_mentions(text: str) -> list[Mention]:
    """Every finding that the text names, in order; `start` and `end` index the text that `normalise` gives."""
    plain = normalise(text)
    book, expression = load_lexicon()
    meaning = book.meaning
    mentions: list[Mention] = []
    sentence: list[_Event] = []
    names_something = False
    for match in expression.finditer(plain):
        matched = match[0]
        character = matched[0]
        if character in ".;!":
            if names_something:
                _read_sentence(plain, sentence, mentions)
            sentence, names_something = [], False
        elif character == ",":
            sentence.append(_Event(SEPARATOR | COMMA, (), match.start(), match.end()))
        elif character == ":":
            said = bool(sentence) and bool(sentence[-1].roles & FINDING) and match.start() - sentence[-1].end <= 1
            sentence.append(_Event(VERB if said else BREAK, (), match.start(), match.end()))  # `Heart size: normal`
        elif character == "?":
            sentence.append(_Event(UNCERTAINTY_BEFORE, (), match.start(), match.end()))
        else:
            cue = meaning(matched)
            names_something = names_something or bool(cue.roles & FINDING)
            sentence.append(_Event(cue.roles, cue.classes, match.start(), match.end()))
    if names_something:
        _read_sentence(plain, sentence, mentions)
    return mentions


def normalise(text: str) -> str:
    """Lower case, single spaces, hyphens as spaces, slashes as `or`; paragraphs and list items become sentences."""
    if "\n" in text:
        text = _PARAGRAPH.sub(" . ", text)
    if ":" in text:
        text = _NONE.sub(" absent", text)
    return " ".join(_SLASH.sub(" or ", text.lower()).translate(_CHARACTERS).split())


_PARAGRAPH = re.compile(r"\n[ \t\r]*\n|\n[ \t]*[-*\u2022][ \t]")
_NONE = re.compile(r":\s*(?:none|no|absent|negative)\b(?=\s*(?:[.;,\n]|$))", re.IGNORECASE)  # `Pneumothorax: None.`
_SLASH = re.compile(r"(?<=[a-z])/(?=[a-z])")
_CHARACTERS = str.maketrans(
    {"-": " ", "\u2010": " ", "\u2013": " ", "/": " ", "(": " , ", ")": " , ", "[": " ", "]": " "}
)


def _stronger(old: int | None, new: int) -> int:
    if old is None or old == new:
        return new
    return POSITIVE if POSITIVE in (old, new) else UNCERTAIN


def _read_sentence(plain: str, events: Sequence[_Event], mentions: list[Mention]) -> None:
    clause = _Clause(events)
    for index, event in enumerate(events):
        if event.roles & SUBJECT:
            value = _state_of(plain, events, index)
            if value is None and not event.roles & QUIET:
                value = clause.polarity_ahead()
            clause.turn_to_subject()
            if value is not None:
                mentions.append(Mention(plain[event.start : event.end], event.classes, value, event.start, event.end))
        elif event.roles & (MENTION | HINT):
            mention = Mention(plain[event.start : event.end], event.classes, POSITIVE, event.start, event.end)
            clause.meet(mention, hint=bool(event.roles & HINT))
            if index and events[index - 1].roles & NORMAL and event.start - events[index - 1].end == 1:
                mention.value = NEGATIVE
            mentions.append(mention)
        else:
            clause.hear(event, index)


_CHARACTERS_OF_AN_ADJECTIVE = 9


class _Clause:
    """What holds at a place in a sentence: which cue reaches here, and which mentions a later cue may reach."""

    __slots__ = (
        "_alternative",
        "_clause_start",
        "_covered",
        "_cue",
        "_described",
        "_events",
        "_group",
        "_item_start",
        "_polarity",
        "_separated",
        "_subjects",
        "_told",
    )

    def __init__(self, events: Sequence[_Event]) -> None:
        self._events = events
        self._restart()

    def _restart(self) -> None:
        self._start_cue(POSITIVE)
        self._clause_start = self._item_start = 0  # where in the group the last comma and "and" stood
        self._group: list[Mention] = []  # mentions since the last verb
        self._subjects: list[Mention] = []  # mentions before it
        self._described: list[Mention] = []  # those of them that a "normal" would describe

    def _start_cue(self, polarity: int, cue: _Event | None = None) -> None:
        self._polarity = polarity
        self._cue = cue
        self._covered: Mention | None = None  # the last mention that the cue has reached
        self._told = False  # a verb came after it
        self._separated = False  # a comma or an "and" came after what it covers
        self._alternative: Mention | None = None  # an affirmed mention followed by "or"

    def polarity_ahead(self) -> int:
        """What holds for something named here that has no state: a cue denies it unless it has reached a mention."""
        return NEGATIVE if self._polarity == NEGATIVE and self._covered is None else POSITIVE

    def turn_to_subject(self) -> None:
        """A part of every chest is named: what follows is not said of the mentions before."""
        self._described = []
        if self._separated:
            self._empty_group()
            self._subjects = []

    def meet(self, mention: Mention, hint: bool) -> None:
        """Give the mention the value that holds here."""
        if self._separated and self._polarity == NEGATIVE and _is_device(mention) and not _is_device(self._covered):
            self._start_cue(POSITIVE)
        mention.value = UNCERTAIN if hint and self._polarity == POSITIVE else self._polarity
        if self._alternative is not None and mention.value == POSITIVE:
            mention.value = self._alternative.value = UNCERTAIN
        self._alternative = None
        self._covered = mention
        self._told = self._separated = False
        self._described = []
        self._group.append(mention)

    def hear(self, event: _Event, index: int) -> None:
        """Take note of a cue."""
        roles = event.roles
        if roles & BREAK:
            self._restart()
        elif roles & TOPIC:
            self.turn_to_subject()
        elif roles & NEGATION_AFTER:
            self._reach_back_or_forward(roles, NEGATIVE)
        elif roles & UNCERTAINTY_AFTER and (
            not roles & UNCERTAINTY_BEFORE or not self._something_follows(index, MENTION | HINT)
        ):
            self._reach_back_or_forward(roles, UNCERTAIN)
        elif roles & NEGATION_ADJACENT:
            if self._group and event.start - self._group[-1].end <= 1:
                self._group[-1].value = NEGATIVE
        elif roles & NEGATION_BEFORE:
            self._start_cue(NEGATIVE, event)
        elif roles & UNCERTAINTY_BEFORE:
            if self._polarity != NEGATIVE or self._separated:
                self._start_cue(UNCERTAIN)
        elif roles & VERSUS:
            for mention in self._group[-1:]:
                mention.value = UNCERTAIN if mention.value == POSITIVE else mention.value
            if self._polarity == POSITIVE:
                self._start_cue(UNCERTAIN)
        elif roles & ALTERNATIVE:
            self._clause_start = 0
            if self._group and self._group[-1].value == POSITIVE:
                self._alternative = self._group[-1]
        else:
            self._hear_structure(event, index)

    def _hear_structure(self, event: _Event, index: int) -> None:
        roles = event.roles
        if roles & NORMAL:
            for mention in self._described:
                mention.value = NEGATIVE
        if roles & SEPARATOR:
            self._hear_separator(event, index)
        elif roles & VERB:
            self._alternative = None
            self._told = self._cue is not None
            if self._group:
                self._subjects = self._spoken_of(roles)
                self._empty_group()
                self._described = [mention for mention in self._subjects if not _is_device(mention)]
        if roles & AFFIRMED and self._separated and not self._goes_on(index):
            self._start_cue(POSITIVE)

    def _hear_separator(self, event: _Event, index: int) -> None:
        roles = event.roles
        self._described = []
        if roles & COMMA:
            self._clause_start = len(self._group)
        elif roles & CONJUNCTION:
            self._clause_start, self._item_start = 0, len(self._group)
        if self._covered is None and self._cue is not None and self._cue.roles & NEGATION_NEAR:
            self._start_cue(POSITIVE)
            return
        self._separated = self._covered is not None or self._is_spent(event)
        ends = self._told or (self._covered is not None and roles & COMMA and self._polarity == UNCERTAIN)
        if self._separated and ends and not self._goes_on(index):
            self._start_cue(POSITIVE)

    def _is_spent(self, separator: _Event) -> bool:
        """Whether a cue that has reached no mention was about something else: `no free air below the diaphragm,`."""
        if self._cue is None:
            return False
        near = separator.start - self._cue.end < _CHARACTERS_OF_AN_ADJECTIVE
        return self._told or not near or not separator.roles & (COMMA | CONJUNCTION)

    def _goes_on(self, index: int) -> bool:
        """Whether the list that the cue rules goes on: an "or" before the next verb or cue, or one denial for all."""
        return self._something_follows(index, ALTERNATIVE, BREAK | VERB | CUE) or self._something_follows(
            index, NEGATION_AFTER
        )

    def _empty_group(self) -> None:
        self._group = []
        self._clause_start = self._item_start = 0

    def _spoken_of(self, roles: int) -> list[Mention]:
        """The group's mentions that a verb is about: of this clause, and of a singular verb the last item alone."""
        start = self._clause_start
        if roles & SINGULAR:
            start = max(start, self._item_start)
        return self._group[start:] or self._group

    def _reach_back_or_forward(self, roles: int, value: int) -> None:
        reached = self._spoken_of(roles) or self._subjects
        for mention in reached:
            mention.value = value
        if not reached:
            self._start_cue(value)

    def _something_follows(self, index: int, roles: int, end: int = BREAK) -> bool:
        for event in self._events[index + 1 :]:
            if event.roles & roles:
                return True
            if event.roles & end:
                return False
        return False


def _leaves_no_finding(mention: Mention) -> bool:
    return _is_device(mention) and not mention.phrase.startswith(("tracheostomy", "defib"))


def _is_device(mention: Mention | None) -> bool:
    return mention is not None and mention.classes == ("Support Devices",)


_WORDS_TO_STATE = 4


def _state_of(plain: str, events: Sequence[_Event], index: int) -> int | None:
    """What is said of the subject at `index`: 1 enlarged, 0 normal, -1 unchanged or borderline, None = nothing."""
    before = _state_before(plain, events, index)
    if before == UNCERTAIN and index + 1 < len(events) and events[index + 1].roles & VERB:
        after = _state_after(plain, events, index)
        return before if after is None else after
    if before is not None:
        return before
    after = _state_after(plain, events, index)
    return after if after is not None else _state_of_list(plain, events, index)


def _state_before(plain: str, events: Sequence[_Event], index: int) -> int | None:
    """A state that directly precedes: `enlarged heart`, `normal size of the heart`, `normal and stable contours`."""
    found: int | None = None
    for position in range(index - 1, -1, -1):
        event = events[position]
        if found is not None and event.roles & SEPARATOR and not event.roles & (STATE | COMMA):
            continue
        gap = plain[event.end : events[position + 1].start]
        if not event.roles & STATE or len(gap.split()) > _WORDS_TO_STATE:
            return found
        found = _value(events, position)
        if found != UNCERTAIN:
            return found
    return found


def _state_after(plain: str, events: Sequence[_Event], index: int) -> int | None:
    """A state that follows in the clause; an unchanged one gives way to a telling one: `stable and mildly enlarged`."""
    found: int | None = None
    verb = False
    for position in range(index + 1, len(events)):
        roles = events[position].roles
        if roles & STATE:
            if (verb or found is not None) and _leads_to_subject(plain, events, position):
                return found
            value = _value(events, position)
            if value != UNCERTAIN:
                return value
            found = value
        elif roles & (BREAK | MENTION | HINT) or (roles & SUBJECT and (verb or found is not None)):
            return found
        elif roles & VERB:
            if found is not None:
                return found
            verb = True
    return found


def _leads_to_subject(plain: str, events: Sequence[_Event], index: int) -> bool:
    """Whether the state at `index` is said of a subject after it: `with normal heart size`."""
    if index + 1 == len(events) or not events[index + 1].roles & SUBJECT:
        return False
    return len(plain[events[index].end : events[index + 1].start].split()) <= 1


def _state_of_list(plain: str, events: Sequence[_Event], index: int) -> int | None:
    """The state of the list that the subject stands in: `normal heart size and mediastinum`."""
    for position in range(index - 1, -1, -1):
        roles = events[position].roles
        if roles & (SUBJECT | TOPIC):
            before = _state_before(plain, events, position)
            if before is not None:
                return before
        elif not roles & SEPARATOR:
            return None
    return None


def _value(events: Sequence[_Event], index: int) -> int:
    """The value of the state at `index`; an abnormal one is denied by a negation before it in the same part."""
    roles = events[index].roles & STATE
    if roles & ABNORMAL:
        for event in reversed(events[:index]):
            if event.roles & (BREAK | SEPARATOR | STATE):
                break
            if event.roles & NEGATION_BEFORE:
                return NEGATIVE
        return POSITIVE
    return NEGATIVE if roles & NORMAL else UNCERTAIN
