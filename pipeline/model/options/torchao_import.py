"""Hold back the warnings of torchao's import until a job uses it to quantise.

diffusers imports torchao for any model. torchao then warns about each kernel that was built for another GPU
or Python (https://github.com/pytorch/ao/pull/3545), and torch about enums that torchao registers.
"""

from __future__ import annotations

import logging
from enum import EnumType

_log = logging.getLogger(__name__)
_LOGGERS = ("torchao", "torch.utils._pytree")
_warnings: list[str] = []


def keep_import_warnings() -> None:
    """From now on, hold back warnings of torchao's import; others are logged as usual."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_logged)  # adding it again has no effect


def say_import_warnings() -> None:
    """Log the warnings that were held back, once."""
    while _warnings:
        _log.warning("torchao: %s", _warnings.pop(0))


def _is_logged(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    enums = [argument for argument in record.args or () if isinstance(argument, EnumType)]
    is_of_import = any(enum.__module__.startswith("torchao.") for enum in enums)
    if record.name == "torchao":
        is_of_import = text.startswith(("Failed to load", "Skipping import of cpp extensions"))
    if is_of_import:
        _warnings.append(text)
    return not is_of_import
