"""Opens a checkpoint, a file or folder as its authors ship it, and lists its tensors without reading them.

For what a pickle names, torch calls only what it knows, and our stand-ins for harmless classes that trainers
leave in it. Everything else is refused, so no code of the file runs (docs/why/ports.md).
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framefleet.api.errors import FramefleetError, ModelError
from framefleet.pipeline.model.sources.headers import HEAD_BYTES, check_file_size, foreign, read_first
from framefleet.pipeline.model.sources.selection import is_junk

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *_PICKLES)
# Where trainers put the weights: Lightning, DeepSpeed.
_NESTS = ("state_dict", "module")
# What DeepSpeed and DistributedDataParallel put before every name.
_WRAPPERS = ("_forward_module.", "module.")
# How transformers calls weights that are pickled; "open_clip_" before it in those of open_clip.
_TWIN = re.compile(r"(.*)pytorch_model.*\.bin")
_META = torch.device("meta")
_SHOWN, _LONGEST = 5, 80  # names in one message, and letters of each
_SAVE = "if you trust it, save only its state_dict with torch.save, or use its safetensors"
_NO_ZIP = (
    "is cut short, or was not saved by torch 1.6 or later",
    f"download it again; for an older one, {_SAVE}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Tensors of one file, or of all files of a folder; then a name starts with the file's and a colon.

    shapes: by name, as tensors without values. read: gives one tensor; a mapped file's pages are read then.
    parts: components that are given by checkpoints of their own; their names start with the component's and a
        colon.
    """

    path: Path
    shapes: Mapping[str, Tensor]
    read: Callable[[str], Tensor]
    parts: frozenset[str] = frozenset()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the shapes of the names that start with `prefix`, without it."""
        return {name[len(prefix) :]: t for name, t in self.shapes.items() if name.startswith(prefix)}

    def with_part(self, component: str, part: Checkpoint) -> Checkpoint:
        return _joined(self.path, {"": self, f"{component}:": part}, parts=self.parts | {component})


def open_checkpoint(path: Path) -> Checkpoint:
    """Open `path` without reading its tensors. Raises ModelError for what holds none, or holds code."""
    if not path.is_dir():
        return _open_file(path)
    if (path / "model_index.json").is_file():
        raise ModelError(f"{path} is already a diffusers pipeline folder", "render with it as it is")
    names = _weight_files(path)
    if not names:
        raise ModelError(f"{path} has no {', '.join(SUFFIXES)}", "use the checkpoint's file or folder")
    if len(names) == 1:
        return _open_file(path / names[0])
    return _joined(path, {f"{name}:": _open_file(path / name) for name in names})


def _joined(
    path: Path, files: Mapping[str, Checkpoint], *, parts: frozenset[str] = frozenset()
) -> Checkpoint:
    """Return several as one. files: by what comes before the names of their tensors."""
    origins = {start + name: (file, name) for start, file in files.items() for name in file.shapes}
    return Checkpoint(
        path=path,
        shapes={name: file.shapes[inner] for name, (file, inner) in origins.items()},
        read=lambda name: origins[name][0].read(origins[name][1]),
        parts=parts,
    )


def _weight_files(path: Path) -> list[str]:
    """Return the files of weights below a folder, also in folders that are links, each folder once."""
    paths: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not is_junk(name))
        files = [file for file in files if not is_junk(file)]
        safe = [file for file in files if file.endswith(".safetensors")]
        for file in files:
            # Where safetensors of the same weights are there too, transformers takes these.
            twin = _TWIN.fullmatch(file)
            is_twin = twin is not None and any(name.startswith(f"{twin[1]}model") for name in safe)
            if file.endswith(SUFFIXES) and not is_twin:
                paths.append((Path(folder) / file).relative_to(path).as_posix())
    return sorted(paths)


def _open_file(path: Path) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"checkpoint {str(path)!r} does not exist", "use a file, or a folder of files")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint", f"use a file that ends with {', '.join(SUFFIXES)}")
    try:
        return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)
    except FramefleetError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}", "check its permissions and its disk") from error
    except Exception as error:  # zipfile, torch and safetensors have many for a broken or hostile file
        raise ModelError(f"{path} is damaged: {str(error)[:_LONGEST]}", "download it again") from error


def _open_safetensors(path: Path) -> Checkpoint:
    check_file_size(path)
    try:
        file: Any = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file: {error}", "download it again") from error
    names = _unwrapped(list(file.keys()))
    shapes = {name: _shape(file.get_slice(stored), path) for name, stored in names.items()}
    return Checkpoint(path=path, shapes=shapes, read=lambda name: file.get_tensor(names[name]))


def _shape(entry: Any, path: Path) -> Tensor:
    dtype = DTYPES.get(entry.get_dtype())
    if dtype is None:
        raise ModelError(f"{path} has tensors of {entry.get_dtype()}", "use one in fp32, fp16 or bf16")
    return torch.empty(entry.get_shape(), dtype=dtype, device=_META)


def _open_pickle(path: Path) -> Checkpoint:
    content = read_pickle(path)
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):  # others are a tensor or a list of them, which have no names
        nested = next((content[nest] for nest in _NESTS if isinstance(content.get(nest), Mapping)), content)
        tensors = {str(name): value for name, value in nested.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(
            f"{path} has no tensors", f"framefleet reads its top level and {' and '.join(_NESTS)}"
        )
    names = _unwrapped(list(tensors))
    shapes = {name: tensors[stored].to(_META) for name, stored in names.items()}
    return Checkpoint(path=path, shapes=shapes, read=lambda name: tensors[names[name]])


def _unwrapped(stored: list[str]) -> dict[str, str]:
    """Return the stored name of each tensor by its name without what a trainer put before all of them."""
    wrapper = next((w for w in _WRAPPERS if stored and all(name.startswith(w) for name in stored)), "")
    return {name[len(wrapper) :]: name for name in stored}


def read_pickle(path: Path) -> Any:
    """Return the content of a file. Raises ModelError for one that names more than tensors, or is damaged."""
    if not zipfile.is_zipfile(path):
        what, fix = foreign(read_first(path, HEAD_BYTES)) or _NO_ZIP
        raise ModelError(f"{path} {what}", fix)
    with torch.serialization.safe_globals(STAND_INS):
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
            raise _refusal(path) from error


def _refusal(path: Path) -> ModelError:
    """Return why torch does not open it. torch's own message says how to open it anyway."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        names = sorted(name[:_LONGEST] for name in unsafe)
    except Exception:  # the same damage
        names = []
    if not names:
        return ModelError(
            f"{path} is damaged, or a pickle of an unknown kind", f"download it again, or {_SAVE}"
        )
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ModelError(
        f"{path} has more than tensors, and could run code when it is opened: "
        f"it names {', '.join(names[:_SHOWN])}{more}",
        _SAVE,
    )


class Unneeded:
    """Stands for an object whose values nothing here needs."""

    def __init__(self, *_arguments: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


class Keyed:
    """Stands for a kind of dictionary. torch puts what it holds into its own kinds alone."""

    def __new__(cls, *_arguments: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


_KEYED = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
_UNNEEDED = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "typing.Any",
)
# As torch.serialization.safe_globals takes them.
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((Keyed, name) for name in _KEYED),
    *((Unneeded, name) for name in _UNNEEDED),
]
