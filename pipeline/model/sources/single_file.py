"""From a single file to a component's network, with diffusers' own conversion; every weight must be used.

diffusers converts the names of many publishers in `from_single_file`. It logs names that the network does not
have, and silently ignores others, so we watch which names it reads.
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

# Leftovers of training, and tables that every class makes itself.
_IGNORED = re.compile(
    r"model_ema\.|(.+\.)?(position_ids|logit_scale)$|denoiser\.sigmas$|lvlb_weights$|logvar$"
    r"|(sqrt_|log_)?(one_minus_)?(recip_|recipm1_)?(alphas_cumprod(_prev)?|betas)$"
    r"|(sqrt_recip|sqrt_recipm1|log_one_minus)_alphas_cumprod$"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])$"
)
# The message of `from_single_file` about unused names (diffusers.loaders.single_file_model, 0.42).
_LOGGER = "diffusers.loaders.single_file_model"
_UNUSED = re.compile(r"not used when initializing .*?\[(.*)\]", re.S)
GGUF_CONFIG = "GGUFQuantizationConfig"
# Prefixes that diffusers' conversion removes by itself, and those that it needs for two classes.
LEFT_OUT = ("model.diffusion_model.", "first_stage_model.", "vae.")
_EXPECTED = {"UNet2DConditionModel": LEFT_OUT[0], "CosmosTransformer3DModel": "net."}
FIX = (
    "use the base that the file was made for; if the unused weights are not needed, set "
    "`model.allow_unmatched_weights: true`"
)


class _Watched(dict[str, Any]):
    """The tensors of a file by name; notes which names are read."""

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


@dataclass(eq=False)  # one file may be for several components
class SingleFile:
    """A single file for one or several components. path: on this machine, hashed and checked."""

    path: Path
    is_gguf: bool
    where: str  # its name in messages
    _names: set[str] = field(default_factory=set)  # of its tensors
    _taken: set[str] = field(default_factory=set)  # names that a component has used
    _unplaced: set[str] = field(default_factory=set)  # converted names that are in no network

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in check_file_size(self.path))

    def is_folder_like(self, component: Component) -> bool:
        """Return whether transformers can read the file as if it were in the component's folder."""
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
        """Return the common prefix of all names, e.g. "_orig_mod." of torch.compile, and the right prefix.

        make_blank: makes the network without weights; called only if they may differ.
        """
        paths = zip(*(name.split(".")[:-1] for name in self.names), strict=False)
        parts = [path[0] for path in takewhile(lambda path: len({*path}) == 1, paths)]
        expected = _EXPECTED.get(component.class_name, "")
        if not parts and (not expected or any(name.startswith(expected) for name in self.names)):
            return "", ""
        own = make_blank().state_dict().keys()

        def num_own(prefix: str) -> int:
            return len({name.removeprefix(prefix) for name in self.names} & own)

        # If no name is one of the network's, the names are a publisher's, and the whole prefix goes.
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
        """Return a component's network. Raises ModelError for missing weights.

        configs: the base's folder. quantization: None for a GGUF file, which is already packed.
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
            except NotImplementedError:  # torch cannot cast a weight without a value, and does not name it
                naming = type(network_class.__name__, (network_class,), {"to": to})
                network = load(naming, _Watched(tensors, taken))
        # A file with diffusers' own names is loaded as a whole, without reading its names one by one.
        taken |= tensors.keys() & network.state_dict().keys()
        check_lacking(network)
        self._taken |= taken
        self._unplaced |= unplaced
        return network

    def check_all_placed(self, *, allow_unmatched: bool) -> None:
        """Raise ModelError for weights of the file that are in none of its networks."""
        unused = (self._names - self._taken) | self._unplaced
        unused = {name for name in unused if not _IGNORED.match(name)}
        check_leftovers(self.where, unused=unused, fix=FIX, allowed=allow_unmatched)


def _gguf_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a GGUF file like diffusers' `load_gguf_checkpoint`, without the settings."""
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
            problem = f"{path}: {tensor.name} is packed as {tensor.dtype}, which diffusers cannot read"
            raise ModelError(problem, "use a file with another packing, e.g. Q8_0")
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
            problem = f"{where}: diffusers can only read a {component.class_name} from a folder"
            raise ModelError(problem, "leave it out, to use the weights of the base")
        return network_class.from_single_file(
            tensors,
            config=str(configs),
            subfolder=component.name,
            torch_dtype=dtype,
            local_files_only=True,
            **({"quantization_config": quantization} if quantization else {}),
        )
    # Text encoders: the public `from_single_file` of a pipeline does not take our watched tensors.
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
