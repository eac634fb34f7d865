"""Estimate, without weights, whether a model's largest row fits a GPU."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from framefleet.api.clips import Request, each_input, is_model
from framefleet.api.errors import bytes_text
from framefleet.api.models import (
    FRAME_PARAMETERS,
    SAFETENSORS,
    DTypeName,
    ModelSettings,
    PipelineSpec,
    by_component,
    is_denoiser,
)
from framefleet.api.texts import canonical_json
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.device_placement import Placement
from framefleet.pipeline.model.options.schema import GroupOffload, Options, OtherQuantization
from framefleet.pipeline.model.sources.headers import Tensor
from framefleet.pipeline.model.sources.packing import packed_components
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.dtypes import resolved
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.row_plan import required_arguments
from framefleet.plugins.memory.blank_call import ANSWER, BlankCall, BlankCalls, NetworkMemory, Precision
from framefleet.plugins.memory.footprint import FIXED_GB, GB, MEMORY_WAYS, OFFLOADS, Footprint, Way

_NUM_GPUS = (2, 4, 8)  # in one machine
_STEPS = 2  # the fewest for models with two denoisers to call both
_FP8_BITS = 8
# safetensors names of dtypes that are loaded in the job's dtype.
_FLOATS = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64")
# Inputs that calls need even if their signature says otherwise: for inpainting, control and edits.
_NEEDED = ("original_image", "mask_image", "control_image", "control_mask", "control_video", "images")
_EDITS = re.compile("Edit|Kontext|Pix2Pix|Upscale|Upsample|SuperResolution|Refiner|Adapter|ControlNet")
_FRAME_COUNTS = (*FRAME_PARAMETERS, "segment_frame_length")
_FRAMES = 49  # frames of an input video if the call has no number of frames, as for CogVideoX
# Numbers of bits in names of quantizations: int8_weight_only, nvfp4_dynamic, load_in_4bit, NVFP4.
_BITS = re.compile(r"(?:int|float|fp|mx|nf|_)(\d+)", re.IGNORECASE)
_MAX_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of one row of the largest shape, in gigabytes."""

    weights_gb: float  # of all components
    activations_gb: float | None  # of the denoiser; None: not counted
    peak_gb: float  # with the job's options
    has_gb: float | None  # available there; None: not known
    place: str  # the GPU, or this machine
    ways: tuple[Way, ...] = ()  # ways that fit without needless options, the fastest first
    decoding_gb: float = 0.0
    encoding_gb: float = 0.0  # of text, and of input images or videos
    measured_gb: float | None = None  # peak in a worker's rehearsal; None if there was none
    missing: str = ""  # why activations were not counted
    num_gpus: int = 1  # of a worker; `has_gb` and the peak are for one of them
    placement: str = ""  # how a row fits on several such GPUs, if it does not fit on one
    cpu_workers: int | None = None  # number that share this machine's memory; None: workers have GPUs

    @property
    def fits(self) -> bool | None:
        """Whether it fits, by the measured peak if there is one; None if not known."""
        peak_gb = self.peak_gb if self.measured_gb is None else self.measured_gb
        return None if self.has_gb is None else peak_gb <= self.has_gb

    @property
    def summary(self) -> str:
        place = f" of {self.has_gb:.1f} GB, {self.place}" if self.has_gb is not None else ""
        return f"about {self.peak_gb:.1f} GB{place}"

    @property
    def line(self) -> str:
        """Whether the row fits, and what to do if not."""
        parts = f"libraries {_size(FIXED_GB)}; weights {_size(self.weights_gb)}"
        if self.activations_gb is not None:
            parts += (
                f"; the largest row: encoding {_size(self.encoding_gb)}, denoising "
                f"{_size(self.activations_gb)}, decoding {_size(self.decoding_gb)}"
            )
        if self.missing:
            else_ = "" if self.activations_gb is None else " else"
            parts += f"; what{else_} the row needs was not counted: {self.missing}"
        fullest = f" on the fullest of {self.num_gpus} GPUs" if self.num_gpus > 1 else ""
        line = f"memory: about {_size(self.peak_gb)}{fullest} ({parts})"
        if self.measured_gb is not None:
            line += f", measured {_size(self.measured_gb)}"
        if self.has_gb is None:
            return f"{line}; there is no GPU here to compare with, so use e.g. --gpu-memory 24GB"
        line += f", of {_size(self.has_gb)} of {self.place}"
        if self.fits:
            return line
        several = f"; several GPUs: {self.placement}" if self.placement else ""
        if fewer := int(self.has_gb * (self.cpu_workers or 0) / self.peak_gb):
            several = f"; it does with fewer workers: fleet.workers={fewer}"
        ways = [f"`model: {{{way}}}`" if str(way) else "without options" for way in self.ways]
        first, *others = ways or [""]
        if self.activations_gb is None:
            advice = f"the weights do with {first}"
            if not first:
                offload = "" if self.cpu_workers else "`model: {offload: group}`, or "
                advice = f"try {offload}a smaller size or model"
        elif first:
            advice = f"the fastest that fits is {first}" + (f" (or {', '.join(others)})" if others else "")
        else:
            advice = "use a smaller size or model"
        return f"{line}: it does not fit; {advice}{several}"


