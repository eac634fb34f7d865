"""From one file to the network of a component, by diffusers' own conversion; or why not all of it was placed.

diffusers converts the names of many publishers in `from_single_file`. It logs names that the network does not
have, and passes over others without a word, so the names that it looks at are watched.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.headers import GGUF_PLAIN, check_file_size
from framefleet.pipeline.model.sources.leftovers import check_leftovers
from framefleet.pipeline.model.sources.parts import is_converted
from framefleet.pipeline.model.sources.selection import ORDER, is_shard_index, is_weights

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
# What diffusers' conversion leaves out of names by itself, and what that of two classes looks for.
LEFT_OUT = ("model.diffusion_model.", "first_stage_model.", "vae.")
_EXPECTED = {"UNet2DConditionModel": LEFT_OUT[0], "CosmosTransformer3DModel": "net."}
FIX = (
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


@dataclass(eq=False)  # one may be for several components
class SingleFile:
    """One file, from which several components may be loaded. path: on this machine, hashed and checked."""

    path: Path
    is_gguf: bool
    where: str  # what messages call it
    _names: set[str] = field(default_factory=set)  # of its tensors
    _taken: set[str] = field(default_factory=set)  # those that a component was made of
    _unplaced: set[str] = field(default_factory=set)  # after conversion, and not in any network

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in check_file_size(self.path))

    def is_folder_like(self, component: Component) -> bool:
        """Whether transformers reads the file as if it lay in the component's folder."""
        return component.loader == "transformers" and not is_converted(component, dict.fromkeys(self.names))

    @contextmanager
    def as_folder(self, configs: Path) -> Iterator[Path]:
        """Yield a folder with the file as its only weights. configs: of the component."""
        with tempfile.TemporaryDirectory(prefix="framefleet-part-") as name:
            for path in configs.iterdir():
                if not is_weights(path.name) and not is_shard_index(path.name):
                    Path(name, path.name).symlink_to(path.resolve())
            Path(name, ORDER["transformers"][0]).symlink_to(self.path.resolve())
            yield Path(name)

    def prefix(self, component: Component, make_blank: Callable[[], nn.Module]) -> tuple[str, str]:
        """Return what all names begin with, e.g. "_orig_mod." of torch.compile, and what they should.

        make_blank: makes the network without weights; called where that may differ.
        """
        paths = zip(*(name.split(".")[:-1] for name in self.names), strict=False)
        parts = [path[0] for path in takewhile(lambda path: len({*path}) == 1, paths)]
        expected = _EXPECTED.get(component.class_name, "")
        if not parts and (not expected or any(name.startswith(expected) for name in self.names)):
            return "", ""
        own = make_blank().state_dict().keys()

        def num_own(prefix: str) -> int:
            return len({name.removeprefix(prefix) for name in self.names} & own)

        # Where no name is one of the network's, it is a publisher's, and all of the prefix goes.
        prefixes = ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts), -1, -1)]
        best = max(prefixes, key=num_own)
        return best, "" if num_own(best) else expected

    def network(
        self,
        component: Component,
        configs: Path,
        dtype: torch.dtype,
        quantization: Any,
        make_blank: Callable[[], nn.Module],
    ) -> nn.Module:
        """Return a component's network. Raises ModelError for lacking weights.

        configs: the base's folder. quantization: None for a GGUF file, which is packed.
        """
        import diffusers
        from safetensors.torch import load_file

        tensors: dict[str, Any]
        if self.is_gguf:
            tensors = _gguf_weights(self.path)
            quantization = getattr(diffusers, GGUF_CONFIG)(compute_dtype=dtype)
        else:
            tensors = load_file(self.path)  # mapped, not read
        prefix, expected = self.prefix(component, make_blank)
        if prefix != expected:
            tensors = {expected + name.removeprefix(prefix): value for name, value in tensors.items()}
        self._names = {*tensors}
        taken: set[str] = set()
        where = f"{self.where} ({component.name})"
        load = partial(_loaded, component, where, configs=configs, dtype=dtype, quantization=quantization)
        network_class = class_of(component.library, component.class_name)

        def check_lacking(network: nn.Module) -> None:
            lacking = [name for name, weight in network.named_parameters() if weight.is_meta]
            check_leftovers(where, lacking=lacking, fix=FIX)

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
        check_leftovers(self.where, unused=unused, fix=FIX, allowed=allow_unmatched)


def _gguf_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a GGUF file as diffusers' `load_gguf_checkpoint` does, without the settings."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    plain = dict(zip(GGUF_PLAIN, (torch.float32, torch.float16), strict=True))
    weights: dict[str, torch.Tensor] = {}
    for tensor in check_file_size(path):
        kind = GGMLQuantizationType[tensor.dtype]
        size = tensor.end - tensor.begin
        content = torch.from_numpy(np.fromfile(path, np.uint8, size, offset=tensor.begin))
        if tensor.dtype in plain:
            weights[tensor.name] = content.view(plain[tensor.dtype]).reshape(tensor.shape)
        elif kind in SUPPORTED_GGUF_QUANT_TYPES:
            packed = content.reshape(quant_shape_to_byte_shape(tensor.shape, kind))
            weights[tensor.name] = GGUFParameter(packed, quant_type=kind)
        else:
            problem = f"{path}: {tensor.name} is packed as {tensor.dtype}, which diffusers does not read"
            raise ModelError(problem, "use a file that is packed otherwise, e.g. as Q8_0")
    return weights


def _loaded(
    component: Component,
    where: str,
    network_class: Any,
    tensors: dict[str, Any],
    *,
    configs: Path,
    dtype: torch.dtype,
    quantization: Any,
) -> nn.Module:
    if component.loader == "diffusers":
        if not hasattr(network_class, "from_single_file"):
            problem = f"{where}: diffusers reads a {component.class_name} from a folder only"
            raise ModelError(problem, "leave it out: its weights are then those of the base")
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
