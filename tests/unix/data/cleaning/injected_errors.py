"""Errors put into a faithful cleaning on purpose: seeded, by kind, from words of the text alone.

The word lists are this file's own and share nothing with the guards or the labeler, so that neither is measured with
its own ruler. Every variant yields a cleaning that says something else than the raw report does.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from unix.data.sections import body_sections, parse_sections
from unix.records import CleanedReport

DICTATED = Path(__file__).parent / "dictated_reports.txt"
NOISE = Path(__file__).parent / "noise_sentences.txt"


@dataclass(frozen=True)
class Injected:
    """A cleaning with one error."""

    kind: str
    variant: str
    raw: str
    cleaned: CleanedReport


@dataclass(frozen=True)
class Faithful:
    """A raw report and its cleaning as it should be."""

    raw: str
    cleaned: CleanedReport


def dictated_reports(path: Path = DICTATED) -> list[Faithful]:
    """The invented reports of a file: the raw text, and what is left without the noise that it marks."""
    blocks = re.split(r"^=== \d+\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [Faithful(block.replace("{{", "").replace("}}", ""), _without_marked(block)) for block in blocks]


def without_headers(report: Faithful) -> Faithful:
    """The cleaning as its own raw text, in one piece: a file of findings texts looks like this."""
    text = f"{report.cleaned.findings} {report.cleaned.impression}".strip()
    return Faithful(text, CleanedReport(text, ""))


def noisier(reports: list[Faithful], num_per_sentence: int = 12, path: Path = NOISE) -> Iterator[Faithful]:
    """The true cleanings of reports with each sentence of a file of noise put into several of them.

    A third of the raw texts has no headers; a sentence that ends in a comma begins another.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for number, line in enumerate(lines):
        for turn in range(num_per_sentence):
            cleaned = reports[(number * 7 + turn * 5) % len(reports)].cleaned
            rng = random.Random(number * 100 + turn)
            in_findings = not cleaned.impression or (bool(cleaned.findings) and rng.random() < 0.6)
            sentences = _sentences(cleaned.findings if in_findings else cleaned.impression)
            noise = line.removeprefix("@")
            place = len(sentences) if noise != line else rng.randrange(len(sentences) + (not noise.endswith(",")))
            if noise.endswith(","):
                begun = sentences[place]
                sentences[place] = f"{noise} {begun[0].lower()}{begun[1:]}"
            else:
                sentences.insert(place, noise)
            findings = " ".join(sentences) if in_findings else cleaned.findings
            impression = cleaned.impression if in_findings else " ".join(sentences)
            if turn % 3 == 0:
                yield Faithful(f"{findings} {impression}", cleaned)
            else:
                yield Faithful(f" INDICATION: Cough.\n\n FINDINGS: {findings}\n\n IMPRESSION: {impression}\n", cleaned)


_PER_VARIANT = {"laterality": 2, "negation": 4, "number": 12, "added": 2, "dropped": 4, "severity": 4}


def inject(report: Faithful, seed: int) -> Iterator[Injected]:
    """Every kind of error that the text allows, of each variant at most as many as `_PER_VARIANT` says."""
    rng = random.Random(seed)
    for kind, variants in _KINDS.items():
        for variant in variants:
            options = list(dict.fromkeys(_cases(report, variant)))
            rng.shuffle(options)
            for cleaned in options[: _PER_VARIANT[kind]]:
                yield Injected(kind, variant.__name__.strip("_"), report.raw, cleaned)


def _without_marked(block: str) -> CleanedReport:
    text = re.sub(r"\{\{.*?\}\}", "", block, flags=re.DOTALL)
    sections = parse_sections(text)
    if sections.findings or sections.impression:
        return CleanedReport(" ".join(sections.findings.split()), " ".join(sections.impression.split()))
    return CleanedReport(" ".join(" ".join(text[span.body : span.end] for span in body_sections(text)).split()), "")


def _cases(report: Faithful, variant: Callable[[str, str], Iterator[str]]) -> Iterator[CleanedReport]:
    cleaned = report.cleaned
    for changed in variant(cleaned.findings, report.raw) if cleaned.findings else ():
        if changed != cleaned.findings:
            yield CleanedReport(changed, cleaned.impression)
    for changed in variant(cleaned.impression, report.raw) if cleaned.impression else ():
        if changed != cleaned.impression:
            yield CleanedReport(cleaned.findings, changed)


