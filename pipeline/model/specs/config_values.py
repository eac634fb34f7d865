"""What framefleet itself reads of a model's configs, and what it may be there. Anybody wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from framefleet.pipeline.errors import ModelError

_Configs = Mapping[str, Mapping[str, Any]]
Test = Callable[[Any], bool]

# No known model has a tenth of it; and a scheduler makes tables as long as its number of steps.
MOST = 1_000_000
WHOLE, NUMBER = f"a whole number from 1 to {MOST:,}", f"a number up to {MOST:,}"
_MAX_SHOWN = 80  # characters
_MAX_LEVELS = 16  # of resolution: each one halves the picture


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST


def _ratio(value: Any) -> bool:
    return _number(value) and value >= 1 and value == int(value)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST  # which NaN is not


def _levels(value: Any) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= _MAX_LEVELS


def _counts(value: Any) -> bool:
    return _count(value) or (_levels(value) and all(_count(part) for part in value))


def _flags(value: Any) -> bool:
    return _levels(value) and all(part in (0, 1) for part in value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


NETWORK: Mapping[str, tuple[Test, str]] = {
    **dict.fromkeys(("block_out_channels", "encoder_block_out_channels", "dim_mult"), (_levels, "a list")),
    **dict.fromkeys(("time_compression_ratio", "spatial_compression_ratio"), (_ratio, WHOLE)),
    **dict.fromkeys(("scale_factor_spatial", "scale_factor_temporal"), (_ratio, WHOLE)),
    **dict.fromkeys(("temporal_compression_ratio", "max_text_seq_length"), (_ratio, WHOLE)),
    **dict.fromkeys(("sample_height", "sample_width", "sample_frames"), (_count, WHOLE)),
    **dict.fromkeys(("num_frames", "motion_max_seq_length", "pos_embed_max_size"), (_count, WHOLE)),
    **dict.fromkeys(("patch_size", "patch_size_t", "sample_size"), (_counts, f"{WHOLE}, or a list of them")),
    "spatio_temporal_scaling": (_flags, "a list of true and false"),
}
SCHEDULER: Mapping[str, tuple[Test, str]] = {
    **dict.fromkeys(("num_train_timesteps", "original_inference_steps"), (_count, WHOLE)),
    **dict.fromkeys(("shift", "flow_shift", "shift_terminal"), (_number, NUMBER)),
    **dict.fromkeys(
        ("prediction_type", "algorithm_type", "timestep_type", "time_shift_type"), (_text, "a text")
    ),
    **dict.fromkeys(
        ("use_flow_sigmas", "use_dynamic_shifting", "stochastic_sampling"), (_flag, "true or false")
    ),
}
PIPELINE: Mapping[str, tuple[Test, str]] = {
    "expand_timesteps": (_flag, "true or false"),
    "boundary_ratio": (_number, NUMBER),
}
OTHERS: Mapping[str, Mapping[str, tuple[Test, str]]] = {"index": PIPELINE, "scheduler": SCHEDULER}


def check_values(configs: _Configs, where: str) -> None:
    """Raise ModelError for a value that cannot be what its name says. Null always means: not given.

    configs: by component, and model_index.json as "index".
    """
    for component, config in configs.items():
        for key, (is_right, wanted) in OTHERS.get(component, NETWORK).items():
            value = config.get(key)
            if value is not None and not is_right(value):
                raise ModelError(
                    f"{where}: {key} of {component} is {repr(value)[:_MAX_SHOWN]}, and not {wanted}",
                    "download the model again",
                )
