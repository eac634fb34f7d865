"""Options whose values were cut at their first space, because nobody put them in quotes."""

import os
import re
from collections.abc import Collection, Sequence
from itertools import takewhile

from framefleet.pipeline.errors import quoted
from framefleet.pipeline.guards.redaction import is_secret_name

_SETTING = re.compile(r"([\w.]+)\s*[=:]?\s*(.*)", re.DOTALL)
_OPERATOR = re.compile(r"[=<>!]|(?:and|between|ilike|in|is|like|not|or)$", re.IGNORECASE)


def cut_option(words: Sequence[str], options: Collection[str]) -> str | None:
    """Return what to write for `--set a = 5`, `--prompt a red ball` or `--where a = 5`; None if all is well.

    options: the command's options. The word after a complete value may be a job file or an output.
    """
    for place, option in enumerate(words):
        value = [*takewhile(lambda word: not word.startswith("-"), words[place + 1 :])]
        if option not in options or len(value) < 2 or os.path.exists(value[1]):
            continue
        is_cut = option in ("--set", "--sweep") and ("=" not in value[0] or value[0].endswith("="))
        if is_cut and (setting := _SETTING.fullmatch(" ".join(value))):
            return quoted(option, f"{setting[1]}={'...' if is_secret_name(setting[1]) else setting[2]}")
        is_place = len(value) == 2 and re.search(r"[./]", value[1])
        if (option == "--where" and _OPERATOR.match(value[1])) or (option == "--prompt" and not is_place):
            return quoted(option, " ".join(value))
    return None
