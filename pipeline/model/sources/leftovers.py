"""Compare the weights in files with those that were loaded: what is left over on either side?

For networks, LoRAs, IP-adapters, converted checkpoints and updates, after all conversions of libraries.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.headers import Tensor

log = logging.getLogger(__name__)

# Scales that tools store next to fp8 weights (ComfyUI, Kijai, DeepSeek, ModelOpt, vLLM, quanto). Without
# them, each weight is off by a factor.
FP8_SCALES = re.compile(
    r"(^|\.)((weight|input|output|activation)_(global_)?scale(_inv|_2|_b|_ub)?|scale_(weight|input|output)"
    r"|scaled_fp8|comfy_quant|weight\._scale|(weight|input)_quantizer\._(scale|amax))$"
)
_OF_ADAPTERS = re.compile(r"(^|[._])(lora|lokr|loha|hada)(_|\.)")
_MAX_SHOWN, _MAX_NAME = 3, 120  # names in a message, and characters of each


def check_leftovers(
    where: str,
    *,
    unused: Collection[str] = (),
    lacking: Collection[str] = (),
    fix: str,
    allowed: bool = False,
) -> None:
    """Raise ModelError for weights without a place, and for places without weights.

    where: the file or folder. unused: its weights that nothing uses. lacking: weights that it should have.
    allowed: only log unused weights.
    """
    check_scales(where, unused)
    if lacking:
        raise ModelError(f"{where} has no weight {listed(lacking)}", fix)
    if unused and not allowed:
        raise ModelError(f"{where} has weights that nothing uses: {listed(unused)}", fix)
    if unused:
        log.warning("%s has weights that nothing uses: %s", where, listed(unused))


def check_scales(where: str, unused: Iterable[str]) -> None:
    """Raise ModelError for weights that are packed in fp8: without their scales they are wrong."""
    if scales := [name for name in unused if FP8_SCALES.search(name)]:
        raise ModelError(
            f"{where} has weights that are packed in fp8, with separate scales, which cannot be read: "
            f"{listed(scales)}",
            "use the file with the plain weights (bf16 or fp16); `model.layerwise_casting: fp8_e4m3` keeps "
            "a model's weights in fp8",
        )


def check_whole_numbers(where: str, tensors: Iterable[Tensor]) -> None:
    """Raise ModelError for matrices of whole numbers, which libraries would use as the weights."""
    packed = [t for t in tensors if t.dtype[:1] in "IU" and len(t.shape) > 1 and t.name.endswith(".weight")]
    if packed:
        kind = f"packed as whole numbers ({packed[0].dtype}), which cannot be unpacked"
        names = listed(tensor.name for tensor in packed)
        fix = "use the file with the plain weights (bf16 or fp16), and quantise it with `model.quantization`"
        raise ModelError(f"{where} has weights that are {kind}: {names}", fix)


def check_no_adapter(where: str, names: Iterable[str]) -> None:
    """Raise ModelError if a LoRA is in the place of a model."""
    if own := [name for name in names if _OF_ADAPTERS.search(name)]:
        fix = "declare it by name (`loras: {style: FILE}`), and set `model` to the model that it changes"
        raise ModelError(f"{where} is a LoRA, not a model: it has {listed(own)}", fix)


def listed(names: Iterable[str]) -> str:
    """Return the first few names, sorted, and how many more there are."""
    ordered = sorted(names)
    texts = [name if name.isprintable() and name else repr(name) for name in ordered[:_MAX_SHOWN]]
    shown = ", ".join(text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}..." for text in texts)
    return shown + (f" and {len(ordered) - _MAX_SHOWN:,} more" if len(ordered) > _MAX_SHOWN else "")
