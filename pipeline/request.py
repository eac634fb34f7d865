"""One clip to render, as plain values, and the kinds of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields as dataclass_fields, replace
from functools import wraps
from math import ceil
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Sent = TypeVar("Sent")


def quickly_pickled(kind: type[Sent]) -> type[Sent]:
    """Decorate a slotted dataclass of two or more fields, so that pickling looks its fields up only once.

    Frozen slotted dataclasses look up their fields for each value that is pickled or unpickled. Without this,
    pickling the millions of values between driver and workers takes three times as long.
    """
    names = tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    setters = [kind.__dict__[name].__set__ for name in names]

    def set_state(value: Sent, state: Iterable[Any]) -> None:
        for setter, content in zip(setters, state, strict=True):
            setter(value, content)

    values_in = attrgetter(*names)
    kind.__getstate__ = lambda value: values_in(value)  # type: ignore[method-assign, assignment]
    kind.__setstate__ = set_state  # type: ignore[attr-defined]
    return kind


MIN_FPS, MAX_FPS = 0.1, 1000.0  # what containers can store and players can play
_FALLBACK_FPS = 10.0  # diffusers' own default (export_to_video)
MAX_SEED = 2**63 - 1  # the record's column is int64; torch itself takes up to 2**64 - 1


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One clip to render: what a plain diffusers call would be given."""

    # Keyword arguments of the pipeline's `__call__`: only JSON values, and tuples where it takes those. An
    # image or a video is a path or URL, and once checked {"uri": ..., "sha256": ...}; several images are a
    # list of these.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0  # 0 to 2**63 - 1
    # Diffusers' class name or a short name ("euler", "ddim", ...); None: the model's own.
    scheduler: str | None = None
    recipe: str = "generate"  # "generate" or "module:function"
    # Frames per second of the clip; None: the job's, or else the model's native rate.
    fps: float | None = None
    model: str = ""  # its name in a job with several `models`, else ""; the renderer ignores it

    def generator(self) -> torch.Generator:
        """Return a new generator with this row's seed, on the CPU: noise is then the same on every GPU."""
        import torch

        return torch.Generator("cpu").manual_seed(self.seed)


def _explained(init: Callable[..., None]) -> Callable[..., None]:
    """Return the constructor with an error that explains where the pipeline's arguments belong."""

    @wraps(init)
    def explained(self: Request, *values: Any, **fields: Any) -> None:
        try:
            init(self, *values, **fields)
        except TypeError:
            names = {each.name for each in dataclass_fields(Request)}
            if not (others := {name: value for name, value in fields.items() if name not in names}):
                raise
            raise TypeError(
                f"Request has no field {min(others)!r}; pass arguments of the pipeline in one mapping: "
                f"Request(arguments={others!r}, seed=...)"
            ) from None

    return explained


Request.__init__ = _explained(Request.__init__)  # type: ignore[method-assign]  # keeps its signature


def one_step(request: Request) -> Request:
    """Return the request with a single step; with `strength`, with as many steps as leave one to do."""
    arguments = {k: value for k, value in request.arguments.items() if k not in ("timesteps", "sigmas")}
    if "num_inference_steps" in arguments:
        arguments["num_inference_steps"] = ceil(1 / (arguments.get("strength") or 1))
    return replace(request, arguments=arguments)


def clip_fps(*rates: float | None) -> float:
    """Return the first rate that is set: the row's, the job's or the model's; else diffusers' default."""
    return next((rate for rate in rates if rate), _FALLBACK_FPS)


def is_input(value: Any) -> bool:
    """Return whether an argument is an image or a video."""
    return isinstance(value, Mapping) and isinstance(value.get("uri"), str)


def inputs_in(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the images or videos that an argument names: none, one, or those of a list."""
    parts = value if isinstance(value, list) else [value]
    return tuple(part for part in parts if is_input(part))


def each_input(value: Any, change: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return an argument with each of its images and videos changed; others are returned unchanged."""
    if isinstance(value, list):
        return [change(part) if is_input(part) else part for part in value]
    return change(value) if is_input(value) else value


def is_model(value: Any) -> bool:
    """Return whether an argument is a second model."""
    return isinstance(value, Mapping) and isinstance(value.get("digest"), str)


def models_in(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of a row's second models."""
    return sorted(value["name"] for value in arguments.values() if is_model(value))