class MemoryCounts:
    """Counts the memory of a model's rows, by calling its pipeline without weights.

    Takes some seconds for each shape, dtype and tiling, once per machine.
    """

    def __init__(
        self,
        settings: ModelSettings,
        weights: Weights,
        spec: PipelineSpec,
        folder: Path,
        *,
        is_on_cpu: bool,
        recipes: str | None = None,
    ) -> None:
        """folder: of the model's configs.

        recipes: the folder with modules of users' recipes. None: calls the model's pipeline instead of them.
        """
        self._options, self._weights, self._folder = settings.options, weights, folder
        self._spec, self._recipes = spec, recipes
        device = "cpu" if is_on_cpu else "cuda"
        dtype = resolved(settings.dtype, device=device, auto=spec.auto_dtypes)
        self._dtypes = {"default": dtype} if isinstance(dtype, str) else dict(dtype)
        self._calls = BlankCalls(folder, weights.config_files, recipes=recipes)
        self._footprints: dict[str, Footprint] = {}  # also of calls that hung, so as not to repeat them
        self.close = self._calls.close

    @property
    def is_half(self) -> bool:
        """Whether all weights already have two bytes."""
        return {*self._dtypes.values()}.isdisjoint({"fp32"})

    def count(self, request: Request, way: Way) -> Footprint:
        """Return the memory of a row with the options of `way`. Its offload does not matter here."""
        options = self._options
        group = options.offload if isinstance(options.offload, GroupOffload) else GroupOffload()
        precision = Precision(
            dtypes={"default": way.dtype} if way.dtype else self._dtypes,
            bits=_bits(options, [one.name for one in self._weights.components]),
            stored=_packed(self._weights, self._folder),
            tiling=way.vae_tiling,
            slicing=options.vae_slicing,
            fuse_qkv=options.fuse_qkv,
            by_leaf=group.level == "leaf",
            blocks=group.blocks * (2 if group.stream else 1),
        )
        key = canonical_json([_deciding(request), asdict(precision)])
        if key not in self._footprints:
            self._footprints[key] = self._counted(request, precision)
        return self._footprints[key]

    def _counted(self, request: Request, precision: Precision) -> Footprint:
        models = [name for name, value in request.arguments.items() if is_model(value)]
        if models:
            return self._stored(f"the row calls a second model, its {models[0]}", precision)
        note = ""
        if request.recipe not in BUILT_IN and self._recipes is None:
            note = f"this is one call of the pipeline; add --hollow to count your recipe {request.recipe}"
            arguments = {n: value for n, value in request.arguments.items() if n in self._spec.parameters}
            needed = native_row(self._spec).arguments  # what the recipe may make itself
            request = replace(request, recipe="generate", arguments={**needed, **arguments})
        steps = request.arguments.get("num_inference_steps")
        if isinstance(steps, int):
            few = min(steps, ceil(_STEPS / (request.arguments.get("strength") or 1)))
            request = replace(request, arguments={**request.arguments, "num_inference_steps": few})
        if request.recipe in BUILT_IN:
            content = hashlib.sha256()  # over all that the pipeline is made of
            for file in sorted(self._weights.config_files):
                content.update(f"{file}\n".encode() + (self._folder / file).read_bytes())
            make = partial(self._calls.call, request, precision)
            call = _cached_call(content.hexdigest(), _deciding(request), asdict(precision), make)
        else:  # a recipe whose source may change
            call = self._calls.call(request, precision)
        missing = note or (call.objection.text if call.objection else "")
        if not call.networks:
            return self._stored(missing, precision)
        return Footprint(networks=call.networks, missing=missing)

    def _stored(self, why: str, precision: Precision) -> Footprint:
        """Return the memory of the weights only, from the files, in the dtypes in which they are loaded."""
        weights, dtypes = self._weights, precision.dtypes
        sizes = {
            component.name: sum(
                self._file_bytes(file, dtypes.get(component.name, dtypes["default"]))
                for file in weights.files
                if is_weights(file) and file.partition("/")[0] in component.folders
            )
            for component in weights.components
            if component.has_weights
        }
        sizes |= precision.stored
        parts, counted = by_component(weights.parts, weights.components), set[str]()
        for name in sorted(parts, key=lambda name: not is_denoiser(name)):  # which a checkpoint is most of
            part, dtype = parts[name], dtypes.get(name, dtypes["default"])
            size = part.size if part.is_gguf else _loaded_bytes(part.tensors, dtype)
            sizes[name] = 0 if part.key in counted else size
            counted.add(part.key)
        networks = {name: NetworkMemory(weights=size, held=size, peaks={}) for name, size in sizes.items()}
        return Footprint(networks=networks, missing=why or "the call ended")

    def _file_bytes(self, file: str, dtype: str) -> int:
        source = self._weights.source
        if not file.endswith(SAFETENSORS):  # a pickle, which is not read here
            return source.files[file].size
        return _loaded_bytes(source.header(file)[0], dtype)


