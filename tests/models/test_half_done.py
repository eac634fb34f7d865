"""Rows are taken off at random steps and go on in another renderer, bit for bit."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.render.half_done.half_done import HalfDone
from tests.tiny import SMALLEST, tiny

STEPS = (5, 4, 6)
PROMPTS = ("a red ball", "海", 'a sign that says "hello"')
REFINE = {"height": 32, "width": 32, "strength": 0.7}
# By name: the model, what rows are given, their scheduler and recipe, and forwards of one step.
CASES: dict[str, tuple[str, dict[str, Any], str | None, str, int]] = {
    "Wan": ("wan", {}, None, "generate", 2),
    "CogVideoX": ("cogvideox", {}, "cogvideox_dpm", "generate", 1),
    "Stable Diffusion": ("sd", {"eta": 0.5}, "ddim", "generate", 1),
    "HunyuanImage": ("hunyuan_image", {}, None, "generate", 2),
    "two calls": ("wan", REFINE, None, "refine", 2),
}


@functools.cache
def _model(name: str) -> Model:
    model = load_model(tiny(name), dtype="fp32")
    model.pipe.tokenizer_max_length = 32  # HunyuanImage's thousand tokens take most of the time
    return model


def _loaded_anew(name: str) -> Model:
    _model.cache_clear()
    return _model(name)


def _rows(name: str, given: dict[str, Any], scheduler: str | None, recipe: str) -> dict[str, Request]:
    return {
        f"{seed:032x}": Request(
            arguments={**SMALLEST[name], **given, "prompt": prompt, "num_inference_steps": steps},
            seed=seed,
            scheduler=scheduler,
            recipe=recipe,
        )
        for seed, (prompt, steps) in enumerate(zip(PROMPTS, STEPS, strict=True))
    }


def _renderer(model: Model, max_rows: int = 3, **options: Any) -> Renderer:
    return Renderer(model, Batching(max_rows=max_rows, min_gain=0), audit=Audit(every=0), **options)


def _ended(renderer: Renderer) -> dict[str, str | None]:
    """Return the digests of all clips of a renderer."""
    clips: dict[str, str | None] = {}
    while renderer.num_active:
        for clip in renderer.step():
            assert isinstance(clip, Clip), clip.traceback
            clips[clip.row_id] = clip.frames_sha256
    return clips


def _undisturbed(model: Model, rows: dict[str, Request], **options: Any) -> tuple[dict[str, Any], int]:
    """Return the digests of clips, each rendered alone, and the number of forwards."""
    renderer, forwards = _renderer(model, 1, **options), _Counted(model)
    for row_id, request in rows.items():
        renderer.submit(request, row_id)
    with intercept(model.denoisers(), forwards):
        return _ended(renderer), forwards.num


class _Counted:
    """Put around denoisers. num: their forwards."""

    def __init__(self, model: Model) -> None:
        self.num = 0

    def __call__(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.num += 1
        return forward(*args, **kwargs)


def _taken_off(renderer: Renderer, rows: dict[str, Request], num_steps: int) -> list[Any]:
    """Return what rows in company have come to after so many steps of the renderer."""
    for row_id, request in rows.items():
        renderer.submit(request, row_id)
    ended: list[Any] = []
    for _ in range(num_steps):
        ended += renderer.step()
    return ended + renderer.drain()


@pytest.mark.parametrize("case", CASES)
def test_rows_go_on_from_random_steps_with_the_bits_of_the_undisturbed_run(case: str) -> None:
    name, given, scheduler, recipe, per_step = CASES[case]
    rows = _rows(name, given, scheduler, recipe)
    clips, num_forwards = _undisturbed(_model(name), rows)
    draw = random.Random(case)
    for num_steps in draw.sample(range(1, 10), 2):
        first = _taken_off(_renderer(_model(name)), rows, num_steps)
        halves = [half for half in first if isinstance(half, HalfDone)]
        found = {clip.row_id: clip.frames_sha256 for clip in first if isinstance(clip, Clip)}
        assert len(first) == len(rows) and halves
        model = _loaded_anew(name)
        second, counted = _renderer(model, 1), _Counted(model)
        for half in halves:
            second.submit(half.request, half.row_id, half.checkpoint)
        with intercept(model.denoisers(), counted):
            found |= _ended(second)
        assert found == clips
        print(case, num_steps, num_forwards, counted.num, [len(half.checkpoint or b"") for half in halves])
