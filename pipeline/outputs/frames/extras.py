"""In: what a pipeline returns besides frames and sound. Out: arrays for a file, small values for a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.guards.json_text import canonical_json, parse_json

WRITTEN_PROMPT = "written_prompt"  # by an enhancer or an upsampler: what the text encoders then read
KEPT = "kept"  # what is kept of the steps, as the job asked for it
_MAX_JSON_BYTES = 1 << 18  # of small values: records travel to the driver, and are kept side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSteps:
    """What is kept of a row's steps."""

    # Numbers of steps: 0 is the noise that the first one gets, 1 what it returns, -1 what the last returns.
    latents: tuple[int, ...] | Literal["all"] = ()
    log_probs: bool = False  # of each step

    def __bool__(self) -> bool:
        return bool(self.latents or self.log_probs)


_KEPT = TypeAdapter(KeptSteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Other outputs of one row, by name."""

    arrays: Mapping[str, Any] = field(default_factory=dict)  # torch tensors on the CPU
    values: Mapping[str, Any] = field(default_factory=dict)  # JSON values

    def json(self) -> str | None:
        """Return the values as canonical JSON; None where there are none."""
        return canonical_json(dict(self.values)) if self.values else None

    def file(self) -> bytes | None:
        """Return the arrays as a safetensors file, equal for equal arrays; None where there are none."""
        if not self.arrays:
            return None
        from safetensors.torch import save

        return save(dict(self.arrays))


def kept_in(extra_outputs: str | None) -> KeptSteps:
    """Return what a record says is kept of its row's steps; anything else says nothing."""
    try:
        values = parse_json(extra_outputs or "{}")
        is_there = isinstance(values, dict) and KEPT in values
        return _KEPT.validate_python(values[KEPT]) if is_there else KeptSteps()
    except ValueError:
        return KeptSteps()


def to_extras(fields: Mapping[str, Any]) -> Extras:
    """Sort fields of an output by what they are; those that are None are left out.

    Tensors, arrays and images are arrays as they are; in lists and mappings they are field.0, field.key.
    Raises RenderError for what is neither that nor a JSON value.
    """
    arrays: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if _is_plain(value):
            values[name] = value
        else:
            arrays |= _named_arrays(name, value)
    extras = Extras(arrays=arrays, values=values)
    if len((extras.json() or "").encode("utf-8", "replace")) > _MAX_JSON_BYTES:
        raise RenderError(
            f"the other outputs of this row, {', '.join(values)}, have more than {_MAX_JSON_BYTES:,} bytes",
            "return numbers as an array or a tensor, which goes into a file",
        )
    return extras


def _is_plain(value: Any) -> bool:
    """Tell whether a value is JSON's, without NaN and infinity."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return value is None or isinstance(value, str | int)


def _named_arrays(name: str, value: Any) -> dict[str, Any]:
    import torch

    if isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        arrays = (_named_arrays(f"{name}.{key}", part) for key, part in parts)
        return {inner: array for some in arrays for inner, array in some.items()}

    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic | int | float) and np.asarray(value).dtype.kind in "biuf":
        value = torch.from_numpy(np.array(value))
    if isinstance(value, torch.Tensor) and not value.is_complex():
        # A copy: safetensors takes no two names of one memory, and the row's own is not kept alive.
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)}
    raise RenderError(
        f"the recipe returned {name} as {type(value).__name__}, which cannot be stored with the clip",
        "return arrays, text or numbers; or leave it out in a recipe of your own",
    )
