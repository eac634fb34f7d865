"""Sizes as people write them: "24GB" in, bytes out, and back."""

from __future__ import annotations

import re

_FACTORS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), start=1)},
}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)")


def read_bytes(size: str | int) -> int:
    """Return what "24GB", "1.5 TiB" or 1000 stands for. Raises ValueError for what is no size."""
    found = _SIZE.fullmatch(str(size).strip().lower())
    number = float(found[1]) * _FACTORS.get(found[2], 0) if found else 0
    if number < 1:
        raise ValueError("a size, such as 24GB or 500MiB")
    return int(number)


def bytes_text(num_bytes: float) -> str:
    """Return 1,234,567 as "1.2 MB"."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
