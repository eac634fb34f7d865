"""Text for people and shells: what others wrote made safe, and sizes as people write them."""

from __future__ import annotations

import json
import re
import shlex

SHAPE_ORDER = "frames x height x width"

# C0 and C1 controls but newline and tab, what turns the direction of text, what breaks lines, a mark that is
# not seen, and halves of characters, which no encoding has.
CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
CONTROLS = re.compile(CONTROL)
_FACTORS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), start=1)},
}
_MAX_TEXT = 20_000  # characters of an error's message or traceback: ten times a long one
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)")


def shape_text(num_frames: int | None, height: int | None, width: int | None) -> str:
    """Return 9 frames of 64 by 96 pixels as "9 x 64 x 96"; of an image "64 x 96"; "" of nothing."""
    if height is not None and width is not None:
        return " x ".join(str(number) for number in (num_frames, height, width) if number is not None)
    counts = {"frames": num_frames, "pixels high": height, "pixels wide": width}
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number is not None)


def escaped(text: str) -> str:
    r"""Return text whose control characters are spelt, as `\x1b`."""
    return CONTROLS.sub(lambda found: spelt(found[0]), text)


def shortened(text: str) -> str:
    """Return a text as it can be shown, sent and written: halves of characters spelled out, not too long."""
    text, half = text.encode("utf-8", "backslashreplace").decode(), _MAX_TEXT // 2
    return text if len(text) <= _MAX_TEXT else f"{text[:half]} ... {text[-half:]}"


def spelt(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def quoted(*words: object) -> str:
    """Return words of a command, each quoted where a shell would read more into it."""
    return shlex.join(map(str, words))


def command(*arguments: object) -> str:
    """Return the command of framefleet with these arguments, quoted."""
    return quoted("framefleet", *arguments)


def setting(key: str, value: object) -> str:
    """Return the option that sets a key of the job to a value, quoted."""
    return quoted("--set", f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}")


def read_bytes(size: str | int) -> int:
    """Return what "24GB", "1.5 TiB" or 1000 stands for. Raises ValueError for what is no size."""
    match = _SIZE.fullmatch(str(size).strip().lower())
    number = float(match[1]) * _FACTORS.get(match[2], 0) if match else 0
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
