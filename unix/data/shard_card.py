"""The dataset card of a set's present release: `README.md` beside its manifest, counted from the shards themselves.

A card holds counts and digests alone: no text of a report, no id.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unix.data.stream import ShardReader
from unix.manifest import Manifest, read_manifest, write_atomically
from unix.records import CHEXPERT_14, Split, Task

CARD_FILE = "README.md"

_USE = {
    Task.UNDERSTANDING: "frontal chest radiographs with the findings and impression that describe them",
    Task.GENERATION: "captions (the impression, else the findings) with the chest radiographs that show them",
}
_LICENCES = {
    "mimic-cxr": (
        "**MIMIC-CXR** is under PhysioNet's Credentialed Health Data License and data use agreement. Everything here "
        "that comes from it (resized images, cleaned reports, latents) is derived data and stays under the same terms: "
        "only credentialed users who signed the agreement may have it, it must not be sent to third parties or their "
        "services, nobody may try to identify patients, and sharing it means submitting it to PhysioNet under the same "
        "licence, with MIMIC-CXR as its source. Models trained on it may remember it: treat their weights alike."
    ),
    "iu-xray": (
        "**IU X-ray** comes from Open-i (National Library of Medicine), open to all for non-commercial use with "
        "attribution; its terms allow no redistribution of changed copies."
    ),
    "phantom": "**phantom** is drawn and written by a program. It shows nobody and is free to use.",
}
_ASK_THE_SOURCE = "**{source}**: ask its owner what may be done with derived data before passing any of it on."


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of `manifest`, the release of the image set in `folder`, unless it is there.

    Raises:
        ShardError: a shard cannot be read.
    """
    if not _describes(folder, manifest):
        write_atomically(folder / CARD_FILE, _render(manifest, _counted(folder, manifest)).encode())


def write_latents_card(folder: Path, manifest: Manifest, images: Path) -> None:
    """Write the card of `manifest`, a release of latents in `folder`, counted from the image set at `images`.

    Raises:
        ShardError: a shard of images cannot be read.
    """
    if not _describes(folder, manifest):
        filled = _counted(images, read_manifest(images))
        write_atomically(folder / CARD_FILE, _render_latents(manifest, images.name, filled).encode())


def _describes(folder: Path, manifest: Manifest) -> bool:
    path = folder / CARD_FILE
    return path.exists() and f"`{manifest.release}`" in path.read_text(encoding="utf-8")


def _counted(folder: Path, manifest: Manifest) -> dict[Split, "_Counts"]:
    """Of the splits that have samples."""
    counted = {split: _Counts(folder, split, manifest) for split in Split}
    return {split: counts for split, counts in counted.items() if counts.samples}


class _Counts:
    """What the live samples of one split say."""

    def __init__(self, folder: Path, split: Split, manifest: Manifest) -> None:
        self.sources: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self.labels: Counter[tuple[str, int]] = Counter()
        self.labelled = self.samples = 0
        studies: set[tuple[str, str]] = set()
        subjects: set[tuple[str, str]] = set()
        with ShardReader(folder, split, release=manifest.release) as reader:
            for index in range(reader.samples):
                record: dict[str, Any] = json.loads(reader.read_member(index, "json"))
                self.samples += 1
                self.sources[record["source"]] += 1
                self.views[record["view_position"] or "unknown"] += 1
                studies.add((record["source"], record["study_id"]))
                subjects.add((record["source"], record["subject_id"]))
                if record["labels"] is not None:
                    self.labelled += 1
                    self.labels.update((name, value) for name, value in record["labels"].items() if value is not None)
        self.studies, self.subjects = len(studies), len(subjects)


