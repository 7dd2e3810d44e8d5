"""The rule cleaner: a raw report in, its findings and impression without noise out. Pure; the floor a model must beat.

It works sentence by sentence. A sentence that is noise goes whole; from every other one the noisy stretches go and the
words that remain stay in their order. What decides is the words that a sentence has beside those that make it noise:

- an *observation* is a word that only a report of images uses ("opacity", "costophrenic"). It saves a sentence with
  symptoms, treatment or technique;
- *anatomy* and the labeler's lexicon save a sentence that looks like technique, comparison or a name;
- a sentence without any word of the vocabularies says nothing of the images, and goes, unless it only names something.

Of the images is what the radiograph shows, and what it leads the reader to do. What CT, ultrasound, a physical
examination or the laboratory found is not, unless the study is a CT. In doubt words stay: a lost finding is worse than
noise. So a sentence that tells who was told of a finding loses only the telling where the finding stands nowhere else.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache
from operator import attrgetter

from unix.data.cleaning.rule_book import load_rules
from unix.data.cleaning.sentences import split_sentences
from unix.data.labels import find_mentions
from unix.data.sections import body_sections, split_sections
from unix.records import CleanedReport, RemovedSpan

_WHOLE_SECTIONS = {
    "wet read": "wet_read",
    "addendum": "addendum",
    "notification": "notification",
    "recommendations": "filler",  # an answer has no field for it, and no category is nearer
}
_SEPARATOR_LINE = re.compile(
    r"^[ \t]*(?:[_=*~#-]{4,}|\(over\)|\(cont(?:inued|\.)?\)|final (?:radiology )?report)[ \t]*$", re.M | re.I
)
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:)])")
_REPEATED_STOP = re.compile(r"([,;:])(?:\s*[,;:])+|([,;:])\s*(?=\.)|(?<=[.!])\s*[.,;:]+")
_DOUBLE_STOP = re.compile(r"(?<!\.)\.\.$")
_EMPTY_BRACKETS = re.compile(r"\(\s*[.,;]*\s*\)|\[\s*\]")
_LEADING = re.compile(r"^[\s,;:.)\]-]+")
_DANGLING = re.compile(
    r"(?:[\s,;:(-]|\b(?:and|or|as|which|that|by|to|from|at|on|in|of|with|the|a|an|per|for|was|were|is|are)\b)+(?=[.\s]*$)"
)
# What is said of a picture with one of these words is not what the picture shows, or not now.
_DENIAL = re.compile(
    r"\b(?:no|not|never|without|neither|nor|fails?|failed|unable|if|may|might|could|would|can|should|again|longer"
    r"|prior|previous|previously|earlier|old|older|last|outside|comparison|compared|yesterday"
    r"|recommend\w*|advis\w+|suggest\w*|consider\w*|to (?:show|document|confirm|demonstrate|reveal|depict))\b|n't\b",
    re.IGNORECASE,
)
# Another modality is advised or compared with, not reported.
_ADVICE = re.compile(
    r"\b(?:recommend\w*|advis\w+|could|would|should|may|might|suggest\w*|consider\w*|further|warrant\w*|if"
    r"|correlat\w+|better|compar\w+|prior|previous\w*)\b",
    re.IGNORECASE,
)
# A few words without a verb of their own: what was told of, when the telling is gone.
_TOPIC = re.compile(
    r"^\W*(?!no\b|without\b)(?:(?:the|these|this|those|above|presence|possibility|findings?|results?|critical|of|an?|new"
    r"|concern(?:ing)?|for|regarding|about|diagnosis|suspected|possible|abnormal)\s+)*(?:\S+\s+){0,4}\S*$",
    re.IGNORECASE,
)
_TOLD = frozenset({"notification", "signature", "dictation"})
"""Where what cannot be taken out of a sentence is only the topic of what was told."""
# Words that point at the picture.
_DEIXIS = re.compile(
    r"\b(?:radiographs?|x-?\s?rays?|cxrs?|films?|there (?:is|are|was|were)"
    r"|these (?:findings|appearances|features|changes)"
    r"|(?:is|are) (?:seen|noted|present|visible|identified))\b"
)
_TOMOGRAPHY = re.compile(r"\bCTA?\b|\bcomputed tomograph|\bCTPA\b", re.IGNORECASE)
_RADIOGRAPHY = re.compile(r"\bradiograph|x-?\s?ray|\b(?:PA|AP)\b|\bCXR\b|\bportable\b|\bviews?\b", re.IGNORECASE)
_DEVICES = ("Support Devices",)
"""An observation where it is one: the lexicon's other words for devices name equipment too."""
_COURSE = re.compile(
    r"^(?:this|these|the)\b.*\b(?:was|were|is|are) (?:not |also |already )*(?:present|seen|visible|evident|new)\b", re.I
)
"""A finding named in the sentence before was there or not."""
_PRIOR = "prior_reference"
_CONJUNCTION = re.compile(r"^(?:and|or|but)\s+", re.IGNORECASE)
_CLAUSE_END = re.compile(r"(?:[,;]\s*)?\b(?:but|however|while|whereas|although|though|with)\b[,\s]*|[,;]\s+")
# A sentence without these only names something.
_PROSE = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|by|you|your|we|our|i|this|that|these|please|will|with|to|for|at|on|of"
    r"|the|from|and|as|not|an?)\b|_{2,}|\bX{3,}\b|:",
    re.IGNORECASE,
)
_WITHOUT_SUBJECT = re.compile(r"(?:the|an?)\s+(?:and |or )?(?:is|are|was|were|has|have)\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{2}")


