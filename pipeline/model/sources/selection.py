"""From the names of a model's files to those that loading reads. Opens only small files.

Weights come from safetensors; pickles, which can run code when they are opened, are used only if allowed.
The choice is the same as in the library that loads them, and files that it might load instead are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.model.sources.components import Component, Loader
from framefleet.pipeline.model.specs.model_index import Missing, index_file

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
# Weights of other frameworks, and in formats that are only used on request.
OTHER_WEIGHTS = (".msgpack", ".h5", ".onnx", ".gguf", ".distcp", ".flashpack")
CODE = (".py", ".pyc", ".so")  # next to a model; never run
PROSE = (".md", ".png", ".jpg")
SAFETENSORS, SHARDS = ".safetensors", ".safetensors.index.json"
SHARD_INDEXES = (".safetensors.index.", ".bin.index.")
# The order in which `from_pretrained` looks for them: diffusers prefers shards, transformers a single file.
ORDER: dict[Loader, tuple[str, ...]] = {
    "diffusers": (f"diffusion_pytorch_model{SHARDS}", "diffusion_pytorch_model.safetensors"),
    "transformers": ("model.safetensors", f"model{SHARDS}"),
}
PICKLED: dict[Loader, tuple[str, ...]] = {
    "diffusers": ("diffusion_pytorch_model.bin",),
    "transformers": ("pytorch_model.bin", "pytorch_model.bin.index.json"),
}
# `model.fp16.safetensors`, its shards, and their index: only for `variant="fp16"`, which is never passed.
VARIANT = re.compile(
    r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.([\w-]+)\.safetensors(\.index\.json)?"
    r"|(diffusion_pytorch_model|model)\.safetensors\.index\.\w+\.json"
)
_ADAPTER = "adapter_config.json"
# Files that operating systems, editors and notebooks leave behind. On foreign disks, macOS adds a
# `._model.safetensors` to each model.safetensors.
_JUNK = re.compile(
    r"\..+|__MACOSX|Icon\r|(eh)?thumbs\.db|desktop\.ini|.*~|#.*#|.*\.(bak|orig|rej|sw[op]|tmp|part|crdownload)",
    re.IGNORECASE,
)
# Tokenizers of a processor, and chat templates, are in subfolders of the component.
MAX_FOLDER_DEPTH = 3


def select(
    names: Iterable[str],
    components: Iterable[Component],
    *,
    read: Callable[[str], bytes],
    where: str,
    allow_pickle: bool = False,
    without: Collection[str] = (),
    missing: Missing = ModelError,
) -> list[str]:
    """Return the files that loading reads, sorted.

    names: of all files, relative to the model. read: returns a small file's bytes. where: the model's folder,
    for messages. without: components whose weights come from elsewhere; their weights are ignored. missing:
    makes the error for weights and shards that are not among `names`. Raises ModelError for pickles, and
    weights besides the chosen ones.
    """
    names = set(names)
    inside: dict[str, set[str]] = {}  # by component
    for name in names:
        folder, *parts = name.split("/")
        is_inside = 0 < len(parts) < MAX_FOLDER_DEPTH and not any(part in ("", ".", "..") for part in parts)
        if is_inside and not is_junk(name):
            inside.setdefault(folder, set()).add("/".join(parts))
    chosen = [index_file(names)]
    for component, folder in [(each, folder) for each in components for folder in each.folders]:
        files, place = inside.get(folder, set()), f"{where}/{folder}"
        weights = []
        if folder not in without:
            weights = chosen_weights(
                component.loader, files, read, folder, place, allow_pickle=allow_pickle, missing=missing
            )
            _refuse_others(files, weights, place)
            if component.has_weights and not any(map(is_weights, weights)):
                raise missing(
                    f"{place} cannot be loaded: a {component.class_name} needs weights, but there is no "
                    "model.safetensors or diffusion_pytorch_model.safetensors, and there are no shards",
                    "fetch the model again; if it has only other variants, e.g. fp16, rename their files",
                )
        chosen += [f"{folder}/{name}" for name in [*weights, *filter(_is_config, files)]]
    if odd := [name for name in chosen if not name.isprintable()]:
        raise ModelError(f"{where}/{odd[0]!r} cannot be a file's name", "rename it, or fetch the model again")
    return sorted(chosen)


def is_junk(name: str) -> bool:
    """Return whether the system or a tool, not a person, made this file or a folder above it."""
    return any(_JUNK.fullmatch(part) for part in name.split("/"))


def is_weights(name: str) -> bool:
    return name.endswith((SAFETENSORS, *PICKLES))


def is_shard_index(name: str) -> bool:
    return any(part in name for part in SHARD_INDEXES)


def chosen_weights(
    loader: Loader | None,
    names: Collection[str],
    read: Callable[[str], bytes],
    folder: str,
    place: str,
    *,
    allow_pickle: bool = False,
    missing: Missing = ModelError,
) -> list[str]:
    """Return the weights of one component and their index, if any. read, folder, missing: as in `select`."""
    suffixes = [*ORDER[loader], *(PICKLED[loader] if allow_pickle else ())] if loader else []
    if name := next((name for name in suffixes if name in names), None):
        is_index = name.endswith(".json")
        weight_map = weight_map_of(read(f"{folder}/{name}"), f"{place}/{name}") if is_index else {}
        shards = sorted({*weight_map.values()})
        if absent := [shard for shard in shards if shard not in names]:
            raise missing(f"{place}/{absent[0]} is missing, although {name} names it", "fetch it again")
        return [name, *shards]
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles and allow_pickle:
        fix = f"rename it to {PICKLED[loader][0]}" if loader else "delete it"
        raise ModelError(f"{place}/{pickles[0]} cannot be loaded under that name", fix)
    if pickles:
        raise ModelError(
            f"{place}/{pickles[0]} is a pickle, which can run code when it is opened",
            "convert it to safetensors, or get the model from a place that has safetensors; "
            "if you trust where it comes from, set `model.allow_pickle: true`",
        )
    return []


def weight_map_of(content: bytes, where: str) -> dict[str, str]:
    """Return the shard of each weight. Raises ModelError if it is not an index that libraries read."""
    kind = ".bin" if ".bin." in where.rpartition("/")[2] else SAFETENSORS
    try:
        index = parse_json(content)
        weight_map: dict[str, str] = index["weight_map"]
        is_index = all(shard.endswith(kind) for shard in weight_map.values())
        has_metadata = isinstance(index.get("metadata"), dict)
    except (ValueError, LookupError, TypeError, AttributeError):
        is_index = has_metadata = False
    if not is_index:
        raise ModelError(f"{where} is not an index of shards", "fetch it again")
    if not has_metadata:
        problem = f"{where} has no mapping `metadata`, so libraries do not read it"
        raise ModelError(problem, 'add `"metadata": {}` to it, or fetch it again')
    return weight_map


def _refuse_others(names: Collection[str], chosen: Collection[str], place: str) -> None:
    """Raise ModelError for weights that are neither chosen nor marked as a variant.

    They have no effect here, where only hashed files are loaded, but a plain script might load them.
    """
    kinds = (SAFETENSORS, SHARDS)
    others = [n for n in names if n.endswith(kinds) and n not in chosen and not VARIANT.fullmatch(n)]
    others += [_ADAPTER] * (_ADAPTER in names)
    for name in sorted(others):
        if "/" not in name:
            loaded = f"{', '.join(sorted(chosen)[:2])} is loaded" if chosen else "nothing there is loaded"
            fix = "delete it; or if it is the right file, delete the others, and lock the model again"
            raise ModelError(f"{place}/{name} is next to the weights but is not loaded ({loaded})", fix)


def _is_config(name: str) -> bool:
    """Return whether it is a config or a tokenizer's file: anything but weights, code and prose."""
    is_other = name == _ADAPTER or is_shard_index(name) or is_weights(name)
    return not is_other and not name.endswith((*CODE, *PROSE, *OTHER_WEIGHTS))
