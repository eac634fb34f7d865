"""Rows of tiny models with options of `model:`, and what a script renders with the same calls by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch

from framefleet import Batching, Clip, Model, Request
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order, unaudited

GROWING = Batching(max_rows=3, min_gain=0)


def nothing(pipe: Any) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An option, and what a script does in its place: when it loads, once after, and before each row."""

    options: dict[str, Any]
    model: str = "wan"
    loading: dict[str, Any] = field(default_factory=dict)
    once: Callable[[Any], Any] = nothing
    cache: Callable[[Any, int], Any] | None = None
    changes_frames: bool = True
    more: dict[str, Any] = field(default_factory=dict)


def requests(model: str = "wan", **more: Any) -> list[Request]:
    prompts = ("a red ball", "一只猫")
    return [
        Request(
            arguments=SMALLEST[model] | {"prompt": prompts[i % 2], "num_inference_steps": 5 + i % 2} | more,
            seed=i,
        )
        for i in range(4)
    ]


def rendered(model: Model, rows: list[Request], batching: Batching = GROWING) -> list[Clip]:
    return clips_in_order(unaudited(model, batching), rows)


def by_hand(case: Case, rows: list[Request]) -> Iterator[str]:
    """What a script without framefleet renders."""
    kind = type(plain(case.model))
    pipe = kind.from_pretrained(tiny(case.model), dtype=torch.float32, **case.loading)
    case.once(pipe)
    denoisers = [pipe.transformer, *([pipe.transformer_2] if case.model == "wan_moe" else [])]
    for row in rows:
        for denoiser in denoisers if case.cache else ():
            denoiser.enable_cache(case.cache(pipe, row.arguments["num_inference_steps"]))  # type: ignore[misc]
        yield digest(pipe, row)
        for denoiser in denoisers if case.cache else ():
            denoiser.disable_cache()


def plain(model: str) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(tiny(model), dtype=torch.float32)


def digest(pipe: Any, row: Request) -> str:
    output = pipe(**row.arguments, generator=row.generator(), output_type="np")
    return frames_sha256(to_frames(output))
