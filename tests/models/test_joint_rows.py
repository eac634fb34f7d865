"""In fast mode, one call of a pipeline renders rows alike in all but prompts and seed, where it can."""

from __future__ import annotations

import copy
import functools
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from framefleet import Batching, Clip, HalfDone, Model, Renderer, Request
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.render.fused.joint_calls import JointCall, joined_rows
from tests.long import long_but
from tests.tiny import SMALLEST
from tests.unaudited import all_outcomes, clips_in_order, loaded, unaudited

NUM_ROWS = 4
FAST = Batching(mode="fast", min_gain=0, max_rows=NUM_ROWS, remember=False)
PROMPTS = ("a red ball", "a paper boat by the sea at night", "rain", "two foxes in the snow")
# Prompts of the first are padded to a fixed length, those of the others to the longest.
PADDED, LONGEST = ("wan", "cogvideox", "sd", "flux", "ltx"), ("cogview4",)


def _rows(name: str = "wan", prompts: tuple[str, ...] = PROMPTS, **more: Any) -> list[Request]:
    given = SMALLEST[name] | more
    texts = [prompts[seed % len(prompts)] for seed in range(NUM_ROWS)]
    return [Request(arguments=given | {"prompt": text}, seed=seed) for seed, text in enumerate(texts)]


@contextmanager
def _counted(model: Model) -> Iterator[Counter[str]]:
    """Count calls of a pipeline and steps of its scheduler in a block."""
    counts = Counter[str]()
    with ExitStack() as stack:
        for kind, method in ((type(model.pipe), "__call__"), (type(model.pipe.scheduler), "step")):
            original = getattr(kind, method)

            def counted(*args: Any, original: Any = original, method: str = method, **kwargs: Any) -> Any:
                counts[method] += 1
                return original(*args, **kwargs)

            around = functools.wraps(original)(counted)
            stack.enter_context(mock.patch.object(kind, method, around))
        yield counts


def _are_as_alone(model: Model, clips: list[Clip]) -> bool:
    """Whether clips differ from those of plain calls by rounding alone."""
    judge = unaudited(model)
    for clip in clips:
        plain = judge.render_plainly(clip.request, clip.row_id)
        assert isinstance(plain, Clip), plain
        away = np.abs(np.asarray(clip.frames, np.float32) - np.asarray(plain.frames, np.float32))
        if clip.frames is None or away.mean() >= 0.5 or clip.extras.values != plain.extras.values:
            return False
    return True


@pytest.mark.parametrize("name", long_but([*PADDED, *LONGEST], "wan", "cogvideox", "sd", "cogview4"))
@pytest.mark.parametrize("are_mixed", [False, True])
def test_rows_of_one_call_are_those_of_calls_of_their_own(name: str, are_mixed: bool) -> None:
    model, renderer = loaded(name), unaudited(loaded(name), FAST)
    rows = _rows(name, PROMPTS if are_mixed else PROMPTS[:1])
    clips_in_order(renderer, rows)  # in which it is tried
    with _counted(model) as counts:
        clips = clips_in_order(renderer, rows)
    assert _are_as_alone(model, clips)
    num_calls = NUM_ROWS if are_mixed and name in LONGEST else 1
    assert counts["__call__"] == num_calls
    assert counts["step"] % num_calls == 0
    assert all(clip.batch_size == NUM_ROWS for clip in clips) or num_calls > 1
    assert all(clip.seconds[part] > 0 for clip in clips for part in ("encode_s", "denoise_s", "decode_s"))


def test_prompts_that_are_padded_to_other_lengths_than_in_the_trial_are_calls_of_their_own() -> None:
    """CogView4 pads to sixteen tokens, and on: two prompts of one such length say nothing of those of two."""
    model, near, far = loaded("cogview4"), ("a fox", "a fox walks"), ("a fox", "a fox walks " * 9)
    with mock.patch.object(model.pipe.tokenizer, "padding_side", "left"):  # as the real one
        renderer = unaudited(model, FAST)
        for prompts in (PROMPTS[:1], near):
            for _ in range(10):  # until both kinds have been tried
                clips_in_order(renderer, _rows("cogview4", prompts))
        for prompts, num_calls in (
            (near, 1),
            (far, 3),
            (far, 2),
            (near, 2),
        ):  # the first of the three is refused
            with _counted(model) as counts:
                clips = clips_in_order(renderer, _rows("cogview4", prompts))
            assert counts["__call__"] == num_calls and _are_as_alone(model, clips)


@pytest.mark.parametrize(
    ("mode", "max_rows", "more"),
    [("exact", 4, {}), ("fast", 3, {}), ("fast", 4, {"guidance_scale": "linear(7, 3)"})],
)
def test_rows_are_calls_of_their_own_in_exact_mode_and_where_there_is_more_to_them(
    mode: Any, max_rows: int, more: dict[str, Any]
) -> None:
    renderer = unaudited(loaded("wan"), replace(FAST, mode=mode, max_rows=max_rows))
    with _counted(loaded("wan")) as counts:
        clips_in_order(renderer, _rows(**more))
    assert counts["__call__"] == NUM_ROWS


