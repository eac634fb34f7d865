"""Refuse configs that lead a library elsewhere, or make networks far larger than their weights.

Elsewhere means to code, to the network, or to other files. Only its class knows how large a network gets, so
it is built on the meta device first, where tensors take no memory. If a config has large numbers, a process
with bounded memory does this, because lists and NumPy arrays take memory even there.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import filterfalse
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError, shown
from framefleet.pipeline.guards.sandbox import Ended, bound_memory
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.sources.headers import HEAD_BYTES, foreign, read_first
from framefleet.pipeline.model.sources.packing import KEY, TIMES_PACKED, check_packing
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.model.specs.model_index import read_object

_MAX_BYTES = 4 << 30  # of the process in addition to its libraries, for lists and NumPy arrays
# A weight is built in 4 bytes and may be stored in one. Tables of positions, which are in no file, take less.
_TIMES_STORED, _MAX_TABLES_BYTES = 4, 2 << 30
# The square of a config's largest number; for transformers, whose vocabulary is large, the product of the two
# largest. Only networks above this are built in a separate process, which takes seconds to start.
_SMALL = 20_000_000
# torch's own kernels. Others are downloaded from the hub as code (`org/name`), some in place of a package.
KERNELS = (None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
_KERNEL = (
    "a kernel that is not torch's own would be downloaded",
    "remove the key; `model.attention` sets the kernel",
)
_QUANTIZED = (
    "its weights are compressed, and unpacked by any package that it names",
    "use the model's plain weights, and quantise them with `model.quantization`",
)
_OTHER_FILES = (
    "it names files that are not the component's own",
    "remove the key, and give the files their usual names",
)
_CODE = ("it asks to run code of the model", "use a model for diffusers without its own code")
_Why = tuple[str, str]
# key: (harmless values, (why others are refused, fix))
KEYS: Mapping[str, tuple[tuple[Any, ...], _Why]] = {
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("_attn_implementation_internal", "kernel_config"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("experts_implementation", "_experts_implementation"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("_experts_implementation_internal",), (KERNELS, _KERNEL)),
    "compression_config": ((None,), _QUANTIZED),
    **dict.fromkeys(("transformers_weights", "gguf_file"), ((None,), _OTHER_FILES)),
    "configuration_files": (
        (None, []),
        _OTHER_FILES,
    ),  # read instead of config.json
    **dict.fromkeys(("audio_tokenizer", "audio_tokenizer_name_or_path"), ((None,), _OTHER_FILES)),
    # For tokenizers: sentencepiece's model, options of Japanese analysers, and positional arguments.
    **dict.fromkeys(("model_file", "model_proto"), ((None,), _OTHER_FILES)),
    **dict.fromkeys(("mecab_kwargs", "sudachi_kwargs", "jumanpp_kwargs"), ((None, {}), _OTHER_FILES)),
    "init_inputs": ((None, []), _OTHER_FILES),
    "trust_remote_code": ((None, False), _CODE),
}
_NOT_THAT = (
    "it is not a name of this kind, and libraries call whatever has the name",
    "correct it, or fetch the model again",
)
# transformers looks these names up among all its exports, functions included, and opens these files anywhere.
_PROCESSOR = re.compile(r"\w+(ImageProcessor|VideoProcessor|AudioProcessor|FeatureExtractor)(Fast|Pil)?")
_NAMES: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(("image_processor_type", "video_processor_type", "audio_processor_type"), _PROCESSOR),
    "feature_extractor_type": _PROCESSOR,
    "tokenizer_class": re.compile(r"\w*Tokenizer(Fast)?|\w+Backend"),
    "processor_class": re.compile(r"\w*Processor"),
    "fast_tokenizer_files": re.compile(r"tokenizer[\w.]*\.json"),
}
# Tokenizers and processors open files that are the value of many keys, but not of these two.
_OPENING = ("tokenizer_config.json", "special_tokens_map.json", "processor_config.json")
_NOTES = ("name_or_path", "special_tokens_map_file")
# The keys of this file become arguments of the tokenizer, like those of its config.
_TOKENS, _TOKEN = "special_tokens_map.json", re.compile(r"\w*tokens?")


def check_sizes(
    folder: Path, components: Iterable[Component], sizes: Mapping[str, int], *, where: str, is_built: bool
) -> None:
    """Raise ModelError for a config whose network takes far more bytes than its weights.

    folder: has the configs. sizes: of the model's files. where: the model, for messages. is_built: this
    process will build the networks anyway, so configs with small numbers are checked too.
    """
    stored: Counter[str] = Counter()
    for file in filter(is_weights, sizes):
        stored[file.rpartition("/")[0]] += sizes[file]
    with LIBRARY_PROCESS.use():
        for component in components:
            class_name = component.network_class
            for name in component.folders if component.has_weights else ():
                path = folder / name / "config.json"
                config = read_object(path) if path.is_file() else {}
                times = TIMES_PACKED if config.get(KEY) else _TIMES_STORED
                most = times * stored[name] + _MAX_TABLES_BYTES
                numbers = [(key, value) for key, value in _values(config) if type(value) is int]
                first, second = heapq.nlargest(2, [1, 1, *(number for _, number in numbers)])
                problem, question = None, (component.library, class_name, config, most)
                if first * (first if component.library == "diffusers" else second) > _SMALL:
                    try:
                        problem = _size_problem_in_process(*question)
                    except Ended as error:  # not cached: there may be more memory later
                        problem = f"cannot be built ({error})"
                elif is_built:
                    problem = _size_problem(*question)
                if problem:
                    largest = heapq.nlargest(3, numbers, key=lambda number: number[1])
                    values = ", ".join(f"{key} {value}" for key, value in largest)
                    raise ModelError(
                        f"{where}/{name}/config.json: {class_name} with these values {problem}, but "
                        f"its weights have {stored[name]:,} bytes; the largest values are {values}",
                        "correct the config, or download the model again",
                    )


def _values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) at every depth of a config, with keys like a.b; a list's values have its key."""
    yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _values(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, key)