def clean_report(report: str, remove_priors: bool = False) -> CleanedReport:
    """Findings and impression of a raw report without noise, and what was taken out, in report order.

    With `remove_priors`, references to earlier studies go too. A report without findings or impression gives its last
    paragraph, or, without any header, its whole text as findings.
    """
    bodies = body_sections(report)
    whole = [
        span
        for span in split_sections(report)
        if span.name in _WHOLE_SECTIONS and not any(span.start <= body.body < span.end for body in bodies)
    ]
    text = "\n\n".join(report[body.body : body.end] for body in bodies)
    cleaner = _Cleaner(text, remove_priors, _is_tomography(report))
    texts: dict[str, list[str]] = {"findings": [], "impression": []}
    for span in sorted([*bodies, *whole], key=attrgetter("start")):
        if span.name in texts:
            texts[span.name].extend(cleaner.clean(report[span.body : span.end], section=span.name))
        else:
            cleaner.remove(report[span.start : span.end], _WHOLE_SECTIONS[span.name])
    return CleanedReport(" ".join(texts["findings"]), " ".join(texts["impression"]), tuple(cleaner.removed))


class _Cleaner:
    """Cleans the sections of one report and collects what it takes out."""

    def __init__(self, text: str, remove_priors: bool, is_tomography: bool) -> None:
        self.removed: list[RemovedSpan] = []
        self.depends_on_text = False
        """What was cleaned would be cleaned otherwise in another report."""
        self._text = text
        self._remove_priors = remove_priors
        self._is_tomography = is_tomography
        self._rules = rules = load_rules()
        self._spans = rules.spans + (rules.prior_spans if remove_priors else ())
        self._prior_sentences = rules.prior_sentences if remove_priors else ()
        self._other_modality = () if is_tomography else rules.other_modality
        self._seen: set[tuple[str, str]] = set()
        self._labelled = False
        """An inline label (`Imaging notes:`) has said where the images are spoken of."""
        self._discussing = False
        """Such a section has come to its `Discussion:`."""

    def remove(self, text: str, category: str) -> None:
        """Note that `text` was taken out."""
        if text := " ".join(text.split()):
            self.removed.append(RemovedSpan(text, category))

    def clean(self, body: str, section: str) -> Iterator[str]:
        """The sentences of a section that stay, cleaned."""
        self._labelled = self._discussing = False
        for separator in _SEPARATOR_LINE.findall(body):
            self.remove(separator, "header")
        item = ""  # the number of a list item whose first sentences went
        for number, sentence in split_sentences(_SEPARATOR_LINE.sub("\n\n", body)):
            item = number or item
            cleaned = self._clean_again(sentence)
            if not cleaned:
                continue
            key = (section, cleaned.casefold().rstrip(". "))
            if key in self._seen:
                self.remove(cleaned, "duplicate")
                continue
            self._seen.add(key)
            yield f"{item} {cleaned}" if item[:1].isdigit() else cleaned
            item = ""

    def _clean_again(self, sentence: str) -> str:
        """Clean a sentence, or remember how it was cleaned in another report."""
        alone = None if self._labelled else _cleaned_alone(sentence, self._remove_priors, self._is_tomography)
        if alone is None:
            return self.clean_sentence(sentence)
        cleaned, removed = alone
        self.removed.extend(removed)
        return cleaned

    def clean_sentence(self, sentence: str) -> str:
        """What stays of a sentence; "" for nothing."""
        sentence = _DOUBLE_STOP.sub(".", sentence)
        said = text = self._parts_to_keep(self._without_lead(sentence))
        category = self._telling(said)
        if category is not None:
            text = self._rescued(said, category)
        else:
            category = self._topic(sentence) or self._category(said)
            if category is not None:
                text = self._current_part(said) if category == _PRIOR else ""
        if category is not None and not text:
            self.remove(said, category)
            return ""
        was_told = category is not None
        for rule in self._spans:
            text = rule.expression.sub(lambda match, category=rule.category: self._take(match, category), text)
        if text == sentence:
            category = None
        else:
            text = _tidy(text, sentence)
            category = self._what_is_left(text)
            if category is None and not was_told and (told := self._telling(text)) is not None:
                left, text = text, self._rescued(text, told)
                if not text:
                    text, category = left, told
        if category is None and _PROSE.search(sentence) and not self._says_anything(text):
            category = "filler"
        if category is not None:
            self.remove(text, category)
            return ""
        return text

    def _what_is_left(self, text: str) -> str | None:
        """The category of a sentence that is noise once its noisy stretches are gone."""
        if not _WORD.search(text):
            return "header"
        if _WITHOUT_SUBJECT.match(text):
            return "deidentification"
        return self._category(text)

    def _without_lead(self, sentence: str) -> str:
        """The sentence from what the picture shows on, where the words before it say nothing of the images."""
        if self._rules.picture.search(sentence) is None:
            return sentence
        match = self._rules.lead.search(sentence)
        if match is None or _DENIAL.search(match[0]) or self._names_several_pictures(sentence):
            return sentence
        around = f"{match['before']} {match['between'] or ''}"
        if self._rules.observation.search(around.lower()) or find_mentions(around):
            return sentence
        self.remove(match[0], "history" if _WORD.search(match["before"]) else "technique")
        return sentence[match.end() :]

    def _names_several_pictures(self, sentence: str) -> bool:
        pictures = self._rules.picture.findall(sentence)
        num_views = sum("view" in picture.lower() for picture in pictures)
        return max(num_views, len(pictures) - num_views) > 1

    def _telling(self, sentence: str) -> str | None:
        """The category of a sentence that tells how, by whom and for whom the report was made."""
        return next((rule.category for rule in self._rules.sentences if rule.expression.search(sentence)), None)

    def _rescued(self, sentence: str, category: str) -> str:
        """What such a sentence says of the images, if it does and no other sentence says so; "" for nothing."""
        rules = self._rules
        lower = sentence.lower()
        advises = rules.advice.search(lower) is not None and "correlat" not in lower
        observes = advises or rules.observation.search(lower) is not None
        if category == "history":
            return sentence if self._shows_a_picture(sentence) else ""
        if not observes and all(mention.classes == _DEVICES for mention in find_mentions(sentence)):
            return ""
        rest = sentence
        is_all_noise = False
        for tail in rules.tails:
            if tail.category == category:
                left = tail.expression.sub("", rest).strip(" .,;:")
                is_all_noise = is_all_noise or not left
                if self._says_something(left):
                    rest = left
        if rest == sentence.strip(" .,;:"):
            rest = "" if category in _TOLD or is_all_noise else sentence
        elif _TOPIC.match(rest) and self._stands_elsewhere(rest, sentence):
            rest = ""
        elif rest:
            self.remove(sentence.replace(rest, " ", 1), category)
        if not rest and not self._stands_elsewhere(sentence, sentence):
            return sentence
        return rest

    def _stands_elsewhere(self, text: str, sentence: str) -> bool:
        """Whether another sentence of the report names each finding that `text` names."""
        self.depends_on_text = True
        here = Counter(mention.phrase for mention in find_mentions(sentence))
        return all(self._phrases[mention.phrase] > here[mention.phrase] for mention in find_mentions(text))

    @cached_property
    def _phrases(self) -> Counter[str]:
        return Counter(mention.phrase for mention in find_mentions(self._text))

    def _parts_to_keep(self, sentence: str) -> str:
        """A sentence without the parts between semicolons that are noise, where another part says something."""
        parts = sentence.split("; ")
        if len(parts) == 1:
            return sentence
        categories = [self._telling(part) or self._category(part) for part in parts]
        kept = [part for part, category in zip(parts, categories, strict=True) if category is None]
        if not any(map(self._says_something, kept)):
            return sentence
        for part, category in zip(parts, categories, strict=True):
            if category is not None:
                self.remove(part, category)
        return "; ".join(kept)

    def _current_part(self, sentence: str) -> str:
        """The clauses of a sentence that speak of now, beside one that only tells what is no longer there."""
        clauses = [_CONJUNCTION.sub("", clause) for clause in _CLAUSE_END.split(sentence) if clause]
        kept = [clause for clause in clauses if self._category(clause) is None and self._says_something(clause)]
        return ", ".join(kept)

    def _take(self, match: re.Match[str], category: str) -> str:
        self.remove(match[0], category)
        return " "

    def _category(self, sentence: str) -> str | None:
        """The category of a sentence that is noise as a whole; None for one that stays."""
        rules = self._rules
        for rule in self._prior_sentences:
            if rule.expression.search(sentence):
                return rule.category
        lower = sentence.lower()
        observes = (
            rules.observation.search(lower) is not None
            or rules.advice.search(lower) is not None
            or (rules.picture.search(sentence) is not None and rules.anatomy.search(lower) is not None)
        )
        if not observes:
            for rule in rules.clinical:
                if rule.expression.search(sentence):
                    if rules.narrative.search(sentence) is None and self._says_something(sentence):
                        break
                    return rule.category
        for rule in self._other_modality:
            match = rule.expression.search(sentence)
            if match is None or _ADVICE.search(sentence) or rules.picture.search(sentence):
                continue
            if not self._says_something(sentence[: match.start()]):
                return rule.category
        if not observes and _COURSE.search(sentence) is None:
            for rule in rules.bare_sentences:
                if rule.expression.search(sentence) and not self._says_something(sentence):
                    return rule.category
        return None

    def _topic(self, sentence: str) -> str | None:
        """The category that an inline label gives a sentence; one that speaks of a picture has none.

        A label is for its own sentence, but a discussion that follows labelled findings goes on to the next label.
        """
        label = next((rule.category for rule in self._rules.labels if rule.expression.search(sentence)), None)
        if label == "images":
            self._labelled, self._discussing = True, False
            self.depends_on_text = True
            return None
        if label == "filler":
            self._discussing = self._labelled
        elif label is None and self._discussing:
            label = "filler"
        teaches = label == "filler" and any(
            rule.category == "filler" and rule.expression.search(sentence) for rule in self._rules.clinical
        )
        return None if label is None or (self._shows_a_picture(sentence) and not teaches) else label

    def _shows_a_picture(self, sentence: str) -> bool:
        return _DEIXIS.search(sentence.lower()) is not None and self._says_something(sentence)

    def _says_something(self, sentence: str) -> bool:
        """Whether a sentence names what the images show."""
        lower = sentence.lower()
        return (
            self._rules.observation.search(lower) is not None
            or self._rules.anatomy.search(lower) is not None
            or bool(find_mentions(sentence))
        )

    def _says_anything(self, sentence: str) -> bool:
        """Whether a sentence has any word that the images could have asked for."""
        return self._rules.general.search(sentence.lower()) is not None or self._says_something(sentence)


