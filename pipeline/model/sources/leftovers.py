"""The one comparison of weights: what files hold, what was placed, and what is left over on either side.

For networks, LoRAs, IP-adapters, converted checkpoints and updates, after all that libraries convert.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.headers import Tensor

log = logging.getLogger(__name__)

# What tools that pack weights in fp8 store next to them (ComfyUI, Kijai, DeepSeek, ModelOpt, vLLM, quanto).
# Without these, each weight is off by a factor.
FP8_SCALES = re.compile(
    r"(^|\.)((weight|input|output|activation)_(global_)?scale(_inv|_2|_b|_ub)?|scale_(weight|input|output)"
    r"|scaled_fp8|comfy_quant|weight\._scale|(weight|input)_quantizer\._(scale|amax))$"
)
_OF_ADAPTERS = re.compile(r"(^|[._])(lora|lokr|loha|hada)(_|\.)")
_MAX_SHOWN, _MAX_NAME = 3, 120  # names in a message, and letters of each


def check_leftovers(
    where: str,
    *,
    unused: Collection[str] = (),
    lacking: Collection[str] = (),
    fix: str,
    allowed: bool = False,
) -> None:
    """Raise ModelError for weights without a place, and for places without weights.

    where: the file or folder. unused: what it holds and nothing takes. lacking: what it should hold too.
    allowed: only log what is unused.
    """
    check_scales(where, unused)
    if lacking:
        raise ModelError(f"{where} has no weight {listed(lacking)}", fix)
    if unused and not allowed:
        raise ModelError(f"{where} holds weights that nothing uses: {listed(unused)}", fix)
    if unused:
        log.warning("%s holds weights that nothing uses: %s", where, listed(unused))


def check_scales(where: str, unused: Iterable[str]) -> None:
    """Raise ModelError for weights that are packed: others would be computed with."""
    if scales := [name for name in unused if FP8_SCALES.search(name)]:
        raise ModelError(
            f"{where} holds weights that are packed in fp8, with scales next to them, which are not read: "
            f"{listed(scales)}",
            "use the file with the plain weights (bf16 or fp16); `model.layerwise_casting: fp8_e4m3` keeps "
            "those of a model in fp8",
        )


def check_whole_numbers(where: str, tensors: Iterable[Tensor]) -> None:
    """Raise ModelError for matrices of whole numbers, which libraries take for the weights themselves."""
    packed = [t for t in tensors if t.dtype[:1] in "IU" and len(t.shape) > 1 and t.name.endswith(".weight")]
    if packed:
        kind = f"packed as whole numbers ({packed[0].dtype}), which are not unpacked"
        names = listed(tensor.name for tensor in packed)
        fix = "use the file with the plain weights (bf16 or fp16), and quantise them by `model.quantization`"
        raise ModelError(f"{where} holds weights that are {kind}: {names}", fix)


def check_no_adapter(where: str, names: Iterable[str]) -> None:
    """Raise ModelError for the weights of a LoRA, where those of a model are expected."""
    if own := [name for name in names if _OF_ADAPTERS.search(name)]:
        fix = "declare it by name (`loras: {style: FILE}`), and give the model that it changes as `model`"
        raise ModelError(f"{where} is a LoRA, not a model: it holds {listed(own)}", fix)


def listed(names: Iterable[str]) -> str:
    """Return the first few names, in order, and how many more there are."""
    ordered = sorted(names)
    texts = [name if name.isprintable() and name else repr(name) for name in ordered[:_MAX_SHOWN]]
    shown = ", ".join(text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}..." for text in texts)
    return shown + (f" and {len(ordered) - _MAX_SHOWN:,} more" if len(ordered) > _MAX_SHOWN else "")
