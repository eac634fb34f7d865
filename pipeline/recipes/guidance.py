"""From the text `linear(7, 3)` in a guidance cell to a scale that changes from step to step of a pipeline.

The pipeline gets a Guidance instead of a number; it moves to its next value in the pipeline's own
`callback_on_step_end`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import RecipeError, Refused, shown
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.class_cache import disk_cached
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.check import coerce, out_of_range
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.recipes.second_model import call_parameters

GUIDANCE_ARGUMENTS = ("guidance_scale", "guidance_scale_2", "true_cfg_scale")
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*")

Numbers = tuple[float, ...]


def _progress(step: int, num_steps: int) -> float:
    return step / (num_steps - 1) if num_steps > 1 else 0.0


# By shape: how to write it, and a function from its numbers, a step and the number of steps to the scale.
_SHAPES: dict[str, tuple[str, Callable[[Numbers, int, int], float]]] = {
    "linear": ("linear(first, last)", lambda n, step, num: n[0] + (n[1] - n[0]) * _progress(step, num)),
    "cosine": (
        "cosine(first, last)",
        lambda n, step, num: n[1] + (n[0] - n[1]) * (1 + math.cos(math.pi * _progress(step, num))) / 2,
    ),
    "oscillating": ("oscillating(even, odd)", lambda n, step, num: n[step % 2]),
    "interval": (
        "interval(inside, start, end)",
        lambda n, step, num: n[0] if n[1] <= step / num < n[2] else 1.0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A guidance scale over the steps of a run.

    linear(a, b), cosine(a, b): from a at the first step to b at the last. oscillating(a, b): a at steps 0, 2,
    4, ... and b between them. interval(a, start, end): a where start <= step / num_steps < end, else 1.
    """

    shape: str
    numbers: Numbers

    def __str__(self) -> str:
        """Its canonical spelling, which is part of the row_id."""
        return f"{self.shape}({', '.join(map(repr, self.numbers))})"

    def value(self, step: int, num_steps: int) -> float:
        """Return the scale at `step`, from 0. At step 0 it is the same for every `num_steps`."""
        return _SHAPES[self.shape][1](self.numbers, step, num_steps)

    @property
    def highest(self) -> float:
        """The largest scale of the run, near enough to say whether there is guidance at all."""
        return max(self.numbers[:1] if self.shape == "interval" else self.numbers)


def parse_guidance(text: str) -> Schedule | Refused:
    call = _CALL.fullmatch(text)
    usages = ", ".join(usage for usage, _ in _SHAPES.values())
    if not call:
        return Refused(reason="it is neither a number nor a schedule", fix=f"use a number, or {usages}")
    shape = call[1]
    if shape not in _SHAPES:
        near = nearest(shape, _SHAPES)
        fix = f"did you mean {near[0]}?" if near else f"use {usages}"
        return Refused(reason=f"there is no schedule {shown(shape)}", fix=fix)
    cells = [coerce(cell, "float") for cell in call[2].split(",")]
    numbers = tuple(float(cell) for cell in cells if not isinstance(cell, Refused))
    usage = _SHAPES[shape][0]
    if len(numbers) != len(cells) or len(cells) != usage.count(",") + 1:
        return Refused(reason=f"{shape} takes {usage.count(',') + 1} finite numbers", fix=f"write {usage}")
    for number in numbers:
        if words := out_of_range("guidance_scale", number):
            return Refused(reason=f"guidance must be {words}", fix=f"use numbers {words}")
    if shape == "interval" and not numbers[1] < numbers[2] <= 1:
        return Refused(reason="start and end are parts of the run", fix="use 0 <= start < end <= 1")
    return Schedule(shape=shape, numbers=numbers)


def _of_highest(compare: Callable[[float, float], bool]) -> Callable[[Guidance, float], bool]:
    return lambda guidance, other: compare(guidance.schedule.highest, other)


class Guidance:
    """A scale in a pipeline's arithmetic: `*`, `+` and `-` take the value of this step.

    Comparisons take the highest of the run, so that guidance is on or off for all of it. It is not a float
    and has no `__float__`, so that code which would use one value for the whole run fails.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.value = schedule.value(0, 1)

    def end_step(self, step: int, num_steps: int) -> None:
        """Move to the next step; after the last, to the first again, for the recipe's next call."""
        self.value = self.schedule.value((step + 1) % num_steps, num_steps)

    def __mul__(self, other: Any) -> Any:
        return self.value * other

    def __rmul__(self, other: Any) -> Any:
        return other * self.value

    def __add__(self, other: Any) -> Any:
        return self.value + other

    def __sub__(self, other: Any) -> Any:
        return self.value - other

    __gt__, __ge__, __lt__, __le__ = map(_of_highest, (operator.gt, operator.ge, operator.lt, operator.le))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        """Use the value if torch gets the object itself, as in `tensor * scale` or `lerp`."""
        plain = [arg.value if isinstance(arg, Guidance) else arg for arg in args]
        by_name = {k: arg.value if isinstance(arg, Guidance) else arg for k, arg in (kwargs or {}).items()}
        return function(*plain, **by_name)


def open_guidance(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments with schedules as objects, and the callback that drives them if there are any."""
    texts = {name: arguments[name] for name in GUIDANCE_ARGUMENTS if isinstance(arguments.get(name), str)}
    if not texts:
        return arguments
    scales = {}
    for name, text in texts.items():
        schedule = parse_guidance(text)
        if isinstance(schedule, Refused):
            raise RecipeError(f"{name} is {text!r}, but {schedule.reason}", schedule.fix)
        scales[name] = Guidance(schedule)

    def on_step_end(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        for scale in scales.values():
            scale.end_step(step, pipe.num_timesteps)
        return kwargs

    return {**arguments, **scales, "callback_on_step_end": on_step_end}


def is_schedule(name: str, value: Any) -> bool:
    """Return whether a cell is meant as a schedule: text with a bracket, in a column of a guidance scale."""
    if not isinstance(value, str) or "(" not in value:
        return False
    return "guidance_scale" in name or name in GUIDANCE_ARGUMENTS


def check_schedule(name: str, text: str, *, class_name: str, configs: Configs) -> str | Refused:
    """Return the canonical spelling of a schedule for the argument `name` of a pipeline's call."""
    if reason := _refusal(name, class_name, configs):
        takes_other = name == "guidance_scale" and "true_cfg_scale" in call_parameters(class_name)
        other = "; `true_cfg_scale`, with a negative prompt, takes a schedule" if takes_other else ""
        return Refused(reason=reason, fix=f"use a number{other}")
    schedule = parse_guidance(text)
    return schedule if isinstance(schedule, Refused) else str(schedule)


@disk_cached(TypeAdapter(str | None), asks_libraries=True)
def _refusal(name: str, class_name: str, configs: Configs) -> str | None:
    parameters, short = call_parameters(class_name), class_name.removesuffix("Pipeline")
    if name in ("min_guidance_scale", "max_guidance_scale"):
        return f"{short} sets a scale for each frame, the same at every step"
    if name not in GUIDANCE_ARGUMENTS:
        return f"a schedule can be given for {', '.join(GUIDANCE_ARGUMENTS)}"
    if "callback_on_step_end" not in parameters or not hasattr(class_named(class_name), "num_timesteps"):
        return f"{short} does not say which step it is at"
    is_input = "true_cfg_scale" in parameters or family_of(class_name).reads_guidance_once
    if name == "guidance_scale" and (is_input or configs.get("unet", {}).get("time_cond_proj_dim")):
        return f"{short} hands it to its network once, before the first step"
    return None
