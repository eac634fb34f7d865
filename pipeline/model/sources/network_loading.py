"""From the files of a component to its network; every weight must be in its place.

This is checked with the library's own report, after its conversions, ties and lists of ignored names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from diffusers.utils import logging
from torch import nn

from framefleet.pipeline.errors import FramefleetError, ModelError, message_of
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.model.guardrail import COMPONENT as GUARDRAIL, Guardrail, is_guarded
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.leftovers import check_leftovers
from framefleet.pipeline.model.sources.packing import method_of
from framefleet.pipeline.model.sources.single_file import FIX as OTHER_BASE, SingleFile
from framefleet.pipeline.model.sources.verified_folder import sealed
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.spec import PipelineSpec

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig

# Weights in a checkpoint of a whole model that a pipeline does not use. transformers ignores some of these
# (T5's decoder), and warns about the rest. ComfyUI's files contain a tokenizer too.
_OTHER_HALVES = {
    "": re.compile(
        r"(lm_head|text_projection|visual_projection)\.|logit_scale$|(spiece|tekken)_model$|tokenizer_json$"
    ),
    "UMT5EncoderModel": re.compile(r"decoder\."),
}
_COUNTERS = "num_batches_tracked"  # some norms count training batches
_OTHER_SHAPE = re.compile(r"because (\S+) expected shape torch\.Size\((.*?)\), but got torch\.Size\((.*?)\)")
_MAX_REASON = 200  # characters of a library's own message
_FIX = (
    "fetch the model again; if the unused weights are not needed, set `model.allow_unmatched_weights: true`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedNetwork:
    """A component's network, or one of several, as its library loaded it."""

    network: nn.Module
    report: Mapping[str, Any]  # the library's: missing and unused weights
    where: str  # its folder or file, for messages
    is_packed: bool  # its weights were quantized, and have other names now
    fix: str = _FIX  # for weights that are left over


def load_networks(
    place: Path,
    components: Iterable[Component],
    *,
    dtype: torch.dtype | Mapping[str, torch.dtype],
    use_safetensors: bool | None,
    quantization: PipelineQuantizationConfig | None = None,
    parts: Mapping[str, SingleFile] | None = None,
    allow_unmatched: bool = False,
    where: Path,
) -> tuple[dict[str, nn.Module], list[LoadedNetwork]]:
    """Return the networks by name, and how each was loaded. where: the name of `place` in messages.

    parts: by component, a single file to load instead, which is checked here. Safetensors are mapped, not
    read, so there is no second copy in memory. Both libraries read pickles with weights_only=True.
    """
    from transformers import PreTrainedModel  # imported by whoever loads networks

    loaded: list[LoadedNetwork] = []
    networks: dict[str, nn.Module] = {}
    parts = parts or {}
    dtypes = dtype if isinstance(dtype, Mapping) else {"default": dtype}
    configs = quantization.quant_mapping if quantization else {}

    def load(kind: Any, name: str, folder: Path, called: str, fix: str = _FIX, prefix: str = "") -> Any:
        """called: the folder's name in messages. prefix: of the names of weights."""
        config = configs.get(name)
        with _shapes_named(called):
            network, report = kind.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=use_safetensors,
                dtype=dtypes.get(name, dtypes["default"]),
                # transformers' own error does not name them, but its report does
                **({"ignore_mismatched_sizes": True} if issubclass(kind, PreTrainedModel) else {}),
                **({"quantization_config": config} if config else {}),
                **({"key_mapping": {f"^{re.escape(prefix)}": ""}} if prefix else {}),
            )
        for key, shape, expected in report.get("mismatched_keys", ()):
            raise _other_shape(called, key, [*shape], [*expected])
        is_packed = config is not None or method_of(folder.parent, folder.name) is not None
        loaded.append(
            LoadedNetwork(network=network, report=report, where=called, is_packed=is_packed, fix=fix)
        )
        return network

    for component in components:
        name, kind = component.name, class_of(component.library, component.class_name)
        if part := parts.get(name):
            make_blank = partial(blank_network, component, place)
            with _blamed(part, component), _shapes_named(part.where):
                if part.is_folder_like(component):
                    with part.as_folder(place / name) as folder:
                        prefix, _ = part.prefix(component, make_blank)
                        networks[name] = load(kind, name, folder, part.where, OTHER_BASE, prefix)
                else:
                    own_dtype = dtypes.get(name, dtypes["default"])
                    networks[name] = part.network(component, place, own_dtype, configs.get(name), make_blank)
        else:
            each = class_of(component.library, component.network_class)
            several = [load(each, name, place / path, str(where / path)) for path in component.folders]
            networks[name] = several[0] if each is kind else kind(several)
    for file in dict.fromkeys(parts.values()):
        # A process that loads only some of a file's components cannot check its other weights.
        if all(name in networks for name, own in parts.items() if own is file):
            file.check_all_placed(allow_unmatched=allow_unmatched)
    return networks, loaded