def _like(word: str, model: str) -> str:
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def _replace_each(text: str, pattern: str, replacement: Callable[[re.Match[str]], str]) -> Iterator[str]:
    for match in re.finditer(pattern, text, re.IGNORECASE):
        new = replacement(match)
        if new != match[0]:
            changed = text[: match.start()] + new + text[match.end() :]
            yield re.sub(r"^ ?([a-z])", lambda first: first[1].upper(), re.sub(r" {2,}", " ", changed))


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[a-z)\]][.])\s+(?=[A-Z0-9])", text) if part.strip()]


_OTHER = {
    "left": "right",
    "right": "left",
    "leftward": "rightward",
    "rightward": "leftward",
    "lll": "rll",
    "rll": "lll",
    "lul": "rul",
    "rul": "lul",
}
_SIDE = r"\b(?:left|right|leftward|rightward|LLL|RLL|LUL|RUL)\b"


def _other(match: re.Match[str]) -> str:
    return _like(_OTHER[match[0].lower()], match[0])


def _one_side_swapped(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, _SIDE, _other)


def _all_sides_of_a_sentence_swapped(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        yield text.replace(sentence, re.sub(_SIDE, _other, sentence, flags=re.IGNORECASE), 1)


def _all_sides_swapped(text: str, raw: str) -> Iterator[str]:
    yield re.sub(_SIDE, _other, text, flags=re.IGNORECASE)


def _sides_of_two_sentences_exchanged(text: str, raw: str) -> Iterator[str]:
    matches = list(re.finditer(_SIDE, text, re.IGNORECASE))
    for first, second in pairwise(matches):
        if first[0].lower() != second[0].lower():
            changed = text[: second.start()] + _other(second) + text[second.end() :]
            yield changed[: first.start()] + _other(first) + changed[first.end() :]


def _bilateral_to_one(text: str, raw: str) -> Iterator[str]:
    for side in ("left", "right"):
        yield from _replace_each(text, r"\bbilateral\b", lambda match, side=side: _like(side, match[0]))
        yield from _replace_each(text, r"\bboth lungs\b", lambda match, side=side: _like(f"the {side} lung", match[0]))


def _one_to_bilateral(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(
        text, r"\b(?:left|right)(?= (?:\w+ )?(?:pleural )?\w+s?\b)", lambda match: _like("bilateral", match[0])
    )


def _no_dropped(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\bno (?=\w)", lambda match: "")


def _no_evidence_of_dropped(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\bno (?:\w+ )?evidence of\b", lambda match: _like("evidence of", match[0]))


def _no_to_a(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"(?<=is )no\b", lambda match: "a")


def _without_to_with(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\bwithout\b", lambda match: _like("with", match[0]))


def _not_dropped(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\bnot (?=\w)", lambda match: "")


def _no_inserted(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(
        text, r"\bthere (?:is|are) (?:an? )?(?!no\b|not\b)(?=\w)", lambda match: _like("there is no ", match[0])
    )


def _no_before_a_sentence(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        if re.match(r"(?:small|mild|moderate|large|tiny|severe|patchy|new|bilateral|right|left)\b", sentence, re.I):
            yield text.replace(sentence, f"No {sentence[0].lower()}{sentence[1:]}", 1)


def _not_inserted(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(
        text,
        r"\b(?:is|are) (?=(?:seen|noted|present|identified|visualized|enlarged|clear|normal|intact|unchanged)\b)",
        lambda match: match[0] + "not ",
    )


def _normal_to_abnormal(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\b(?:unremarkable|normal)\b", lambda match: _like("abnormal", match[0]))


def _present_to_absent(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"\bpresent\b", lambda match: "absent")


_COUNTS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_NUMBER = r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*[\d)])(?!\.\s+[A-Z])"


def _number_raised(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(
        text,
        _NUMBER,
        lambda match: f"{float(match[0]) + 1:.1f}" if "." in match[0] else str(int(match[0]) + 1),
    )


def _digits_reversed(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, _NUMBER, lambda match: match[0][::-1] if match[0][-1] != "0" else match[0] + "0")


def _decimal_point_moved(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(
        text, _NUMBER, lambda match: match[0].replace(".", "") if "." in match[0] else "0." + match[0]
    )


def _other_number_of_the_report(text: str, raw: str) -> Iterator[str]:
    numbers = sorted(set(re.findall(r"(?<![\d.])\d+(?:\.\d+)?", raw)))
    yield from _replace_each(
        text, _NUMBER, lambda match: next((number for number in numbers if number != match[0]), match[0])
    )


def _unit_changed(text: str, raw: str) -> Iterator[str]:
    yield from _replace_each(text, r"(?<=\d )(?:mm|cm)\b", lambda match: "cm" if match[0].lower() == "mm" else "mm")


def _number_word_changed(text: str, raw: str) -> Iterator[str]:
    for words in (_COUNTS, _ORDINALS):
        for step in (1, -1):

            def other(match: re.Match[str], words: list[str] = words, step: int = step) -> str:
                return _like(words[(words.index(match[0].lower()) + step) % len(words)], match[0])

            yield from _replace_each(text, rf"\b(?:{'|'.join(words)})\b", other)


_ADDED = [
    "Small right pleural effusion.",
    "There is a small left pleural effusion.",
    "There is a small left apical pneumothorax.",
    "Mild cardiomegaly.",
    "The heart is mildly enlarged.",
    "There is mild pulmonary edema.",
    "Patchy right lower lobe consolidation.",
    "Findings are concerning for pneumonia.",
    "Bibasilar atelectasis.",
    "A right-sided central venous catheter is in place.",
    "There is an acute fracture of the left sixth rib.",
    "There is a 7 mm nodule in the right upper lobe.",
    "Degenerative changes of the spine.",
    "There is a hiatal hernia.",
    "Old granulomatous disease.",
    "Pneumonia.",
    "The aorta is tortuous.",
    "Emphysema is present.",
    "Right hilar adenopathy.",
    "An opacity is seen in the lingula.",
]


def _inserted_at_every_place(text: str, sentence: str) -> Iterator[str]:
    sentences = _sentences(text)
    for place in {0, len(sentences) // 2, len(sentences)}:
        yield " ".join([*sentences[:place], sentence, *sentences[place:]])


def _sentence_added(text: str, raw: str) -> Iterator[str]:
    known = set(re.findall(r"[a-z]+", raw.lower()))
    for sentence in _ADDED:
        told = [word for word in re.findall(r"[a-z]{6,}", sentence.lower()) if word not in known]
        if told:  # so that it is news to this report
            yield from _inserted_at_every_place(text, sentence)


def _denied_finding_affirmed_again(text: str, raw: str) -> Iterator[str]:
    for match in re.finditer(r"\bno (?:evidence of |focal |new |acute )*((?:pleural )?[a-z]{5,}s?)\b", raw, re.I):
        finding = match[1].lower()
        if finding.split()[-1] in _FINDINGS:
            yield from _inserted_at_every_place(text, f"There is {finding}.")
            yield from _inserted_at_every_place(text, f"Small right {finding}.")


def _finding_of_the_other_side_added(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        sides = re.findall(r"\b(?:left|right)\b", sentence, re.IGNORECASE)
        swapped = re.sub(_SIDE, _other, sentence, flags=re.IGNORECASE)
        if len(set(map(str.lower, sides))) == 1 and swapped.lower() not in raw.lower() and _positive(sentence):
            yield f"{text} {swapped}"


def _finding_of_the_reports_own_words_added(text: str, raw: str) -> Iterator[str]:
    words = set(re.findall(r"[a-z]+", raw.lower()))
    for size in ("small", "mild", "moderate", "large", "new", "minimal"):
        for side in ("left", "right"):
            for finding in sorted(_FINDINGS & words):
                sentence = f"{size.capitalize()} {side} {finding}."
                affirmed = re.search(rf"\b{side}\b[^.]*\b{finding}", raw, re.IGNORECASE)
                if {size, side} <= words and affirmed is None:
                    yield from _inserted_at_every_place(text, sentence)


def _phrase_added_to_a_sentence(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        if sentence.endswith("."):
            for phrase in (" with a small effusion", " and mild edema", ", suggesting pneumonia", " and atelectasis"):
                if phrase.split()[-1] not in sentence.lower():
                    yield text.replace(sentence, f"{sentence[:-1]}{phrase}.", 1)


def _finding_of_the_indication_added(text: str, raw: str) -> Iterator[str]:
    match = re.search(r"^\s*(?:INDICATION|HISTORY|CLINICAL[A-Z ]*|REASON[A-Z ]*):(.*)$", raw, re.MULTILINE)
    if match is not None:
        for word in re.findall(r"[a-z]+", match[1].lower()):
            if word in _FINDINGS and word not in text.lower():
                yield f"{text} {word.capitalize()}."


def _severity_changed(text: str, raw: str) -> Iterator[str]:
    scale = {
        "small": "large",
        "tiny": "large",
        "mild": "severe",
        "mildly": "severely",
        "moderate": "severe",
        "large": "small",
        "severe": "mild",
        "increased": "decreased",
        "decreased": "increased",
    }
    yield from _replace_each(
        text, rf"\b(?:{'|'.join(scale)})\b", lambda match: _like(scale[match[0].lower()], match[0])
    )


_FINDINGS = frozenset(
    re.findall(
        r"\w+",
        "effusion effusions pneumothorax pneumothoraces consolidation consolidations opacity opacities atelectasis "
        "edema cardiomegaly pneumonia infiltrate infiltrates nodule nodules mass masses fracture fractures emphysema "
        "adenopathy lymphadenopathy scarring fibrosis granuloma hernia congestion collapse hemothorax bronchiectasis "
        "metastases lesion lesions thickening plaques pneumomediastinum scoliosis kyphosis cavity calcification "
        "hyperinflation airspace tortuous enlarged pacemaker catheter tube line drain drains wires clips osteophyte "
        "spurring degenerative deformity elevated elevation blunting infection aspiration contusion widening "
        "ground interstitial reticular nodular infarct density haze hazy ectatic dextroscoliosis cuffing eventration",
    )
)
_NOT_POSITIVE = re.compile(
    r"\b(?:no|not|without|negative|free|clear|normal|unremarkable|resol\w+|cleared|removed|absent|neither|nor|never"
    r"|history|evaluat\w+|rule|compar\w+|denies|excluded|unlikely|within|intact|laboratory|CRP|C-reactive|years?[- ]old"
    r"|physical examination|found on)\b",
    re.IGNORECASE,
)


def _positive(sentence: str) -> bool:
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    return bool(words & _FINDINGS) and _NOT_POSITIVE.search(sentence) is None


def _positive_sentence_dropped(text: str, raw: str) -> Iterator[str]:
    sentences = _sentences(text)
    for index, sentence in enumerate(sentences):
        if len(sentences) > 1 and _positive(sentence):
            yield " ".join([*sentences[:index], *sentences[index + 1 :]])


def _item_of_a_list_dropped(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        if not _positive(sentence):
            continue
        for match in re.finditer(r",? (?:and|with) (?:an? |the )?[^,.;]+(?=\.$)|, [^,.;]+(?=, (?:and )?)", sentence):
            if set(re.findall(r"[a-z]+", match[0].lower())) & _FINDINGS:
                yield text.replace(sentence, sentence[: match.start()] + sentence[match.end() :], 1)


def _beginning_of_a_sentence_dropped(text: str, raw: str) -> Iterator[str]:
    for sentence in _sentences(text):
        match = re.match(r"[^,.;]+? (?:and|with) (?=\w)", sentence)
        if match is not None and _positive(sentence) and set(re.findall(r"[a-z]+", match[0].lower())) & _FINDINGS:
            rest = sentence[match.end() :]
            yield text.replace(sentence, rest[0].upper() + rest[1:], 1)


def _finding_dropped_everywhere(text: str, raw: str) -> Iterator[str]:
    sentences = _sentences(text)
    for finding in sorted(_FINDINGS):
        rest = [sentence for sentence in sentences if finding not in sentence.lower()]
        told = [sentence for sentence in sentences if finding in sentence.lower()]
        if rest and any(_positive(sentence) for sentence in told):
            yield " ".join(rest)


_KINDS: dict[str, list[Callable[[str, str], Iterator[str]]]] = {
    "laterality": [
        _one_side_swapped,
        _all_sides_of_a_sentence_swapped,
        _all_sides_swapped,
        _sides_of_two_sentences_exchanged,
        _bilateral_to_one,
        _one_to_bilateral,
    ],
    "negation": [
        _no_dropped,
        _no_evidence_of_dropped,
        _no_to_a,
        _without_to_with,
        _not_dropped,
        _no_inserted,
        _no_before_a_sentence,
        _not_inserted,
        _normal_to_abnormal,
        _present_to_absent,
    ],
    "number": [
        _number_raised,
        _digits_reversed,
        _decimal_point_moved,
        _other_number_of_the_report,
        _unit_changed,
        _number_word_changed,
    ],
    "added": [
        _sentence_added,
        _denied_finding_affirmed_again,
        _finding_of_the_other_side_added,
        _finding_of_the_reports_own_words_added,
        _phrase_added_to_a_sentence,
        _finding_of_the_indication_added,
    ],
    "dropped": [
        _positive_sentence_dropped,
        _item_of_a_list_dropped,
        _beginning_of_a_sentence_dropped,
        _finding_dropped_everywhere,
    ],
    "severity": [_severity_changed],
}
KINDS = tuple(_KINDS)
