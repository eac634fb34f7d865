"""Prompts of a table: each row's own length and negative prompt, English and Chinese, encoded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import torch
from diffusers import WanPipeline

from framefleet import Batching, Clip, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

# prompt, negative_prompt, max_sequence_length. One text is longer than 16 tokens, so its length decides.
KINDS: list[tuple[str, str | None, int]] = [
    ("a red ball", None, 16),
    ("a red ball", None, 32),
    ("a red ball bounces over a wall", "模糊，低质量", 16),
    ("a red ball bounces over a wall", "模糊，低质量", 32),
    ("一只猫在海边奔跑", "blurry", 16),
    ("一只猫在海边奔跑", "", 32),
    ("城市的夜晚", "模糊，低质量", 32),
]
NUM_SEEDS = 3


def _table() -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "prompt": prompt,
                "negative_prompt": negative,
                "max_sequence_length": length,
                "seed": seed,
                "num_inference_steps": 2 + seed,
            }
            for seed in range(NUM_SEEDS)
            for prompt, negative, length in KINDS
        ],
        schema=pa.schema(
            [
                ("prompt", pa.string()),
                ("negative_prompt", pa.string()),
                *((name, pa.int64()) for name in ("max_sequence_length", "seed", "num_inference_steps")),
            ]
        ),
    )


def _requests(table: pa.Table, spec: PipelineSpec) -> list[Request]:
    plan = plan_rows(table.schema, spec, defaults={**SMALLEST["wan"], "guidance_scale": 5.0})
    found = []
    for batch in table.to_batches():
        for row in plan.rows(0, batch):
            assert not isinstance(row, InvalidRow), row.messages()
            found.append(row.request)
    return found


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("prompt", "negative_prompt", "max_sequence_length", "seed"))


def _plain(pipe: WanPipeline, row: dict[str, Any]) -> str:
    generator = torch.Generator("cpu").manual_seed(row.pop("seed"))
    arguments = {**SMALLEST["wan"], "guidance_scale": 5.0, **row}
    return frames_sha256(to_frames(pipe(**arguments, generator=generator, output_type="np")))


def test_lengths_and_negative_prompts_of_mixed_rows_are_plain_diffusers_and_each_is_encoded_once() -> None:
    model, table = load_model(tiny("wan"), dtype="fp32"), _table()
    calls: list[torch.Tensor] = []

    def count(name: str, original: Callable[..., Any], ids: torch.Tensor, *args: Any) -> Any:
        calls.append(ids)
        return original(ids, *args)

    with intercept(model.text_encoders(), count):
        renderer = unaudited(model, Batching(max_rows=4, min_gain=0))
        clips = list(renderer.render(_requests(table, model.spec)))
    pipe = WanPipeline.from_pretrained(tiny("wan"), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rows = {_key(row): row for row in table.to_pylist()}
    for clip in clips:
        assert isinstance(clip, Clip)
        row = rows.pop(_key({**clip.request.arguments, "seed": clip.request.seed}))
        assert clip.frames_sha256 == _plain(pipe, row), row
    assert not rows
    assert max(clip.batch_size for clip in clips if isinstance(clip, Clip)) > 1
    texts = {(text or "", length) for prompt, negative, length in KINDS for text in (prompt, negative)}
    assert len(calls) == len(texts)
