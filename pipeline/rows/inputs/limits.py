"""How much and how long is read of a file that a row names."""

from __future__ import annotations

from dataclasses import dataclass

from framefleet.pipeline.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """silence_s: without a byte. total_s: of all attempts together, as a trickle could go on for ever."""

    max_bytes: int = 256 << 20
    connect_s: float = 10.0
    silence_s: float = 20.0
    total_s: float = 300.0


def too_many_bytes(max_bytes: int) -> InputError:
    return InputError(f"it is larger than {max_bytes:,} bytes", "make it smaller: cut it or compress it")
