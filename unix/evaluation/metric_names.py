"""What a metric's name means, in words and with its convention: published numbers differ by these."""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

_GROUPS = (
    ("original_", "Labels and words, against the report as written"),
    ("readback_", "Findings read back from the drawings by the model itself"),
    ("fixed_readback_", "Findings read back from the drawings by the starting checkpoint"),
    ("alignment_", "Drawings against their texts, by an outside model"),
    ("noise", "Share of the reports in which the cleaner's rules find noise"),
)
_LABELS, _TEXT, _IMAGES, _RULER = (
    "Labels, against the cleaned report",
    "Words, against the cleaned report",
    "Drawn against real images, in the encoder's features",
    "Measured on the pixels of the phantom",
)
_KINDS = (
    (re.compile(r"^(micro|macro|example)_"), _LABELS),
    (re.compile(r"^(corpus_)?bleu_|^rouge_l$|^radgraph_"), _TEXT),
    (re.compile(r"_auc$|^side_accuracy$"), _RULER),
)
_SENTENCES = (
    (re.compile(r"^(micro|macro)_f1_(14|5)(_frequent)?$"), r"\1-F1, \2 classes\3"),
    (re.compile(r"^example_f1$"), "F1 per report, mean"),
    (re.compile(r"^example_(precision|recall)$"), r"\1 per report, mean"),
    (re.compile(r"^bleu_(\d)$"), r"BLEU-\1, sentences, smoothing method 4, mean"),
    (re.compile(r"^corpus_bleu_(\d)$"), r"BLEU-\1, corpus, unsmoothed"),
    (re.compile(r"^rouge_l$"), "ROUGE-L, F-measure, no stemming"),
    (re.compile(r"^radgraph_f1_partial_(.+)$"), r"RadGraph F1, level partial, model \1, mean"),
    (re.compile(r"^alignment_biovil_t$"), "cosine by BioViL-T, mean"),
    (re.compile(r"^noise$"), "invented noise of any kind"),
    (re.compile(r"^noise_(.+)$"), r"invented noise: \1"),
    (re.compile(r"^frechet_distance$"), "Fréchet distance"),
    (re.compile(r"^kernel_distance$"), "kernel distance, all images, unbiased"),
    (re.compile(r"^(\w+)_auc$"), r"\1, AUC of its measure"),
    (re.compile(r"^side_accuracy$"), "side as in the reference, of one-sided findings"),
)
_FREQUENT, _NEGATIVE = "_frequent", "_uncertain_negative"


class Named(Protocol):
    """Anything with a metric's name."""

    @property
    def name(self) -> str:
        """The metric's name."""
        ...


Item = TypeVar("Item", bound=Named)


def described(name: str) -> str:
    """A metric's name in words; what is uncertain counts as present unless the words say otherwise."""
    bare = name.removesuffix(_NEGATIVE)
    for prefix, _ in _GROUPS[:3]:
        bare = bare.removeprefix(prefix)
    words = bare.replace("_", " ")
    for pattern, sentence in _SENTENCES:
        if pattern.match(bare):
            words = pattern.sub(sentence, bare).replace(_FREQUENT, " with at least ten positives").replace("_", " ")
            break
    return words + (", uncertain as absent" if name.endswith(_NEGATIVE) else "")


def group_of(name: str) -> str:
    """The heading that a metric stands under."""
    for prefix, heading in _GROUPS:
        if name.startswith(prefix):
            return heading
    return next((heading for pattern, heading in _KINDS if pattern.search(name)), _IMAGES)


def grouped(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items under their headings, in the order in which they come."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(group_of(item.name), []).append(item)
    return groups
