"""From one file to the network of a component, by diffusers' own conversion; or why not all of it was placed.

diffusers converts the names of many publishers in `from_single_file`. It logs names that the network does not
have, and passes over others without a word, so the names that it looks at are watched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.leftovers import check_leftovers

# What trainings leave in files, and tables that every class has of its own.
_IGNORED = re.compile(
    r"model_ema\.|(.+\.)?(position_ids|logit_scale)$|denoiser\.sigmas$|lvlb_weights$|logvar$"
    r"|(sqrt_|log_)?(one_minus_)?(recip_|recipm1_)?(alphas_cumprod(_prev)?|betas)$"
    r"|(sqrt_recip|sqrt_recipm1|log_one_minus)_alphas_cumprod$"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])$"
)
# How `from_single_file` says which names were not placed (diffusers.loaders.single_file_model, 0.42).
_LOGGER = "diffusers.loaders.single_file_model"
_UNUSED = re.compile(r"not used when initializing .*?\[(.*)\]", re.S)
GGUF_CONFIG = "GGUFQuantizationConfig"
_FIX = (
    "give the base that the file was made for; if weights without a place are meant to be left out, set "
    "`model.allow_unmatched_weights: true`"
)


class _Watched(dict[str, Any]):
    """The tensors of a file by name, which notes the names that somebody takes."""

    def __init__(self, tensors: Mapping[str, Any], taken: set[str]) -> None:
        super().__init__(tensors)
        self._taken = taken

    def __getitem__(self, name: str) -> Any:
        self._taken.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._taken.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._taken.add(name)
        return super().pop(name, *default)


@dataclass(slots=True, eq=False)  # one may be for several components
class SingleFile:
    """One file, from which several components may be loaded. path: on this machine, hashed and checked."""

    path: Path
    is_gguf: bool
    where: str  # what messages call it
    _names: set[str] = field(default_factory=set)  # of its tensors
    _taken: set[str] = field(default_factory=set)  # those that a component was made of
    _unplaced: set[str] = field(default_factory=set)  # after conversion, and not in any network

    def network(
        self, component: Component, configs: Path, dtype: torch.dtype, quantization: Any
    ) -> nn.Module:
        """Return a component's network. Raises ModelError for lacking weights.

        configs: the base's folder. quantization: None for a GGUF file, which is packed.
        """
        import diffusers
        from diffusers.models.model_loading_utils import load_gguf_checkpoint
        from safetensors.torch import load_file

        tensors: dict[str, Any]
        if self.is_gguf:
            tensors = load_gguf_checkpoint(self.path, return_tensors=True)
            quantization = getattr(diffusers, GGUF_CONFIG)(compute_dtype=dtype)
        else:
            tensors = load_file(self.path)  # mapped, not read
        self._names = {*tensors}
        taken: set[str] = set()
        where = f"{self.where} ({component.name})"
        load = partial(_loaded, component, configs=configs, dtype=dtype, quantization=quantization)
        network_class = class_of(component.library, component.class_name)

        def check_lacking(network: nn.Module) -> None:
            lacking = [name for name, weight in network.named_parameters() if weight.is_meta]
            check_leftovers(where, lacking=lacking, fix=_FIX)

        def to(self: Any, *arguments: Any, **keywords: Any) -> Any:
            check_lacking(self)
            return network_class.to(self, *arguments, **keywords)

        with _unplaced_names() as unplaced:
            try:
                network = load(network_class, _Watched(tensors, taken))
            except NotImplementedError:  # of torch, which casts no weight without a value, and names none
                naming = type(network_class.__name__, (network_class,), {"to": to})
                network = load(naming, _Watched(tensors, taken))
        # A file with the names of diffusers is placed as it is; its names are not looked at one by one.
        taken |= tensors.keys() & network.state_dict().keys()
        check_lacking(network)
        self._taken |= taken
        self._unplaced |= unplaced
        return network

    def check_all_placed(self, *, allow_unmatched: bool) -> None:
        """Raise ModelError for weights of the file that are in no network that was made of it."""
        unused = (self._names - self._taken) | self._unplaced
        unused = {name for name in unused if not _IGNORED.match(name)}
        check_leftovers(self.where, unused=unused, fix=_FIX, allowed=allow_unmatched)


def _loaded(
    component: Component,
    network_class: Any,
    tensors: dict[str, Any],
    *,
    configs: Path,
    dtype: torch.dtype,
    quantization: Any,
) -> nn.Module:
    if component.loader == "diffusers":
        if not hasattr(network_class, "from_single_file"):
            problem = f"{component.name}: diffusers reads a {component.class_name} from a folder only"
            raise ModelError(problem, "leave it out of `model.parts`: its weights are then those of the base")
        network: nn.Module = network_class.from_single_file(
            tensors,
            config=str(configs),
            subfolder=component.name,
            torch_dtype=dtype,
            local_files_only=True,
            **({"quantization_config": quantization} if quantization else {}),
        )
        return network
    # Text encoders: `from_single_file` of a pipeline is public, and takes no tensors that are watched.
    # https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/loaders/single_file.py
    import diffusers
    from diffusers.loaders.single_file import load_single_file_sub_model

    network = load_single_file_sub_model(
        library_name=component.library,
        class_name=component.class_name,
        name=component.name,
        checkpoint=tensors,
        pipelines=diffusers.pipelines,
        is_pipeline_module=False,
        cached_model_config_path=str(configs),
        local_files_only=True,
        torch_dtype=dtype,
    )
    return network.eval()


@contextmanager
def _unplaced_names() -> Iterator[set[str]]:
    """Yield the names that diffusers logs as not used."""
    names: set[str] = set()

    def listen(record: logging.LogRecord) -> bool:
        unused = _UNUSED.search(record.getMessage())
        names.update(unused[1].strip("'\"").split(", ") if unused else ())
        return unused is None

    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(listen)
    try:
        yield names
    finally:
        logger.removeFilter(listen)
        logger.setLevel(level)
