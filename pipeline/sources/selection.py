"""From the names of a model's files to those that loading it reads. Opens nothing but small files.

Weights come from safetensors; pickles, which can run code when they are opened, only where they are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.json_text import parse_json

INDEX = "model_index.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
OTHER_WEIGHTS = (".msgpack", ".h5", ".onnx", ".gguf")  # of other frameworks, beside the ones that are loaded
PROSE = (".md", ".png", ".jpg", ".py")  # code beside a model is never run
SHARD_INDEXES = (".safetensors.index.", ".bin.index.")
# diffusers' and transformers' names of a component's weights, in the order they are looked for.
SAFETENSORS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLED = ("diffusion_pytorch_model.bin", "pytorch_model.bin")


def select(
    names: Iterable[str],
    components: Iterable[str],
    *,
    read: Callable[[str], bytes],
    where: str,
    allow_pickle: bool = False,
) -> list[str]:
    """Return the files that loading reads, sorted.

    names: of all files, relative to the model. components: the folders named in model_index.json.
    read: gives a small file's bytes. where: what to call the model's folder in errors.
    Raises ModelError for pickles and missing shards.
    """
    inside = _by_folder(names)
    chosen = [INDEX]
    for component in components:
        files, place = inside.get(component, set()), f"{where}/{component}"
        weights = _weights(files, lambda name, at=component: read(f"{at}/{name}"), place, allow_pickle)  # type: ignore[misc]
        chosen += [f"{component}/{name}" for name in [*weights, *filter(_is_config, files)]]
    return sorted(chosen)


def is_weights(name: str) -> bool:
    """Tell whether a file holds tensors, rather than settings or a vocabulary."""
    return name.endswith((".safetensors", *PICKLES))


def _by_folder(names: Iterable[str]) -> dict[str, set[str]]:
    """Group names by their component; what lies deeper is never loaded."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.partition("/")
        if file and "/" not in file:
            inside.setdefault(folder, set()).add(file)
    return inside


def _weights(names: Set[str], read: Callable[[str], bytes], place: str, allow_pickle: bool) -> list[str]:
    for base in (*SAFETENSORS, *(PICKLED if allow_pickle else ())):
        index = f"{base}.index.json"
        if index in names:
            return [index, *_shards(names, index, read(index), place)]
        if base in names:
            return [base]
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles and allow_pickle:
        raise ModelError(f"{place}/{pickles[0]} is not loaded by that name", f"rename it to {PICKLED[0]}")
    if pickles:
        raise ModelError(
            f"{place}/{pickles[0]} is a pickle, which can run code when it is opened",
            "convert it to safetensors, or take the model from a place that has them; "
            "if you trust where it comes from, set `model.allow_pickle: true`",
        )
    return []


def _shards(names: Set[str], index: str, content: bytes, place: str) -> list[str]:
    try:
        shards = sorted(set(parse_json(content)["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(f"{place}/{index} is not an index of shards", "fetch it again") from None
    for shard in shards:
        if shard not in names:
            raise ModelError(f"{place}/{shard} is missing, though {index} names it", "fetch it again")
    return shards


def _is_config(name: str) -> bool:
    """Configuration and tokenizer files: everything small that is not weights, code or prose."""
    if name.startswith(".") or any(part in name for part in SHARD_INDEXES):
        return False
    return not (is_weights(name) or name.endswith((*PROSE, *OTHER_WEIGHTS)))