def _render(manifest: Manifest, filled: dict[Split, _Counts]) -> str:
    parents = manifest.parents
    superseded = sum(len(shard.superseded) for shard in manifest.shards)
    lines = [
        *_head(manifest, filled),
        f"For {manifest.task.value}: {_USE[manifest.task]}. WebDataset tars; one sample is a grayscale JPEG of "
        f"{manifest.size} x {manifest.size} pixels (aspect ratio kept, black padding) and a JSON record.",
        "",
        *_release(manifest, filled),
        f"Of {manifest.considered:,} candidates {manifest.live:,} are samples. Left out: "
        + (", ".join(f"{reason} {count:,}" for reason, count in sorted(manifest.excluded.items())) or "none")
        + ". No subject stands in two splits.",
        "",
        "Views: " + ", ".join(f"{name} {count:,}" for name, count in sorted(_views(filled).items())) + ".",
        "",
        "## Text",
        "",
        f"Cleaned by the model {_code(parents.model)} with prompt {_code(parents.prompt_version)} "
        f"({', '.join(_code(digest[:16]) for digest in parents.prompt_digests) or 'no digest'}); reviewers' decisions "
        "take precedence. Guards refuse text that was added or changed.",
        "",
        "## Labels",
        "",
        "CheXpert-14 as the source gives them, over the images of labelled studies; the rest is not mentioned.",
        "",
        *_balance(filled),
        "",
        "## Made from",
        "",
        "Store tables at versions "
        + (", ".join(f"{name} {version}" for name, version in sorted(parents.tables.items())) or "unknown")
        + f"; code {_code(parents.code_revision)}; configuration {_code(parents.configuration_digest[:16])}. "
        "`manifest.json` names every shard with its SHA-256; `unix shards verify` checks them.",
        "",
        *_terms(filled),
        "## Known limits",
        "",
        f"- Tars are never rewritten: readers that do not know `manifest.json` also see its {superseded:,} superseded "
        "samples (changed, withdrawn or rejected since).",
        "- 8-bit JPEG at reduced size: small nodules, thin lines and pneumothoraces can vanish. Not for diagnosis.",
        "- Reports describe a study; each of its images carries the whole text, also of what only another view shows.",
        "- Labels come from a labeler of text, not from the images, and have its errors.",
        "- The text is as good as the model that cleaned it; see the evaluation of the cleaning before training on it.",
        "",
    ]
    return "\n".join(lines)


def _render_latents(manifest: Manifest, images: str, filled: dict[Split, _Counts]) -> str:
    artifacts = manifest.parents.artifacts
    lines = [
        *_head(manifest, filled),
        f"For {manifest.task.value}: what an image autoencoder makes of `{images}`, under the same names. "
        "WebDataset tars; one sample is a float16 array [2 x channels, rows, columns], means before log-variances.",
        "",
        *_release(manifest, filled),
        "## Made from",
        "",
        f"Release {_code(artifacts.get('images'))} of `{images}`, whose card tells views, labels and text; "
        f"the autoencoder with SHA-256 {_code(artifacts.get('vae'))}; code {_code(manifest.parents.code_revision)}. "
        "`manifest.json` names every shard with its SHA-256; `unix shards verify` checks them.",
        "",
        *_terms(filled),
        "## Known limits",
        "",
        "- They mean something to that autoencoder alone, which turns them back into recognisable images: the terms of "
        "the images hold for them.",
        "- Tars are never rewritten: readers that do not know `manifest.json` also see superseded samples.",
        "",
    ]
    return "\n".join(lines)


def _head(manifest: Manifest, filled: dict[Split, _Counts]) -> list[str]:
    return [
        "---",
        "license: other",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(line for split in filled for line in (f"  - split: {_hub_name(split)}", f'    path: "{split}-*.tar"')),
        "---",
        f"# {manifest.set}",
        "",
    ]


def _release(manifest: Manifest, filled: dict[Split, _Counts]) -> list[str]:
    names = _sources(filled)
    return [
        f"Release `{manifest.release}`, after {_code(manifest.parent_release)}: {len(manifest.shards)} shards, "
        f"{sum(shard.bytes for shard in manifest.shards):,} bytes; this release added {len(manifest.added_shards)} "
        f"shards and superseded {manifest.superseded_samples} samples.",
        "",
        "## Counts",
        "",
        *_table(
            ("split", "images", "studies", "subjects", *names),
            [
                (split.value, c.samples, c.studies, c.subjects, *(c.sources[name] for name in names))
                for split, c in filled.items()
            ],
        ),
        "",
    ]


def _terms(filled: dict[Split, _Counts]) -> list[str]:
    terms = [_LICENCES.get(name, _ASK_THE_SOURCE.format(source=name)) for name in _sources(filled)]
    return ["## What may be done with it", "", *(line for each in terms for line in (each, ""))]


def _sources(filled: dict[Split, _Counts]) -> list[str]:
    return sorted({name for counts in filled.values() for name in counts.sources})


def _balance(splits: dict[Split, _Counts]) -> list[str]:
    labels = sum((counts.labels for counts in splits.values()), Counter[tuple[str, int]]())
    labelled = sum(counts.labelled for counts in splits.values())
    rows = [
        (name, labels[name, 1], labels[name, 0], labels[name, -1], f"{labels[name, 1] / labelled:.1%}")
        for name in CHEXPERT_14
        if labelled
    ]
    return _table(("label", "positive", "negative", "uncertain", "share positive"), rows)


def _views(splits: dict[Split, _Counts]) -> Counter[str]:
    return sum((counts.views for counts in splits.values()), Counter[str]())


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(f'{c:,}' if isinstance(c, int) else str(c) for c in row)} |" for row in rows]
    return lines


def _code(value: str | None) -> str:
    return "none" if value is None else f"`{value}`"


def _hub_name(split: Split) -> str:
    """The name that dataset libraries use."""
    return "validation" if split == Split.VALIDATE else split.value