@contextmanager
def _blamed(part: SingleFile, component: Component) -> Iterator[None]:
    """Raise a ModelError that names the file, for any error of a library."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FramefleetError) or is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {message_of(error)[:_MAX_REASON]}"
        problem = f"{part.where} cannot be read as the {component.name} of its base, a {component.class_name}"
        raise ModelError(f"{problem} ({reason})", "use the base that the file was made for") from error


@contextmanager
def _shapes_named(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # diffusers has no error class for this
        if shapes := _OTHER_SHAPE.search(str(error)):
            raise _other_shape(where, shapes[1], shapes[3], shapes[2]) from None
        raise


def _other_shape(where: str, key: str, shape: Any, expected: Any) -> ModelError:
    problem = f"{where}: the weight {key} has the shape {shape}, but by the config it should have {expected}"
    return ModelError(problem, "weights and config are from different models: use those of one model")


def check_loaded(loaded: Iterable[LoadedNetwork], *, allow_unmatched: bool) -> None:
    """Raise ModelError for weights that are left over on either side, after the pipeline is assembled.

    Pipelines share some layers (Z-Image's ControlNet has layers of the transformer), and save them twice.
    """
    from transformers import PreTrainedModel  # already imported by the pipeline

    for one in loaded:
        network, report = one.network, one.report
        lacking = {name for name in report["missing_keys"] if not name.endswith(_COUNTERS)}
        if allow_unmatched:
            lacking -= {name for name, _ in network.named_buffers()}  # their class sets a value
        # Weights without a file: diffusers leaves them empty; transformers fills them with random values, and
        # marks those that it read.
        is_marked = isinstance(network, PreTrainedModel)
        lacking |= {
            name
            for name, weight in network.named_parameters()
            if weight.is_meta or (is_marked and not getattr(weight, "_is_hf_initialized", False))
        }
        lacking = set() if one.is_packed else lacking
        halves = [_OTHER_HALVES[""], _OTHER_HALVES.get(type(network).__name__)]
        unexpected = {*report["unexpected_keys"]}
        unused = {name for name in unexpected if not any(half and half.match(name) for half in halves)}
        unused -= network.state_dict().keys() if unused else set()
        check_leftovers(one.where, unused=unused, lacking=lacking, fix=one.fix, allowed=allow_unmatched)


def blank_pipeline(
    folder: Path, files: Iterable[str], components: Iterable[Component], spec: PipelineSpec
) -> Any:
    """Return the pipeline with every parameter on the meta device. folder: has the configs, `files`."""
    components = list(components)
    with sealed(folder, files) as place, _no_progress_bar():
        networks = {c.name: blank_network(c, place) for c in components if c.has_weights}
        return assembled(place, spec, components, networks=networks)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Hide diffusers' progress bar, because a pipeline without weights is ready at once."""
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


def blank_network(component: Component, place: Path) -> nn.Module:
    """Return a network with every parameter on the meta device. place: the pipeline's folder."""
    made = class_of(component.library, component.class_name)
    each = class_of(component.library, component.network_class)
    network: nn.Module
    with init_empty_weights():
        if component.loader == "transformers":
            network = made(made.config_class.from_pretrained(place / component.name))
        else:
            several = [each.from_config(each.load_config(place / name)) for name in component.folders]
            network = several[0] if each is made else made(several)
    return network


def assembled(
    place: Path,
    spec: PipelineSpec,
    components: Iterable[Component],
    *,
    networks: Mapping[str, nn.Module],
    guardrail: Guardrail | None = None,
) -> Any:
    """Return the pipeline with these networks, and the tokenizers and scheduler of the folder.

    It uses the concrete class, because DiffusionPipeline.from_pretrained drops components that are passed to
    it (diffusers 0.42). guardrail: for a model that needs one; None if it will not render.
    """
    guarding = {GUARDRAIL: guardrail or Guardrail()} if is_guarded(spec) else {}
    if not is_modular(spec.class_name):
        return spec.pipeline_class.from_pretrained(place, local_files_only=True, **networks, **guarding)
    # Without its own loader, which imports and downloads what the index names, and ignores errors.
    pipe, parts = spec.pipeline_class(), dict(networks)
    for one in components:
        if one.name not in parts:
            made = class_of(one.library, one.class_name)
            parts[one.name] = made.from_pretrained(place, subfolder=one.name, local_files_only=True)
    pipe.register_components(**parts)
    specs = pipe._config_specs
    pipe.update_components(**{name: v for name, v in spec.configs["index"].items() if name in specs})
    if guarding:
        pipe.enable_safety_checker(guarding[GUARDRAIL])
    return pipe