@lru_cache(maxsize=1 << 15)
def _cleaned_alone(
    sentence: str, remove_priors: bool, is_tomography: bool
) -> tuple[str, tuple[RemovedSpan, ...]] | None:
    """What stays of a sentence and what goes; None where the rest of its report decides.

    Remembered, because reports share most of their sentences.
    """
    cleaner = _Cleaner("", remove_priors, is_tomography)
    cleaned = cleaner.clean_sentence(sentence)
    return None if cleaner.depends_on_text else (cleaned, tuple(cleaner.removed))


def forget_sentences() -> None:
    """Forget how sentences were cleaned; only a measurement needs it."""
    _cleaned_alone.cache_clear()


def _is_tomography(report: str) -> bool:
    """Whether the study's own header names a CT and no radiograph."""
    titles = [
        report[span.start : span.end]
        for span in split_sections(report)
        if span.name in ("preamble", "examination", "technique")
    ]
    text = " ".join(titles)
    return _TOMOGRAPHY.search(text) is not None and _RADIOGRAPHY.search(text) is None


def _tidy(text: str, sentence: str) -> str:
    """Mend spaces, stops and the first letter of what is left of a sentence."""
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = " ".join(text.split())
    text = _SPACE_BEFORE_STOP.sub(r"\1", text)
    text = _REPEATED_STOP.sub(lambda match: match[1] or "", text)
    text = _DANGLING.sub("", _LEADING.sub("", text)).strip()
    if sentence.endswith(".") and text and text[-1] not in ".!?":  # the stop went with what stood before it
        text += "."
    return text if sentence[:1].islower() else text[:1].upper() + text[1:]
