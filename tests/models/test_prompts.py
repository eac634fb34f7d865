"""Prompts of rows: of their own length, encoded once, padded or not, cut where a model reads no further."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ErnieImagePipeline, WanPipeline
from transformers import Ministral3Config, Ministral3ForCausalLM

from framefleet import Batching, Clip, Model, Renderer, Request, load_model, replay
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.plugins.demo.prepare import MODEL
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, records_of, write_job, write_table
from tests.tinies.encoders import chat_tokenizer
from tests.tinies.flux_kin import ernie
from tests.tiny import SMALLEST, tiny
from tests.unaudited import calls_of, clips_in_order, loaded, unaudited

PROMPTS = (
    "a red ball",
    "一只绿色的猫在雨中奔跑",
    "a dog runs " * 3,
    "海",
    "a cat on the mat",
    "两匹马在草原上",
    "sunset",
)
STEPS = (2, 3, 4)
# What switches guidance on, and so a second prompt.
CHOICES: dict[str, dict[str, Sequence[Any]]] = {
    "z_image": {"guidance_scale": (0.0, 3.0, 5.5), "negative_prompt": ("", "blurry, 低质量")},
    "qwen_image": {"true_cfg_scale": (1.0, 3.0, 5.5), "negative_prompt": ("blurry, 低质量",)},
}


def unequal_rows(name: str, count: int) -> list[dict[str, Any]]:
    """Return arguments and seeds of rows in no order."""
    draw = random.Random(name)
    choices = {"prompt": PROMPTS, "num_inference_steps": STEPS} | CHOICES[name]
    return [
        SMALLEST[name]
        | {"seed": seed}
        | {argument: draw.choice(values) for argument, values in choices.items()}
        for seed in range(count)
    ]


def requests_of(rows: Sequence[dict[str, Any]]) -> list[Request]:
    return [
        Request(arguments={k: v for k, v in row.items() if k != "seed"}, seed=row["seed"]) for row in rows
    ]


def plain_digest(model: Model, request: Request) -> str:
    """Return the digest of what a plain diffusers call gives."""
    generator = torch.Generator("cpu").manual_seed(request.seed)
    output = model.pipe(**request.arguments, generator=generator, output_type="np")
    return frames_sha256((output.images * 255).round().astype(np.uint8))


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


def test_lengths_and_negative_prompts_of_mixed_rows_are_plain_diffusers_and_each_is_encoded_once() -> None:
    model = loaded("wan")
    rows = [
        Request(
            arguments=SMALLEST["wan"]
            | {"prompt": prompt, "negative_prompt": negative, "max_sequence_length": length}
            | {"num_inference_steps": 2 + seed % 2},
            seed=seed,
        )
        for seed, (prompt, negative, length) in enumerate([*KINDS, *KINDS])
    ]
    with calls_of(model.text_encoders()) as calls:
        clips = clips_in_order(unaudited(model, Batching(max_rows=4, min_gain=0)), rows)
    pipe = WanPipeline.from_pretrained(tiny("wan"), dtype=torch.float32)
    for row, clip in zip(rows, clips, strict=True):
        plain = pipe(**row.arguments, generator=row.generator(), output_type="np")
        assert clip.frames_sha256 == frames_sha256(to_frames(plain)), row
    assert max(clip.batch_size for clip in clips) > 1
    texts = {(text or "", length) for prompt, negative, length in KINDS for text in (prompt, negative)}
    assert len(calls) == len(texts)


@pytest.mark.parametrize(
    ("name", "num_rows", "max_rows", "least"),
    [
        ("z_image", 64, 4, 1.5),
        pytest.param("qwen_image", 24, 4, 1.5, marks=pytest.mark.long),  # of a fleet in tests/cluster
        *(pytest.param(name, 64, 8, 2.0, marks=pytest.mark.long) for name in ("z_image", "qwen_image")),
        pytest.param("z_image", 64, 16, 1.5, marks=pytest.mark.long),
    ],
)  # each size has to be proven: with twice as many, as many rows are a short table
def test_rows_of_unequal_prompts_share_forwards_and_keep_the_bits_of_plain_calls(
    name: str, num_rows: int, max_rows: int, least: float
) -> None:
    model = load_model(tiny(name), dtype="fp32")
    renderer = unaudited(model, Batching(max_rows=max_rows, min_gain=0))
    clips = clips_in_order(renderer, requests_of(unequal_rows(name, num_rows)))
    assert mean(clip.batch_size for clip in clips) > least
    for clip in clips[::4]:
        assert clip.frames_sha256 == plain_digest(model, clip.request)


def test_both_texts_are_in_the_record_of_a_pipeline_that_enhances_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    enhancing().save_pretrained(folder)
    cells = [
        {"prompt": "a red ball", "seed": 0, "use_pe": True},
        {"prompt": "a red ball", "seed": 1, "use_pe": False},
    ]
    values = job_values(write_table(tmp_path / "t.parquet", cells), tmp_path / "out", model="ernie")
    values |= {"model": str(folder), "defaults": SMALLEST["ernie"]}
    output, row_ids = render_here(values, is_mixed=True)
    enhanced, plain = sorted(records_of(output), key=lambda record: record["seed"])
    assert json.loads(enhanced["arguments"])["prompt"] == "a red ball"
    written = json.loads(enhanced["extra_outputs"])["written_prompt"]
    assert written and written != "a red ball"
    assert "written_prompt" not in json.loads(plain["extra_outputs"] or "{}")
    assert all(replay(output, row_id).is_equal for row_id in row_ids)


def enhancing() -> ErnieImagePipeline:
    """Return a tiny ERNIE-Image with a language model that writes another prompt."""
    config = Ministral3Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=1,
    )
    tokenizer = chat_tokenizer()
    tokenizer.model_max_length = 24  # how many tokens it writes
    return ErnieImagePipeline(
        **{**ernie().components, "pe": Ministral3ForCausalLM(config).eval(), "pe_tokenizer": tokenizer}
    )


LONG = "a red ball rolls over the grass, " * 80  # 2,640 characters, which the demo's model counts as bytes


def planned(folder: Path, *prompts: str) -> str:
    table = write_table(folder / "t.parquet", [{"prompt": prompt} for prompt in prompts])
    model = {"path": str(MODEL), "device": "cpu"}
    size = {"num_frames": 9, "height": 64, "width": 64}
    values = {"table": str(table), "output": str(folder / "out"), "model": model, "defaults": size}
    ended = command("plan", str(write_job(folder / "job.yaml", values)), exits=0)
    return " ".join(ended.stdout.split())


def test_plan_says_how_many_prompts_are_cut_and_which_is_the_first(tmp_path: Path) -> None:
    said = planned(tmp_path, "a ball", LONG + "in rain", LONG + "in snow", "猫" * 20)
    assert "cut prompts: 2 rows with more tokens than the model reads" in said
    assert "row 1 has 2,648, the limit is 64" in said
    assert "cut prompts" not in planned(tmp_path, "a ball")


def test_a_clip_says_that_its_prompt_was_cut() -> None:
    arguments = SMALLEST["wan"] | {"max_sequence_length": 32, "num_inference_steps": 1}
    prompts = ("a ball", LONG + "in rain", LONG + "in snow")
    requests = [Request(arguments=arguments | {"prompt": prompt}, seed=1) for prompt in prompts]
    found = Renderer(load_model(tiny("wan"), dtype="fp32")).render(requests)
    clips = {str(clip.request.arguments["prompt"]): clip for clip in found if isinstance(clip, Clip)}
    short, rain, snow = (clips[prompt] for prompt in prompts)
    assert (short.num_prompt_tokens, short.is_prompt_cut) == (7, False)
    assert (rain.num_prompt_tokens, rain.is_prompt_cut) == (2648, True)
    assert rain.frames_sha256 == snow.frames_sha256 != short.frames_sha256
