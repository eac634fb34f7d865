"""`framefleet model convert`: makes a pipeline folder that renders from a checkpoint as its authors ship it.

Components are written one after the other, tensor by tensor, from a mapped file. The new folder appears whole
or not at all, even if others write to that name or processes are killed. Files with weights, and the pipeline
that they were made for, become one folder with plain weights.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from transformers import PreTrainedModel

from framefleet.api.errors import ModelError, count_text
from framefleet.api.models import (
    ModelSettings,
    by_component,
    inspect_model,
    source_of,
    torch_dtype,
    weights_of,
)
from framefleet.pipeline.model.families.registry import FAMILIES
from framefleet.pipeline.model.registry import object_at
from framefleet.pipeline.model.sources.network_loading import check_loaded, load_networks
from framefleet.pipeline.model.sources.parts import ModelPart, PartFile, base_and_parts
from framefleet.pipeline.model.sources.single_file import SingleFile
from framefleet.pipeline.model.sources.verified_folder import alone
from framefleet.pipeline.model.specs.dtypes import NAMES
from framefleet.pipeline.model.specs.model_index import MODEL_INDEX
from framefleet.plugins.ports.conversion.checkpoint import DTYPES, Checkpoint, open_checkpoint
from framefleet.plugins.ports.conversion.plan import Conversion, Converter, Network, check
from framefleet.plugins.ports.families import ORIGINALS

_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A pipeline folder that was written."""

    folder: Path
    class_name: str  # of its pipeline
    variant: str | None  # of VideoCrafter, DynamiCrafter or Open-Sora
    components: tuple[str, ...]  # whose weights come from the files