class Mixing(WanPipeline):
    """Rows get a little of each other."""

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        latents = super().prepare_latents(*args, **kwargs)
        return latents + 0.05 * latents.mean(0, keepdim=True)


class Refusing(WanPipeline):
    """Takes no lists of generators."""

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, list) for value in (*args, *kwargs.values())):
            raise ValueError("one generator, please")
        return super().prepare_latents(*args, **kwargs)


class Failing(WanPipeline):
    """Fails for more rows than are tried."""

    def prepare_latents(self, batch_size: int, *args: Any, **kwargs: Any) -> Any:
        if batch_size > 2:
            raise ValueError("at most two rows")
        return super().prepare_latents(batch_size, *args, **kwargs)


class Full(WanPipeline):
    """Has no memory for the frames of several rows."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__call__(*args, **kwargs)
        if len(kwargs["prompt"]) == NUM_ROWS and isinstance(kwargs["prompt"], list):
            raise torch.OutOfMemoryError("frames do not fit")
        return output


def _of_class(kind: type[WanPipeline]) -> Model:
    pipe = copy.copy(loaded("wan").pipe)
    pipe.__class__ = kind
    return replace(loaded("wan"), pipe=pipe)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Mixing, "transformer is given or returns something else"),
        (Refusing, "one generator, please"),
        (Failing, "at most two rows"),
        (Full, "frames do not fit"),
    ],
)
def test_rows_of_a_pipeline_that_does_not_take_several_are_calls_of_their_own(
    kind: type[WanPipeline], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = _of_class(kind)
    renderer = unaudited(model, FAST)
    with caplog.at_level(logging.INFO, "framefleet"):
        clips = clips_in_order(renderer, _rows())
        assert _are_as_alone(model, clips)
        assert [record.getMessage() for record in caplog.records if "by one call" in record.getMessage()] == [
            f"rows of generate 5 x 16 x 16, 32 tokens are not rendered together by one call: {why}"
        ]
        with _counted(model) as counts:
            clips_in_order(renderer, _rows())
    assert counts["__call__"] >= NUM_ROWS


def _begun(num_steps: int) -> tuple[Renderer, dict[str, Request]]:
    """Return a renderer that is so many steps into a call for several rows, and these."""
    renderer = unaudited(loaded("wan"), FAST)
    clips_in_order(renderer, _rows())
    rows = {f"{row.seed:032x}": renderer._check(row, row.seed)[0] for row in _rows(num_inference_steps=5)}
    for row_id, request in rows.items():
        renderer.submit(request, row_id)
    for _ in range(num_steps):
        assert not renderer.step()
    return renderer, rows


def _ended(renderer: Renderer) -> list[Clip]:
    outcomes = all_outcomes(renderer)
    assert all(isinstance(outcome, Clip) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Clip)]


def test_rows_of_one_call_go_on_elsewhere_each_by_itself() -> None:
    renderer, rows = _begun(5)
    halves = [half for half in renderer.drain() if isinstance(half, HalfDone)]
    assert {half.row_id for half in halves} == rows.keys()
    second = unaudited(loaded("wan"), FAST)
    for half in halves:
        assert half.checkpoint is not None
        second.submit(half.request, half.row_id, half.checkpoint)
    with _counted(loaded("wan")) as counts:
        clips = _ended(second)
    assert counts["__call__"] == NUM_ROWS
    assert _are_as_alone(loaded("wan"), clips)


@pytest.mark.parametrize("place", [0, 2])
def test_a_row_that_is_dropped_keeps_no_other_of_its_call_from_ending(place: int) -> None:
    renderer, rows = _begun(5)
    dropped = [*rows][place]
    renderer.drop(dropped)
    clips = _ended(renderer)
    assert {clip.row_id for clip in clips} == rows.keys() - {dropped}
    assert _are_as_alone(loaded("wan"), clips)
    renderer, rows = _begun(3)
    for row_id in rows:
        renderer.drop(row_id)
    assert not renderer.num_active and not renderer._batcher.tasks


def test_calls_of_several_rows_are_taken_apart_by_what_calls_of_one_have() -> None:
    table, generators = torch.arange(6.0).reshape(6, 1), [torch.Generator() for _ in range(3)]
    latents, noise = torch.arange(12.0).reshape(6, 2), torch.arange(3.0).reshape(3, 1)
    _, structure = flatten(((latents, noise, table), {"generator": generators[0]}))
    joint = JointCall([Request()] * 3, lambda: {("unet", structure, 2, None): (2, 1, 6, 0)})
    calls = joint.calls("unet", (latents, noise, table), {"generator": generators})
    for row, ((own, own_noise, own_table), named) in enumerate(calls):
        assert own.tolist() == latents[row::3].tolist() and own_noise.tolist() == [[float(row)]]
        assert own_table is table and named["generator"] is generators[row]
    assert joined_rows([[own] for (own, _, _), _ in calls])[0].tolist() == latents.tolist()
