"""Call a row's recipe with networks without weights, to find errors and measure memory.

This runs in another process, so that a bad config or size can only end that process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from framefleet.api.clips import Request, each_input
from framefleet.api.errors import FramefleetError, bytes_text
from framefleet.api.texts import canonical_json, public_text
from framefleet.pipeline.guards.sandbox import Ended, bound_memory
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS, LibraryProcess

if TYPE_CHECKING:
    from torch import nn

_MAX_TEXT = 300  # characters
_MAX_SENT = 1 << 16  # characters of a message, which may quote a tensor
# On top of the process with its libraries. The largest tensors are latents and input pictures; networks need
# no memory.
_MAX_BYTES = 16 << 30
_MEMORY = Path("/proc/meminfo")
# Errors that do not occur in a worker: from values of tensors without values, and from the memory limit here.
_LIMITS = ("meta tensor", "device meta", "Meta tensor", "allocate memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A problem with a row. is_limit: a limit of this call, not an error of the pipeline."""

    text: str
    is_limit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The dtypes and options that decide the bytes of networks' weights and activations."""

    dtypes: Mapping[str, str] = field(default_factory=lambda: {"default": "fp32"})  # by component
    bits: Mapping[str, float] = field(default_factory=dict)  # of components with quantised layers
    stored: Mapping[str, int] = field(default_factory=dict)  # bytes of components with packed files
    tiling: bool = False
    slicing: bool = False
    fuse_qkv: bool = False  # fused weights exist next to the original ones
    by_leaf: bool = False  # `offload: group` moves single layers of the denoisers, not blocks
    blocks: int = 1  # number on the GPU at once


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMemory:
    """Bytes that one network needs. peaks: of each called method, without the weights."""

    weights: int
    held: int  # part of them that is on the GPU at once with `offload: group`
    peaks: Mapping[str, int]

    @property
    def peak(self) -> int:
        return max(self.peaks.values(), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankCall:
    """The result of a call. networks: in the order of the pipeline; incomplete if there was a problem."""

    objection: Objection | None
    networks: Mapping[str, NetworkMemory] = field(default_factory=dict)


ANSWER = TypeAdapter(BlankCall)


class BlankCalls:
    """Calls of one model, in the libraries' process, or in a separate one for users' recipes."""

    def __init__(self, folder: Path, files: Sequence[str], *, recipes: str | None = None) -> None:
        """folder: of the model's configs, `files`. recipes: where modules of the user's recipes may be."""
        self._model = {"folder": str(folder), "files": [*files], "recipes": recipes}
        self._process = LIBRARY_PROCESS if recipes is None else LibraryProcess()
        self._use = ExitStack()
        self._use.enter_context(self._process.use())
        self.close = self._use.close

    def call(self, request: Request, precision: Precision | None = None) -> BlankCall:
        """Call a row's recipe, up to the first decoded latents if the recipe does nothing after them."""
        values = asdict(precision or Precision())
        wanted = {name: getattr(request, name) for name in ("seed", "scheduler", "recipe")}
        wanted["arguments"] = dict(request.arguments)
        try:
            question = canonical_json(self._model | {"precision": values, "request": wanted})
            call = ANSWER.validate_python(self._process.ask(called, question))
        except Ended as error:
            return BlankCall(objection=Objection(text=str(error), is_limit=True))
        if call.objection is None:
            return call
        # Done here, as the sandbox does not know the secrets of this process, and before text is cut.
        text = " ".join(public_text(call.objection.text).split())
        return replace(call, objection=replace(call.objection, text=text[:_MAX_TEXT]))


def called(question: str) -> dict[str, Any]:
    """Return the result of a call as plain values. question: from `BlankCalls`, as JSON text."""
    objection: Objection | None = None
    networks: dict[str, NetworkMemory] = {}
    try:
        _call(json.loads(question), networks)
    except FramefleetError as error:  # of ours: a recipe, a scheduler
        objection = Objection(text=str(error))
    except MemoryError:
        objection = Objection(text=f"it needs more than {bytes_text(_max_bytes())}", is_limit=True)
    except (Exception, SystemExit) as error:  # a pipeline's own, of any class
        text = f"{type(error).__name__}: {error}"
        is_limit = isinstance(error, NotImplementedError) or any(word in text for word in _LIMITS)
        objection = Objection(text=text[:_MAX_SENT], is_limit=is_limit)
    return asdict(BlankCall(objection=objection, networks=networks))


def _call(question: Mapping[str, Any], networks: dict[str, NetworkMemory]) -> None:
    """Call the row's recipe, and note the memory of each network. Raises what the recipe raises."""
    import torch

    from framefleet.api.models import find_recipe
    from framefleet.pipeline.model.own_pipeline import OwnPipelines
    from framefleet.pipeline.model.specs.schedulers import schedulers_of
    from framefleet.plugins.memory.stub_networks import Decoded

    wanted = question["request"]
    recipe = find_recipe(wanted["recipe"], question["recipes"])
    spec, pipe, peaks, sizes = _opened(
        canonical_json({**question, "request": None, "ends": recipe.then is None})
    )
    bound_memory(_max_bytes())  # again, as this process has answered others meanwhile
    for calls in peaks.values():
        calls.clear()
    request = Request(**{**wanted, "arguments": _stand_ins(spec.from_json(wanted["arguments"]), pipe)})
    try:
        with torch.no_grad():
            recipe.render(OwnPipelines(pipe).make(**schedulers_of(pipe, request.scheduler, spec)), request)
    except Decoded:
        pass
    finally:
        networks |= {
            name: NetworkMemory(weights=weights, held=peak, peaks=dict(peaks[name]))
            for name, (weights, peak) in sizes.items()
        }


@cache
def _max_bytes() -> int:
    """Return how much more memory a call may use: at most half of the machine's free memory."""
    with suppress(OSError):
        if available := re.search(r"MemAvailable:\s+(\d+) kB", _MEMORY.read_text()):
            return min(_MAX_BYTES, int(available[1]) * 1024 // 2)
    return _MAX_BYTES


@cache
def _opened(question: str) -> Any:
    """Return the model's spec, its pipeline over hollow networks, their peaks, and the sizes of weights."""
    from framefleet.api.models import inspect_model, torch_dtype
    from framefleet.pipeline.model.sources.components import components_in
    from framefleet.pipeline.model.sources.network_loading import blank_pipeline
    from framefleet.plugins.memory.stub_networks import hollow

    values = json.loads(question)
    folder, precision = Path(values["folder"]), Precision(**values["precision"])
    spec, components = inspect_model(folder), components_in(folder)
    bound_memory(_max_bytes())  # before networks are made, since configs decide the size of buffers
    pipe = blank_pipeline(folder, values["files"], components, spec)
    pipe.set_progress_bar_config(disable=True)
    networks = {one.name: getattr(pipe, one.name) for one in components if one.has_weights}
    for name, network in networks.items():
        if precision.fuse_qkv and hasattr(network, "fuse_qkv_projections"):
            network.fuse_qkv_projections()
        _cast(network, torch_dtype(precision.dtypes.get(name, precision.dtypes["default"])))
    sizes = {name: _sizes(network, name, precision) for name, network in networks.items()}
    for wanted, method in ((precision.tiling, "enable_tiling"), (precision.slicing, "enable_slicing")):
        if wanted and hasattr(getattr(pipe, "vae", None), method):
            getattr(pipe.vae, method)()
    peaks = hollow(pipe, ends=values["ends"])
    return spec, pipe, peaks, {name: size for name, size in sizes.items() if name in peaks}


def _cast(network: nn.Module, dtype: Any) -> None:
    """Give a network the dtype in which `from_pretrained` loads it. Some of its parts stay in fp32."""
    import torch

    for part in network.modules():
        tables = part._non_persistent_buffers_set  # which no file holds, so that nothing casts them
        own = {name: buffer for name, buffer in part._buffers.items() if name not in tables}
        for tensor in (*part._parameters.values(), *own.values()):
            if tensor is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    exact = {*(getattr(network, "_keep_in_fp32_modules_strict", None) or ())}
    if hasattr(network, "tie_weights"):
        network.tie_weights()  # type: ignore[operator]  # made one by one, they are not
    if dtype == torch.float16 or not hasattr(network, "tie_weights"):  # transformers does so for fp16 alone
        exact |= {*(getattr(network, "_keep_in_fp32_modules", None) or ())}
    for name, weight in network.named_parameters():
        if exact.intersection(name.split(".")):
            weight.data = weight.data.float()


def _sizes(network: nn.Module, name: str, precision: Precision) -> tuple[int, int]:
    """Return the bytes of its weights, and of the part that `offload: group` has on the GPU at once."""
    from torch import nn

    from framefleet.api.models import is_denoiser

    bits, counted = precision.bits.get(name), set[int]()  # two layers may have one weight

    def size_of(part: nn.Module) -> float:
        tensors = (*part._parameters.values(), *part._buffers.values())
        new = [tensor for tensor in tensors if tensor is not None and id(tensor) not in counted]
        counted.update(map(id, new))
        own = float(sum(tensor.nbytes for tensor in new))
        weight = getattr(part, "weight", None)
        if bits and isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d) and weight is not None:
            own += weight.numel() * bits / 8 - weight.nbytes
        return own

    parts = {id(part): size_of(part) for part in network.modules()}

    def all_of(part: nn.Module) -> float:
        return sum(parts[id(one)] for one in part.modules())

    whole, on_device = all_of(network), max(parts.values())
    groups = [child for child in network.children() if isinstance(child, nn.ModuleList | nn.Sequential)]
    if is_denoiser(name) and not precision.by_leaf:
        blocks = [all_of(block) for group in groups for block in group]
        on_device = whole - sum(blocks) + max(blocks, default=0.0) * precision.blocks
    if stored := precision.stored.get(name):
        return stored, round(on_device * stored / whole)
    return round(whole), round(min(on_device, whole))


def _stand_ins(arguments: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """Return a row's arguments with its pictures replaced by grey ones of the row's size."""
    from framefleet.pipeline.model.ip_adapter import IP_ADAPTER_IMAGE
    from framefleet.pipeline.model.lora import without_loras
    from framefleet.pipeline.model.specs.signature import references_of
    from framefleet.plugins.memory.stub_networks import grey, grey_reference

    size, classes = (arguments.get("width") or 512, arguments.get("height") or 512), references_of(pipe)
    plain = without_loras(arguments)
    plain.pop(IP_ADAPTER_IMAGE, None)  # the networks here are the pipeline's own

    def opened(name: str, value: Mapping[str, Any]) -> Any:
        is_reference = name in classes
        return grey_reference(classes[name][value["kind"]], size) if is_reference else grey(value, size)

    return {name: each_input(value, partial(opened, name)) for name, value in plain.items()}