@disk_cached(TypeAdapter(str | None))
def _size_problem_in_process(
    library: str, class_name: str, config: Mapping[str, Any], most: int
) -> str | None:
    """Return the result of `_size_problem`, computed in a process with bounded memory."""
    return LIBRARY_PROCESS.ask(_size_problem, library, class_name, config, most, True)


def _size_problem(
    library: str, class_name: str, config: Mapping[str, Any], most: int, is_bounded: bool = False
) -> str | None:
    """Return why a network is too large: one tensor, or all of them, take more than `most` bytes.

    None if it is not, or if it cannot be built: loading it then shows the library's error.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from framefleet.pipeline.model.sources.verified_folder import alone, bounded_modules

    def check(size: int) -> None:
        if size > most:
            raise MemoryError(f"takes at least {size:,} bytes")

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is typed in part
        """Checks what each operation returns, because tables are not always buffers."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                check(made.untyped_storage().nbytes())
            return made

    if is_bounded:
        class_of(library, class_name)  # imported before memory is bounded
        bound_memory(_MAX_BYTES)
    try:
        kind = class_of(library, class_name)
        with alone(), bounded_modules(Path(class_name)), torch.device("meta"), Counting():  # type: ignore[no-untyped-call]
            if hasattr(kind, "from_config"):  # from diffusers
                network = kind.from_config(config)
            else:
                network = kind(kind.config_class.from_dict(config))
        check(sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())))
    except MemoryError as error:
        return str(error) or f"takes more than {_MAX_BYTES >> 30} GiB"
    except Exception:
        pass
    return None


def check_configs(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a config among `files` that is damaged, or that leads elsewhere.

    Also for other small files that are missing, e.g. a tokenizer that is a pointer of Git LFS. `auto_map`,
    which names code, is not read by anyone, because classes are named in full.
    """
    for file in files:
        kind = None if is_weights(file) else foreign(read_first(folder / file, HEAD_BYTES))
        may_be_empty = not file.endswith(".json")  # e.g. a list of merges
        if kind and not (may_be_empty and (folder / file).stat().st_size == 0):
            raise ModelError(f"{folder / file} {kind[0]}", kind[1])
        if file.endswith(("config.json", _TOKENS)):
            where = f"{folder / file}"
            config = read_object(folder / file)
            if file.endswith(_TOKENS) and (other := next(filterfalse(_TOKEN.fullmatch, config), None)):
                raise ModelError(f"{where}: {shown(other)} is not a token", "remove the key")
            for name, value in _values(config):
                key = name.rpartition(".")[2]
                if not name.isprintable():  # libraries print unknown keys unescaped
                    problem = f"{where}: the key {shown(name)} contains control characters"
                    raise ModelError(problem, "remove the key")
                if key == KEY and value is not None:
                    check_packing(where, value)
                if why := _refusal(key, value, opens=file.endswith(_OPENING)):
                    raise ModelError(f"{where}: {key} is {shown(value)}: {why[0]}", why[1])


def _refusal(key: str, value: Any, *, opens: bool) -> _Why | None:
    """Return (why, fix) for a refused value of a config. opens: whether libraries open files it names."""
    harmless, why = KEYS.get(key, ((value,), ("", "")))
    if value not in harmless:
        return why
    if isinstance(value, str):
        if key in _NAMES and not _NAMES[key].fullmatch(value):
            return _NOT_THAT
        may_be_path = "/" in value or key.startswith(("vocab", "merges"))
        is_read = opens and may_be_path and not key.endswith(_NOTES)
        if is_read and os.path.exists(value) and not os.path.isdir(value):
            return _OTHER_FILES
    return None
