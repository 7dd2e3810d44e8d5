"""What requests to an endpoint used (pure)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What requests used; `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    latency_ms: float = 0.0
    attempts: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cost_usd + other.cost_usd,
            self.latency_ms + other.latency_ms,
            self.attempts + other.attempts,
        )
