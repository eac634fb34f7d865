"""From a pipeline folder to the files that are loaded from it, each with its SHA-256, and one digest for all.

Weights come from safetensors only: a pickle can run code when it is opened.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from framefleet.pipeline.errors import ModelError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
OTHER_WEIGHTS = (".msgpack", ".h5", ".onnx", ".gguf")  # of other frameworks, beside the ones that are loaded
# diffusers' and transformers' names of a component's weights, in the order they are looked for.
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def loaded_files(folder: Path, components: Iterable[str]) -> list[str]:
    """Return the files that loading reads, relative to `folder` and sorted.

    components: the folders named in model_index.json. Raises ModelError for pickles, missing shards and
    weights whose length is not what their header says.
    """
    files = ["model_index.json"]
    for component in components:
        weights = _weights(folder / component)
        for file in weights:
            _check_length(folder / component / file)
        files += [f"{component}/{file}" for file in [*weights, *_configs(folder / component)]]
    return sorted(files)


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {file: _sha256(folder / file) for file in files}


def model_digest(digests: Mapping[str, str]) -> str:
    """Return SHA-256 over the sorted lines `SHA-256  file`, as sha256sum writes them."""
    lines = "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _weights(component: Path) -> list[str]:
    names = {path.name for path in component.iterdir()} if component.is_dir() else set()
    for base in WEIGHTS:
        if f"{base}.index.json" in names:
            return [f"{base}.index.json", *_shards(component, f"{base}.index.json")]
        if base in names:
            return [base]
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise ModelError(
            f"{component / pickles[0]} is a pickle, which can run code when it is opened",
            "convert it to safetensors, or take the model from a folder that has them",
        )
    return []


def _shards(component: Path, index: str) -> list[str]:
    try:
        shards = sorted(set(json.loads((component / index).read_text())["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(f"{component / index} is not an index of shards", "fetch it again") from None
    for shard in shards:
        if not (component / shard).is_file():
            raise ModelError(f"{component / shard} is missing, though {index} names it", "fetch it again")
    return shards


def _configs(component: Path) -> list[str]:
    """Configuration and tokenizer files: everything small that is not weights or prose."""
    skip = (".safetensors", ".safetensors.index.json", ".md", ".png", ".jpg", *PICKLES, *OTHER_WEIGHTS)
    return sorted(
        path.name
        for path in (component.iterdir() if component.is_dir() else ())
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(skip)
    )


def _check_length(path: Path) -> None:
    """Compare a safetensors file with its header: 8 bytes of length, the header, then the tensors."""
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes if header_bytes <= size else 0))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + header_bytes + max(ends, default=0)
    except (struct.error, ValueError, AttributeError, LookupError, TypeError):
        raise ModelError(f"{path} is not a safetensors file", "fetch it again") from None
    if size != expected:
        raise ModelError(f"{path} has {size} bytes, but its header says {expected}", "fetch it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
