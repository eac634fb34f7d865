"""Encode a row_id as bits of a watermark, and read the row_id's first digits from what is left of them.

The bits are the row_id's first bits and a checksum, so that noise is refused. Watermarks with many bits use a
convolutional code (constraint length 9, rate 1/3). Viterbi's algorithm decodes it from numbers, which are
positive for 1 and larger if the reading is more certain.

Spread-spectrum watermarks put the bits into cells of a tile, each with a pseudo-random sign. A fifth of the
cells, always the same ones, mark where a tile begins. Each of the others carries one bit of the payload.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bits: TypeAlias = npt.NDArray[np.uint8]  # 0 and 1
Soft: TypeAlias = npt.NDArray[np.float64]

_GENERATORS = (0o557, 0o663, 0o711)  # Proakis, Digital Communications, table of rate 1/3 codes
_MEMORY = 8  # bits before the current one; the message ends with as many zeros
_STATES = 1 << _MEMORY
# Bits of the row_id and of the checksum. With ten million rows, two agree in 48 bits with a probability of 1
# in 6; one in 17 million readings of noise passes the checksum.
_CODED = (48, 24)
_NUM_CODED = len(_GENERATORS) * (sum(_CODED) + _MEMORY)


def payload_of(row_id: str, num_bits: int) -> Bits:
    num_id, num_check = _shares(num_bits)
    digits = _bits_of(bytes.fromhex(row_id))[:num_id]
    message = np.concatenate([digits, _checksum(digits, num_check)])
    if num_bits >= _NUM_CODED:  # three bits per bit of the message and of the zeros after it
        sent = [*message.tolist(), *[0] * _MEMORY]
        registers = accumulate(sent, lambda past, bit: (past << 1 | bit) & (2 * _STATES - 1), initial=0)
        coded = [_parity(one & taps) for one in list(registers)[1:] for taps in _GENERATORS]
        message = np.array(coded, np.uint8)
    return np.resize(message, num_bits)


def row_prefix(soft: Soft) -> str | None:
    """Return the first hex digits of the row_id in these bits; None if there is none.

    A watermark of less than 40 bits has no checksum, so any bits give some row.
    """
    num_id, num_check = _shares(len(soft))
    message = _decoded(soft) if len(soft) >= _NUM_CODED else (soft > 0).astype(np.uint8)
    digits, check = message[:num_id], message[num_id : num_id + num_check]
    if not np.array_equal(check, _checksum(digits, num_check)):
        return None
    return np.packbits(digits).tobytes().hex()[: num_id // 4]


def is_checked(num_bits: int) -> bool:
    return _shares(num_bits)[1] > 0


def _shares(num_bits: int) -> tuple[int, int]:
    """Return the number of bits of the row_id, in whole hex digits, and of the checksum."""
    if num_bits >= _NUM_CODED:
        return _CODED
    num_id = num_bits // 4 * 4 if num_bits < 40 else (num_bits - 16) // 4 * 4
    return min(num_id, 128), 0 if num_bits < 40 else 16


def _bits_of(content: bytes) -> Bits:
    return np.unpackbits(np.frombuffer(content, np.uint8))


def _checksum(digits: Bits, count: int) -> Bits:
    return _bits_of(hashlib.sha256(b"framefleet" + np.packbits(digits).tobytes()).digest())[:count]


def _decoded(soft: Soft) -> Bits:
    """Return the most likely message for these bits."""
    heard = np.zeros(_NUM_CODED)
    np.add.at(heard, np.arange(len(soft)) % _NUM_CODED, soft)
    before, signs = _trellis()
    scores = np.full(_STATES, -np.inf)
    scores[0] = 0
    came: list[npt.NDArray[np.int64]] = []
    for three in heard.reshape(-1, len(_GENERATORS)):
        ways = scores[before] + signs @ three
        best = ways.argmax(axis=0)
        scores = np.take_along_axis(ways, best[None], axis=0)[0]
        came.append(before[best, np.arange(_STATES)])
    state, message = 0, []
    for back in reversed(came):
        message.append(state & 1)
        state = int(back[state])
    return np.array(message[::-1], np.uint8)[: sum(_CODED)]


@cache
def _trellis() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Return for each state its two predecessors, and the three signs sent on each transition."""
    states = np.arange(_STATES)
    before = np.stack([states >> 1, states >> 1 | _STATES >> 1])
    registers = before << 1 | states & 1
    sent = [[[_parity(one & taps) for taps in _GENERATORS] for one in row] for row in registers.tolist()]
    return before, 2 * np.array(sent, np.int8) - 1


def _parity(value: int) -> int:
    return value.bit_count() & 1


NUM_BITS = 256
Plane: TypeAlias = npt.NDArray[np.float32]
Samples: TypeAlias = npt.NDArray[np.float32]  # (channels, samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Bits that may be a payload. scale: size of the file's pictures relative to the clip; None: unknown."""

    soft: Soft
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Chips:
    """signs: +1 or -1 for each cell. bit_of: the bit in each cell, -1 for none. shape: of a tile."""

    signs: npt.NDArray[np.int64]
    bit_of: npt.NDArray[np.int64]
    shape: tuple[int, int]

    def tile(self, bits: Bits | None) -> Plane:
        """Return the signs of a tile with a payload. Without one, only the fixed cells; the others are 0."""
        sent = 0 if bits is None else 2 * bits.astype(np.int64)[self.bit_of] - 1
        signs: npt.NDArray[np.int64] = np.where(self.bit_of < 0, self.signs, self.signs * sent)
        return signs.reshape(self.shape).astype(np.float32)

    def soft(self, heard: npt.NDArray[np.floating]) -> Soft:
        """Return the bits in a tile, from the values read in its cells."""
        sums = np.zeros(NUM_BITS + 1)
        np.add.at(sums, self.bit_of, heard.ravel() * self.signs)  # cells without a bit go to the last sum
        return sums[:-1]


@cache
def chips(name: str, shape: tuple[int, int]) -> Chips:
    """Return the chips of a watermark, which are the same on every machine and never change."""
    count = shape[0] * shape[1]
    lots = np.frombuffer(hashlib.shake_256(f"framefleet {name} places".encode()).digest(8 * count), "<u8")
    signs = np.frombuffer(hashlib.shake_256(f"framefleet {name} signs".encode()).digest(count), np.uint8)
    carrying = np.argsort(lots, kind="stable")[count // 5 :]
    bit_of = np.full(count, -1)
    bit_of[carrying] = np.arange(len(carrying)) % NUM_BITS
    return Chips(2 * (signs & 1).astype(np.int64) - 1, bit_of, shape)