def _loaded_bytes(tensors: Iterable[Tensor], dtype: str) -> int:
    width = 4 if dtype == "fp32" else 2
    return sum(
        tensor.num_parameters * width if tensor.dtype in _FLOATS else tensor.end - tensor.begin
        for tensor in tensors
    )


def _deciding(request: Request) -> list[Any]:
    """Return everything that affects the memory of a row: all but the content of prompts and pictures."""

    def value_of(name: str, value: Any) -> Any:
        if isinstance(value, str) and "prompt" in name:
            return ""
        return each_input(value, lambda file: [file.get("kind"), file.get("num_frames")])

    arguments = {name: value_of(name, value) for name, value in request.arguments.items()}
    return [arguments, request.scheduler, request.recipe]


@disk_cached(
    ANSWER,
    decided_by=lambda content, row, precision, _: [content, row, precision],
    is_kept=lambda call: call.objection is None,  # a problem may be gone next time
)
def _cached_call(
    content: str, row: list[Any], precision: Mapping[str, Any], call: Callable[[], BlankCall]
) -> BlankCall:
    return call()


def _bits(options: Options, components: list[str]) -> dict[str, float]:
    """Return the bits per weight of components that the job quantizes or casts."""
    denoisers = [name for name in components if is_denoiser(name)]
    bits: dict[str, float] = {}
    if options.layerwise_casting:
        bits |= dict.fromkeys(denoisers, _FP8_BITS)
    if quantization := options.quantization:
        if isinstance(quantization, OtherQuantization):
            values = quantization.arguments.items()
            types = [name if value is True else value for name, value in values]
        else:
            types = [quantization.type]
        numbers = [int(bits) for name in types if isinstance(name, str) for bits in _BITS.findall(name)]
        if numbers and min(numbers) <= _MAX_BITS:
            bits |= dict.fromkeys(quantization.components or denoisers, min(numbers))
    return bits


def _packed(weights: Weights, folder: Path) -> dict[str, int]:
    """Return the bytes of components whose weights stay packed on the GPU."""
    sizes: dict[str, int] = {}
    for file in filter(is_weights, weights.files):
        sizes[file.partition("/")[0]] = sizes.get(file.partition("/")[0], 0) + weights.source.files[file].size
    stored = {name: sizes.get(name, 0) for name in packed_components(folder, weights.files)}
    parts = by_component(weights.parts, weights.components).items()
    return stored | {name: part.size for name, part in parts if part.is_gguf}


