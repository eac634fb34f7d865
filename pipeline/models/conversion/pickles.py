"""In: a file of torch.save. Out: what it holds, tensors mapped; no code of it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.foreign_files import HEAD_BYTES, foreign
from framefleet.pipeline.model.sources.headers import read_first
from framefleet.pipeline.models.conversion.stand_ins import STAND_INS

_SHOWN, _LONGEST = 5, 80  # names in one message, and letters of each
_SAVE = "where you trust it, save its state_dict alone with torch.save, or take the safetensors of it"
_NO_ZIP = (
    "is cut short, or no file that torch 1.6 or later has saved",
    f"fetch it again; for an older one, {_SAVE}",
)


def read_pickle(path: Path) -> Any:
    """Return the content of a file. Raises ModelError for one that names more than tensors, or is damaged."""
    if not zipfile.is_zipfile(path):
        what, fix = foreign(read_first(path, HEAD_BYTES)) or _NO_ZIP
        raise ModelError(f"{path} {what}", fix)
    with torch.serialization.safe_globals(STAND_INS):
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
            raise _refusal(path) from error


def _refusal(path: Path) -> ModelError:
    """Return why torch does not open it. What torch says itself is how to open it nevertheless."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        named = sorted(name[:_LONGEST] for name in unsafe)
    except Exception:  # the same damage
        named = []
    if not named:
        return ModelError(
            f"{path} is damaged, or a pickle of a kind that is not read", f"fetch it again, or {_SAVE}"
        )
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ModelError(
        f"{path} holds more than tensors, and could run code when it is opened: "
        f"it names {', '.join(named[:_SHOWN])}{more}",
        _SAVE,
    )
