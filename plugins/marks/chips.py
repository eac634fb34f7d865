"""Where a spread-spectrum watermark puts its bits: cells of a tile, each with a sign that looks like noise.

A fifth of the cells, always the same, says where a tile begins. Each of the others carries one bit of the
payload.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from framefleet.plugins.marks.payload import Bits, Soft

NUM_BITS = 256
Plane: TypeAlias = npt.NDArray[np.float32]
Samples: TypeAlias = npt.NDArray[np.float32]  # (channels, samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Bits that may be a payload. scale: size of the file's pictures to the clip's; None: not known."""

    soft: Soft
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Chips:
    """signs: of each cell, +1 or -1. bit_of: the bit that a cell carries, -1: none. shape: of a tile."""

    signs: npt.NDArray[np.int64]
    bit_of: npt.NDArray[np.int64]
    shape: tuple[int, int]

    def tile(self, bits: Bits | None) -> Plane:
        """Return the signs of a tile with a payload; without one those that are always the same, else 0."""
        sent = 0 if bits is None else 2 * bits.astype(np.int64)[self.bit_of] - 1
        signs: npt.NDArray[np.int64] = np.where(self.bit_of < 0, self.signs, self.signs * sent)
        return signs.reshape(self.shape).astype(np.float32)

    def soft(self, heard: npt.NDArray[np.floating]) -> Soft:
        """Return the bits that a tile carries, from what was read in each cell."""
        sums = np.zeros(NUM_BITS + 1)
        np.add.at(sums, self.bit_of, heard.ravel() * self.signs)  # what carries none comes last
        return sums[:-1]


@cache
def chips(name: str, shape: tuple[int, int]) -> Chips:
    """Return those of a watermark; the same on every machine and for ever."""
    count = shape[0] * shape[1]
    lots = np.frombuffer(hashlib.shake_256(f"framefleet {name} places".encode()).digest(8 * count), "<u8")
    signs = np.frombuffer(hashlib.shake_256(f"framefleet {name} signs".encode()).digest(count), np.uint8)
    carrying = np.argsort(lots, kind="stable")[count // 5 :]
    bit_of = np.full(count, -1)
    bit_of[carrying] = np.arange(len(carrying)) % NUM_BITS
    return Chips(2 * (signs & 1).astype(np.int64) - 1, bit_of, shape)
