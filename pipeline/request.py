"""One clip to render, as plain values; and what its arguments can be."""

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
    """Decorate a dataclass with slots, of two fields or more: look its fields up once.

    Values that are sent by the million between driver and workers are pickled in a third of the time: frozen
    dataclasses with slots look up their own fields for each value that is pickled or unpickled.
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


MIN_FPS, MAX_FPS = 0.1, 1000.0  # what containers can say and players can play
_FALLBACK_FPS = 10.0  # diffusers' own default where nobody says anything (export_to_video)
MAX_SEED = 2**63 - 1  # the record's column is int64; torch itself takes up to 2**64 - 1


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One clip to render: what a plain diffusers call would be given."""

    # Keyword arguments of the pipeline's `__call__`: JSON values only, and tuples where it has those. An
    # image or a video is its path or URL, and once it was checked {"uri": ..., "sha256": ...}; several images
    # are a list of these.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0  # 0 to 2**63 - 1
    # Diffusers' class name or a short name ("euler", "ddim", ...); None: the model's own.
    scheduler: str | None = None
    recipe: str = "generate"  # "generate" or "module:function"
    # Frames per second of the clip; None: the job's, or else the model's native rate.
    fps: float | None = None
    model: str = ""  # its name in a job of several `models`, else ""; decides nothing: the renderer has one

    def generator(self) -> torch.Generator:
        """Return a fresh generator at this row's seed; on the CPU, so that noise is the same on every GPU."""
        import torch

        return torch.Generator("cpu").manual_seed(self.seed)


def _explained(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor whose error says where arguments of the pipeline belong."""

    @wraps(init)
    def explained(self: Request, *values: Any, **fields: Any) -> None:
        try:
            init(self, *values, **fields)
        except TypeError:
            names = {one.name for one in dataclass_fields(Request)}
            if not (others := {name: value for name, value in fields.items() if name not in names}):
                raise
            raise TypeError(
                f"a Request has no {min(others)!r}; arguments of the pipeline go into one mapping: "
                f"Request(arguments={others!r}, seed=...)"
            ) from None

    return explained


Request.__init__ = _explained(Request.__init__)  # type: ignore[method-assign]  # keeps its signature


def one_step(request: Request) -> Request:
    """Return the request with a single step; with `strength`, with as many as leave one."""
    arguments = {k: value for k, value in request.arguments.items() if k not in ("timesteps", "sigmas")}
    if "num_inference_steps" in arguments:
        arguments["num_inference_steps"] = ceil(1 / (arguments.get("strength") or 1))
    return replace(request, arguments=arguments)


def clip_fps(*rates: float | None) -> float:
    """Return the first rate that is given: the row's, the job's, the model's own; and else diffusers'."""
    return next((rate for rate in rates if rate), _FALLBACK_FPS)


def is_input(value: Any) -> bool:
    """Tell whether an argument is an image or a video."""
    return isinstance(value, Mapping) and isinstance(value.get("uri"), str)


def inputs_in(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the images or videos that an argument names: none, one, or those of a list."""
    parts = value if isinstance(value, list) else [value]
    return tuple(part for part in parts if is_input(part))


def each_input(value: Any, change: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return an argument with its images and videos changed, each by itself; any other as it is."""
    if isinstance(value, list):
        return [change(part) if is_input(part) else part for part in value]
    return change(value) if is_input(value) else value


def is_model(value: Any) -> bool:
    """Tell whether an argument is a second model."""
    return isinstance(value, Mapping) and isinstance(value.get("digest"), str)


def models_in(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of a row's second models."""
    return sorted(value["name"] for value in arguments.values() if is_model(value))
