"""Text that others wrote, made safe: shown to people, or in a command for them to paste into a shell."""

from __future__ import annotations

import json
import re
import shlex

# C0 and C1 controls but newline and tab, what turns the direction of text, what breaks lines, a mark that is
# not seen, and halves of characters, which no encoding has.
CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
CONTROLS = re.compile(CONTROL)


def escaped(text: str) -> str:
    r"""Return text whose control characters are spelt, as `\x1b`."""
    return CONTROLS.sub(lambda found: spelt(found[0]), text)


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
