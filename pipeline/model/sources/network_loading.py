"""From the files of one component to its network, with every weight in its place; or why that is not so.

What a library says of a load counts after all of its conversions, ties and lists of names to pass over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from framefleet.pipeline.model.sources.components import Component, class_of
from framefleet.pipeline.model.sources.leftovers import check_leftovers
from framefleet.pipeline.model.specs.list_arguments import CONTROLNETS

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig

# What a checkpoint of a whole model holds besides the part that a pipeline uses. transformers passes over
# some of it (T5's decoder), and warns of the rest.
_OTHER_HALVES = {
    "": re.compile(r"(lm_head|text_projection|visual_projection)\.|logit_scale$"),
    "UMT5EncoderModel": re.compile(r"decoder\."),
}
_COUNTERS = "num_batches_tracked"  # of training, in norms that have it
_FIX = (
    "fetch the model again; if weights without a place are meant to be left out, set "
    "`model.allow_unmatched_weights: true`"
)


def load_networks(
    place: Path,
    components: Iterable[Component],
    *,
    dtype: torch.dtype | Mapping[str, torch.dtype],
    use_safetensors: bool | None,
    quantization: PipelineQuantizationConfig | None,
    where: Path,
    allow_unmatched: bool,
) -> dict[str, nn.Module]:
    """Return the networks by name. where: what to call `place` in messages.

    Safetensors are mapped, not read: no second copy in memory. Pickles are read with weights_only=True, by
    diffusers and by transformers. Raises ModelError for weights that are left over on either side.
    """

    def load(library: str, class_name: str, name: str, folder: str) -> nn.Module:
        config = quantization.quant_mapping.get(name) if quantization else None
        network, report = class_of(library, class_name).from_pretrained(
            place / folder,
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=use_safetensors,
            dtype=dtype.get(name, dtype["default"]) if isinstance(dtype, Mapping) else dtype,
            **({"quantization_config": config} if config else {}),
        )
        module: nn.Module = network
        _check(module, report, where / folder, is_packed=config is not None, allow=allow_unmatched)
        return module

    return {
        one.name: class_of(one.library, CONTROLNETS)(
            [load(one.library, "ControlNetModel", one.name, folder) for folder in one.folders]
        )
        if one.class_name == CONTROLNETS
        else load(one.library, one.class_name, one.name, one.name)
        for one in components
    }


def _check(
    network: nn.Module, report: Mapping[str, Any], where: Path, *, is_packed: bool, allow: bool
) -> None:
    buffers = {name for name, _ in network.named_buffers()}
    lacking = {name for name in report["missing_keys"] if not name.endswith(_COUNTERS)}
    if allow:
        lacking -= buffers  # which the class gives a value of its own
    if is_packed:  # it has other names for them
        lacking = set()
    else:
        lacking |= {*_unfilled(network)}
    halves = [_OTHER_HALVES[""], _OTHER_HALVES.get(type(network).__name__)]
    unused = {
        name for name in report["unexpected_keys"] if not any(half and half.match(name) for half in halves)
    }
    check_leftovers(str(where), unused=unused, lacking=lacking, fix=_FIX, allowed=allow)


def _unfilled(network: nn.Module) -> Iterator[str]:
    """Yield weights that no file gave: diffusers leaves them empty; transformers makes them up, another each
    time, and marks those that it read.
    """
    from transformers import PreTrainedModel  # imported by the pipeline that was loaded

    is_marked = isinstance(network, PreTrainedModel)
    for name, weight in network.named_parameters():
        if weight.is_meta or (is_marked and not getattr(weight, "_is_hf_initialized", False)):
            yield name