def convert_model(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    base: str | None = None,
    parts: Mapping[str, str | ModelPart] | None = None,
    variant: str | None = None,
    dtype: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write a checkpoint as a pipeline folder with plain weights; it appears when it is complete.

    checkpoint: original files of VideoCrafter, DynamiCrafter or Open-Sora; with `base`, a file that diffusers
        reads.
    folder: must not exist yet. base: the pipeline that the file was made for.
    parts: files with weights of components, by name, as below `model:` in a job.
    variant: which model original files are, where their tensors do not show it.
    dtype: of the weights, e.g. "bf16"; without it, as they are; components of a base keep theirs.
    settings: for original files, values of configs that go before what the tensors show, as
        {"vae.norm_num_groups": 8}; and files or folders of components that the checkpoint lacks, as
        {"text_encoder": "CLIP-ViT-H-14"}.
    on_progress: is called with bytes written and in all.
    Raises ModelError for a checkpoint that is not known or that a job would not render with, for tensors too
    many, missing or misshapen, and where the folder cannot be written or has no room.
    """
    idle = {"variant": variant, "settings": settings} if base else {"parts": parts}
    for name, value in idle.items():
        if value:
            where = "with" if base else "without"
            raise ModelError(f"{name} says nothing {where} a base", f"leave {name} out")
    if dtype not in (None, *NAMES):
        raise ModelError(f"dtype is {dtype!r}", f"use one of {', '.join(NAMES)}")
    check_new(Path(folder))
    cast = torch_dtype(dtype) if dtype else None
    if base:
        return _convert_parts(str(checkpoint), Path(folder), base=base, parts=parts or {}, dtype=cast)
    done = total = 0

    def wrote(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if on_progress:
            on_progress(done, total)

    with alone():
        original, config_values = open_checkpoint(Path(checkpoint)), dict(settings or {})
        for component in [name for name in config_values if "." not in name]:
            place = config_values.pop(component)
            if not isinstance(place, str | Path):
                problem = f"--set {component}={place}: it is not a path"
                raise ModelError(problem, "use a file, or a folder of files")
            original = original.with_part(component, open_checkpoint(Path(place)))
        conversion = plan_conversion(original, variant=variant, given=config_values)
        check(conversion, original)
        networks = conversion.networks.values()
        total = sum(t.nbytes for network in networks for t in shapes_of(network, original, cast).values())
        with whole_folder(Path(folder), total) as partial:
            write(conversion, original, partial, dtype=cast, wrote=wrote)
    return Converted(
        folder=Path(folder),
        class_name=conversion.pipeline.__name__,
        variant=conversion.variant,
        components=tuple(conversion.networks),
    )


def plan_conversion(
    checkpoint: Checkpoint, *, variant: str | None = None, given: Mapping[str, Any] | None = None
) -> Conversion:
    """Return what the first converter that knows it makes of a checkpoint."""
    for place in filter(None, (family.converter for family in FAMILIES)):
        converter: Converter = object_at(place)
        conversion = converter(checkpoint, variant=variant, given=given or {})
        if conversion is not None:
            # A component that was given by itself, and that the conversion does not take so.
            origins = [o.name for network in conversion.networks.values() for o in network.origins.values()]
            for component in checkpoint.parts:
                if not any(name.startswith(f"{component}:") for name in origins):
                    raise ModelError(
                        f"--set {component}: {checkpoint.path} as {conversion.variant} takes none by itself",
                        "leave it out",
                    )
            return conversion
    raise ModelError(
        f"{checkpoint.path} is of an unknown model: the first of its "
        f"{count_text(len(checkpoint.shapes), 'tensor')} is {next(iter(checkpoint.shapes), 'none')}",
        f"use {ORIGINALS}; or for a file that diffusers reads, name the pipeline it was made for: --base",
    )


def write(
    conversion: Conversion,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: torch.dtype | None,
    wrote: Callable[[int], None],
) -> None:
    """Write all components and model_index.json into `folder`. wrote: is called with each tensor's bytes."""
    index: dict[str, object] = {
        "_class_name": conversion.pipeline.__name__,
        "_diffusers_version": diffusers.__version__,
    }
    for name, network in conversion.networks.items():
        module, place = network.module, folder / name
        place.mkdir(parents=True)
        # Under the names that the component's library looks for.
        file = "diffusion_pytorch_model.safetensors"
        if isinstance(module, PreTrainedModel):
            file = "model.safetensors"
            module.config.architectures = [type(module).__name__]
            module.config.save_pretrained(place)
        else:
            module.save_config(place)  # type: ignore[operator]  # diffusers' ConfigMixin

        def read(tensor_name: str, network: Network = network) -> Tensor:
            tensor = _taken(network, tensor_name, checkpoint.read, dtype)
            wrote(tensor.nbytes)
            return tensor

        write_safetensors(place / file, shapes_of(network, checkpoint, dtype), read)
        index[name] = _entry(module)
    for name, component in conversion.others.items():
        component.save_pretrained(str(folder / name))
        index[name] = _entry(component)
    (folder / MODEL_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def shapes_of(network: Network, checkpoint: Checkpoint, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors to write, without values. Raises ModelError for one that is of odd numbers."""
    names = network.module.state_dict()
    shapes = {name: _taken(network, name, checkpoint.shapes.__getitem__, dtype) for name in names}
    for name, shape in shapes.items():
        if shape.dtype not in WRITTEN:
            raise ModelError(
                f"{checkpoint.path}: {name} has {shape.dtype}", "use a checkpoint in fp32, fp16 or bf16"
            )
    return shapes


def _taken(network: Network, name: str, read: Callable[[str], Tensor], dtype: torch.dtype | None) -> Tensor:
    changed = network.origins[name].take(read)
    return changed.to(dtype) if dtype and changed.is_floating_point() else changed


def _entry(component: object) -> list[str]:
    """Return [library, class] as diffusers' `save_pretrained` writes it: a class of ours by its module."""
    library, _, _ = type(component).__module__.partition(".")
    module = library if library in ("diffusers", "transformers") else type(component).__module__
    return [module, type(component).__name__]


@contextmanager
def whole_folder(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Yield the folder to write this many bytes into; when the block ends it takes its name next to it.

    Raises ModelError when the name is taken, another process is at it, or the disk has no room.
    """
    partial, lock = (folder.with_name(f".{folder.name}.{ending}") for ending in ("partial", "lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):  # the operating system lets go of it when its holder dies
            try:
                check_new(folder)
                shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
                free = shutil.disk_usage(folder.parent).free
                if free < size_bytes:
                    raise ModelError(
                        f"{folder} will take {size_bytes / _GB:.1f} GB, and {folder.parent.resolve()} has "
                        f"{free / _GB:.1f} GB free",
                        "free space, name a folder on another disk, or write fp32 weights with --dtype bf16",
                    )
                yield partial
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                lock.unlink(missing_ok=True)  # while it is held: who makes a new one finds the folder written
    except Timeout:
        raise ModelError(
            f"{folder} is being written by another process", "wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written: {error}", "free space, or name another folder"
        ) from error


def check_new(folder: Path) -> None:
    if folder.exists():
        raise ModelError(f"{folder} already exists", "use another folder")


WRITTEN = {dtype: name for name, dtype in DTYPES.items()}
_WHOLE_NUMBERS = re.compile(r"BOOL|[IU]\d+")  # dtypes of positions and counters
_ALIGNMENT = 8  # of the values, by spaces behind the JSON: safetensors itself writes them so


def write_safetensors(path: Path, shapes: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
    """Write the tensors that `read` gives, one by one; `shapes` has them on the meta device, for the header.

    The format is 8 bytes of length, JSON, then the values (github.com/huggingface/safetensors).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + shape.numel() * shape.element_size()
        header[name] = {
            "dtype": WRITTEN[shape.dtype],
            "shape": list(shape.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            tensor = read(name)
            assert (tensor.shape, tensor.dtype) == (shape.shape, shape.dtype), name
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def file_dtype(part: PartFile) -> torch.dtype:
    """Return the dtype that holds all weights of a file: fp32 for packed ones, and where it has several."""
    stored = {tensor.dtype for tensor in part.tensors if not _WHOLE_NUMBERS.fullmatch(tensor.dtype)}
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get("".join(stored), torch.float32)


def _convert_parts(
    path: str, folder: Path, *, base: str, parts: Mapping[str, str | ModelPart], dtype: torch.dtype | None
) -> Converted:
    """Write the base with what the files hold."""
    place, files = base_and_parts(path, base, parts)
    settings = ModelSettings(path=place, parts=files)
    weights = weights_of(settings, source_of(settings))
    configs = weights.configs(is_built=True)
    stored, _ = weights.fetched()
    by_name = by_component(weights.parts, weights.components)
    by_key = {part.key: part for part in by_name.values()}
    opened = {key: SingleFile(part.fetched(), part.is_gguf, part.where) for key, part in by_key.items()}
    dtypes = {name: dtype or file_dtype(part) for name, part in by_name.items()}
    size = sum((stored / name).stat().st_size for name in weights.files)
    size += sum(
        (dtype or file_dtype(part)).itemsize * tensor.num_parameters
        for part in by_key.values()
        for tensor in part.tensors
    )
    with whole_folder(folder, size) as new, alone():
        for name in weights.files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(stored / name, new / name)
        networks, loaded = load_networks(
            configs,
            [component for component in weights.components if component.name in by_name],
            dtype={"default": torch.float32, **dtypes},
            use_safetensors=True,
            parts={name: opened[part.key] for name, part in by_name.items()},
            where=configs,
        )
        check_loaded(loaded, allow_unmatched=False)
        network: Any
        for name, network in networks.items():
            if by_name[name].is_gguf:
                network.dequantize()
                network.to(dtypes[name])
            network.save_pretrained(new / name)
    class_name = inspect_model(folder).class_name
    return Converted(folder=folder, class_name=class_name, variant=None, components=tuple(by_name))
