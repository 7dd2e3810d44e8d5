"""The faults this package foresees. The command line turns each into one line and an exit status.

UnixError                   exit 1
├── ConfigError             exit 2   a setting, an option or a preset is wrong
├── PolicyError             exit 2   a data-use rule forbids what was asked
├── StoreError                       a table is missing or does not have the expected columns
├── SourceError                      a source folder is not what it claims to be
│   └── ImageError                   an image file cannot be used; carries the name of the reason
├── CleaningError                    a report could not be cleaned
│   ├── EndpointError                the endpoint could not be reached or failed
│   │   └── RefusedError    exit 2   the endpoint refused for good: key, balance, address or model
│   └── AnswerError                  the endpoint answered something unusable
├── SplitError                       a subject would stand in two splits
├── ShardError                       a shard, its index or its manifest is missing or damaged
│   └── DamagedSampleError           one sample of a readable shard is damaged
├── WeightsError                     a tensor is missing, misshapen or unexpected
├── ResumeError                      a run cannot continue from what is on disk
├── EvaluationError                  predictions are missing, unreadable or not of the same samples
└── Interrupted             exit 75  stopped on request after saving its state

A message says what failed, on which key, with which value, and what to do. It never holds report text.
"""


class UnixError(Exception):
    """A foreseeable fault; `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(UnixError):
    """A setting, an option or a preset is wrong."""

    exit_code = 2


class PolicyError(UnixError):
    """A data-use rule forbids what was asked."""

    exit_code = 2


class StoreError(UnixError):
    """A table is missing or does not have the expected columns."""


class SourceError(UnixError):
    """A source folder is not what it claims to be."""


class ImageError(SourceError):
    """An image file cannot be used; jobs count it under `reason`, such as `truncated_image`, and go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CleaningError(UnixError):
    """A report could not be cleaned."""


class EndpointError(CleaningError):
    """The endpoint could not be reached or failed."""


class RefusedError(EndpointError):
    """The endpoint refused for good: its key, balance, address or model must change before another try."""

    exit_code = 2


class AnswerError(CleaningError):
    """The endpoint answered something unusable."""


class SplitError(UnixError):
    """A subject would stand in two splits."""


class ShardError(UnixError):
    """A shard, its index or its manifest is missing or damaged."""


class DamagedSampleError(ShardError):
    """One sample of a readable shard is damaged; readers may be told to skip such samples."""


class WeightsError(UnixError):
    """A tensor is missing, misshapen or unexpected."""


class ResumeError(UnixError):
    """A run cannot continue from what is on disk."""


class EvaluationError(UnixError):
    """Predictions are missing, unreadable or not of the same samples."""


class Interrupted(UnixError):
    """Stopped on request after saving its state."""

    exit_code = 75
