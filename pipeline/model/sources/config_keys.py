"""What in a component's configs would lead its library elsewhere: to code, to the network, to other files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.model_index import read_object

# What torch itself has. Others are fetched from the hub as code (`org/name`), some in place of a package.
KERNELS = (None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
_KERNEL = (
    "a kernel that is not torch's own would be fetched",
    "take the key out; attention is chosen by `model.attention`",
)
_QUANTIZED = (
    "its weights are packed, and unpacked by whatever package it names",
    "use the model's plain weights, and quantise them here: `model.quantization`",
)
_OTHER_FILES = (
    "it names files that are not the component's own",
    "take the key out, with the files under their own names",
)
_CODE = ("it asks to run code of the model", "use a model made for diffusers, without code of its own")
# key: the values that change nothing, why the others are refused, and what to do
KEYS: Mapping[str, tuple[tuple[Any, ...], tuple[str, str]]] = {
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("_attn_implementation_internal", "kernel_config"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("experts_implementation", "_experts_implementation"), (KERNELS, _KERNEL)),
    **dict.fromkeys(("_experts_implementation_internal",), (KERNELS, _KERNEL)),
    **dict.fromkeys(("quantization_config", "compression_config"), ((None,), _QUANTIZED)),
    **dict.fromkeys(("transformers_weights", "gguf_file"), ((None,), _OTHER_FILES)),
    **dict.fromkeys(("audio_tokenizer", "audio_tokenizer_name_or_path"), ((None,), _OTHER_FILES)),
    "trust_remote_code": ((None, False), _CODE),
}
_MAX_SHOWN = 80


def check_configs(folder: Path, files: Iterable[str]) -> None:
    """Raise ModelError for a config among `files` that is damaged, or that leads elsewhere.

    `auto_map`, which names code, is let through: classes are named in full, so nobody reads it.
    """
    for file in files:
        if file.endswith("config.json"):
            for key, value in _pairs(read_object(folder / file)):
                _check(f"{folder / file}", key, value)


def _check(where: str, key: str, value: Any) -> None:
    if not key.isprintable():  # libraries print keys that they do not know, as they are
        raise ModelError(
            f"{where}: the key {key[:_MAX_SHOWN]!r} holds control characters", "take the key out"
        )
    harmless, (reason, fix) = KEYS.get(key, ((value,), ("", "")))
    if value not in harmless:
        raise ModelError(f"{where}: {key} is {repr(value)[:_MAX_SHOWN]}: {reason}", fix)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a config holds by name, at every depth."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _pairs(inner)
