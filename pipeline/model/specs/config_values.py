"""Check the values that framefleet itself reads from a model's configs, which anybody may have written.

A component's class says whether a key of its config is one value or a list; this file says what the values
may be.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError, shown
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.registry import class_of
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.signature import members_of

# No known model has a tenth of this. A scheduler makes tables as long as its number of steps.
MOST = 1_000_000
_AGAIN = "download the model again"
_MAX_LEVELS = 16  # of resolution: each one halves the picture
# Entries of a config's lists. The longest known list, a noise schedule, has a tenth of this.
_MAX_LISTED = 10_000
Form = Literal["one", "list"]
_FORMS: Mapping[Any, Form] = {list: "list", tuple: "list", **dict.fromkeys((bool, int, float, str), "one")}


@dataclass(frozen=True, slots=True)
class Rule:
    is_right: Callable[[Any], bool]  # takes one value, or each value of a list
    words: str
    forms: tuple[Form, ...] = ("one",)  # the forms that any class may use

    def allows(self, value: Any, forms: tuple[Form, ...]) -> bool:
        if isinstance(value, list | tuple):
            return "list" in forms and 1 <= len(value) <= _MAX_LEVELS and all(map(self.is_right, value))
        return "one" in forms and self.is_right(value)

    def wanted(self, forms: tuple[Form, ...]) -> str:
        listed = f"a list of up to {_MAX_LEVELS}, each {self.words}"
        return " or ".join(words for form, words in (("one", self.words), ("list", listed)) if form in forms)


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST  # False for NaN


_WHOLE = f"a whole number from 1 to {MOST:,}"
_COUNT, _RATIO = Rule(_count, _WHOLE), Rule(lambda value: _number(value) and value == int(value) >= 1, _WHOLE)
_LEVELS, _PATCH = Rule(_count, _WHOLE, ("list",)), Rule(_count, _WHOLE, ("one", "list"))
_NUMBER = Rule(_number, f"a number up to {MOST:,}")
_FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
_TEXT = Rule(lambda value: isinstance(value, str), "a text")

NETWORK: Mapping[str, Rule] = {
    **dict.fromkeys(("block_out_channels", "encoder_block_out_channels", "dim_mult"), _LEVELS),
    **dict.fromkeys(("time_compression_ratio", "spatial_compression_ratio"), _RATIO),
    **dict.fromkeys(("scale_factor_spatial", "scale_factor_temporal"), _RATIO),
    **dict.fromkeys(("temporal_compression_ratio", "max_text_seq_length"), _RATIO),
    **dict.fromkeys(("sample_height", "sample_width", "sample_frames"), _COUNT),
    **dict.fromkeys(("num_frames", "motion_max_seq_length", "pos_embed_max_size"), _COUNT),
    **dict.fromkeys(("patch_size", "patch_size_t", "sample_size"), _PATCH),
    "spatio_temporal_scaling": Rule(lambda value: value in (0, 1), "true or false", ("list",)),
}
SCHEDULER: Mapping[str, Rule] = {
    **dict.fromkeys(("num_train_timesteps", "original_inference_steps"), _COUNT),
    **dict.fromkeys(("shift", "flow_shift", "shift_terminal"), _NUMBER),
    **dict.fromkeys(("prediction_type", "algorithm_type", "timestep_type", "time_shift_type"), _TEXT),
    **dict.fromkeys(("use_flow_sigmas", "use_dynamic_shifting", "stochastic_sampling"), _FLAG),
}
PIPELINE: Mapping[str, Rule] = {"expand_timesteps": _FLAG, "boundary_ratio": _NUMBER}
OTHERS: Mapping[str, Mapping[str, Rule]] = {"index": PIPELINE, "scheduler": SCHEDULER}


def check_values(configs: Configs, components: Mapping[str, tuple[str, str]], where: str) -> None:
    """Raise ModelError for a value that is impossible for its key. Null always means that it is not set.

    configs: by component, and model_index.json as "index". components: library and class of each.
    """
    for component, config in configs.items():
        for key, value in config.items():
            if _num_listed(value) > _MAX_LISTED:
                problem = f"{where}: {key} of {component} lists more than {_MAX_LISTED:,} values"
                raise ModelError(problem, _AGAIN)
        rules = OTHERS.get(component, NETWORK)
        if component == "scheduler":  # it makes lists and tables of any length in its config
            rules = {key: _NUMBER for key, value in config.items() if type(value) is int} | dict(rules)
        for key, rule in rules.items():
            value = config.get(key)
            if value is None or rule.allows(value, rule.forms):
                continue
            # Many classes take more than their annotations say, and pipelines read other keys too.
            component_class = components.get(component)
            forms = (*rule.forms, *(forms_of(*component_class).get(key, ()) if component_class else ()))
            if not rule.allows(value, forms):
                problem = f"{where}: {key} of {component} is {shown(value)}, but must be {rule.wanted(forms)}"
                raise ModelError(problem, _AGAIN)


def _num_listed(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_num_listed, value.values()))
    return len(value) + sum(map(_num_listed, value)) if isinstance(value, list | tuple) else 0


@disk_cached(TypeAdapter(dict[str, tuple[Form, ...]]), asks_libraries=True)
def forms_of(library: str, name: str) -> dict[str, tuple[Form, ...]]:
    """Return the forms of each parameter, from its annotation, or else from its default.

    Empty for classes that are neither diffusers' nor ours: their constructors take a config as a whole.
    """
    import diffusers

    made = class_of(library, name)
    if not isinstance(made, type) or not issubclass(made, diffusers.ConfigMixin):
        return {}
    forms_by_name = {}
    for parameter in inspect.signature(made.__init__).parameters.values():  # type: ignore[misc]
        annotation: Any = parameter.annotation
        if isinstance(annotation, str) or annotation is inspect.Parameter.empty:
            annotation = type(parameter.default)
        types = {typing.get_origin(member) or member for member in members_of(annotation)}
        if forms := sorted({_FORMS[made] for made in types if made in _FORMS}):
            forms_by_name[parameter.name] = tuple(forms)
    return forms_by_name