def estimate(
    count: Callable[[Way], Footprint],
    own: Way,
    *,
    place: tuple[str, float | None],
    measured_bytes: int | None = None,
    is_half: bool = True,
    placement: Placement | None = None,
    num_gpus: int = 1,
    cpu_workers: int | None = None,
) -> Memory:
    """Return whether the counted memory fits, and which options would fit.

    own: the job's way. place: from `room_of`. measured_bytes: measured peak of such a row. is_half: bf16
    would save nothing. placement, num_gpus: of a worker. cpu_workers: see `Memory`.
    """
    footprint = count(own)
    measured_gb = None if measured_bytes is None else measured_bytes / GB + FIXED_GB
    name, has_gb = place
    is_counted = footprint.activations_gb > 0
    memory = Memory(
        weights_gb=footprint.weights_gb,
        activations_gb=footprint.activations_gb if is_counted else None,
        decoding_gb=footprint.decoding_gb,
        encoding_gb=footprint.encoding_gb,
        peak_gb=footprint.placed_gb(placement, num_gpus)
        if placement and num_gpus > 1
        else footprint.peak_gb(own.offload),
        num_gpus=num_gpus,
        cpu_workers=cpu_workers,
        measured_gb=measured_gb,
        has_gb=has_gb,
        place=name,
        missing=footprint.missing,
    )
    if has_gb is None or memory.fits:
        return memory
    # Keys of a job that let a row fit on the fewest GPUs.
    offloads, nums = (OFFLOADS, _NUM_GPUS) if cpu_workers is None else (OFFLOADS[:1], ())
    for num, kind in ((num, kind) for num in nums for kind in ("components", "layers")):
        if footprint.placed_gb(Placement(type=kind), num) <= has_gb:
            several = f"fleet.gpus_per_worker={num} and model.placement={kind}"
            memory = replace(memory, placement=several)
            break
    missed_gb = 0.0 if measured_gb is None else measured_gb - memory.peak_gb  # with other options, as much
    if not is_counted:  # and tiles and dtypes would take another call that ends as this one
        fitting = (one for one in offloads if footprint.peak_gb(one) <= has_gb - missed_gb)
        offload = next(fitting, None)
        return replace(memory, ways=() if offload is None else (replace(own, offload=offload),))

    dtypes: tuple[DTypeName | None, ...] = (None,) if is_half else (None, "bf16")
    fitting_ways = (way for dtype in dtypes for way in ways_for(count, has_gb - missed_gb, dtype))
    ways = [way for way in fitting_ways if way.offload in offloads]

    def costs_less(one: Way, other: Way) -> bool:
        """Whether the other way needs all options of this one, or more."""
        costs = [(OFFLOADS.index(way.offload), way.vae_tiling, way.dtype is not None) for way in (one, other)]
        return one != other and all(mine <= its for mine, its in zip(*costs, strict=True))

    best = [way for way in ways if not any(costs_less(other, way) for other in ways)]
    return replace(memory, ways=tuple(best))


def native_row(spec: PipelineSpec) -> Request:
    """Return a row of the model's native size, with placeholders for input pictures and videos."""
    arguments: dict[str, Any] = spec.defaults()
    if "prompt" in spec.parameters:
        arguments["prompt"] = "a"
    needed = {*required_arguments(spec, BUILT_IN["generate"]), *_NEEDED}
    if _EDITS.search(spec.class_name):
        needed |= {"image", "video"}
    frames = next((n for name in _FRAME_COUNTS if isinstance(n := arguments.get(name), int)), _FRAMES)
    stand_ins = {
        "image": {"uri": ""},
        "video": {"uri": "", "num_frames": frames},
        "images": [{"uri": ""}],
        "list[image]": [{"uri": ""}],
    }
    for name, parameter in spec.settable().items():
        if name in needed and parameter.kind in stand_ins:
            arguments[name] = stand_ins[parameter.kind]
    return Request(arguments=arguments)


def ways_for(
    count: Callable[[Way], Footprint], card_gb: float, dtype: DTypeName | None = None
) -> Iterator[Way]:
    """Yield all ways that fit a GPU, the fastest first, with tiling only if it saves memory."""
    whole = count(Way(dtype=dtype))
    tiled = None
    for way in MEMORY_WAYS:
        if not way.vae_tiling:
            fits = whole.peak_gb(way.offload) <= card_gb
        else:
            tiled = tiled or count(Way(vae_tiling=True, dtype=dtype))
            fits = tiled.decoding_gb < whole.decoding_gb and tiled.peak_gb(way.offload) <= card_gb
        if fits:
            yield replace(way, dtype=dtype)


def _size(gb: float) -> str:
    return bytes_text(gb * GB)
