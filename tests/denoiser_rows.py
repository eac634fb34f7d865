"""Tiny pipelines, rows and videos for the task `denoiser`, and some steps of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from framefleet import load_model
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.train.denoiser.task import DenoiserTask
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow
from tests.crafter import IMAGE, MOTION, TEXT, crafter
from tests.tiny import SMALLEST, tiny

CRAFTERS = (TEXT, IMAGE, MOTION)
INDEX = 3  # of the row


def pipe_of(name: str) -> Any:
    pipe = load_model(crafter(name) if name in CRAFTERS else tiny(name), dtype="fp32").pipe
    if name.startswith("wan"):  # the tiny ones have means of 0 and deviations of 1
        channels = pipe.vae.config.z_dim
        spread = {"latents_mean": [0.1] * channels, "latents_std": [0.5 + i % 3 for i in range(channels)]}
        pipe.vae.register_to_config(**spread)
    if name.startswith("ltx"):
        pipe.vae.latents_mean.fill_(0.1)
        pipe.vae.latents_std.fill_(0.5)
    return pipe


def bucket_of(name: str) -> Bucket:
    if name in CRAFTERS:
        return Bucket(num_frames=3, height=64, width=64)
    size = SMALLEST[name]
    return Bucket(num_frames=size.get("num_frames", 1), height=size["height"], width=size["width"])


def arguments_of(name: str, prompt: str) -> dict[str, Any]:
    length = SMALLEST.get(name, {}).get("max_sequence_length")
    extra = {"max_sequence_length": length} if length else {}
    extra |= {"frame_rate": 16} if name in ("ltx", "opensora") else {}
    extra |= {"fps": 5} if name in CRAFTERS else {}
    return {"prompt": prompt, **extra, **({"condition_type": "i2v_loop"} if name == "opensora" else {})}


def frames_of(bucket: Bucket, seed: int) -> Frames:
    shape = (bucket.num_frames, bucket.height, bucket.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def task_of(pipe: Any, name: str, **settings: Any) -> DenoiserTask:
    only = {"only": ["transformer"]} if name.endswith("moe") else {}
    return DenoiserTask(pipe, TrainSettings(steps=1, **{**only, **settings}))


def prepared(task: DenoiserTask, name: str, *, count: int = 3, start: int = INDEX) -> list[Prepared]:
    return [
        task.prepare(row_of(name, index), frames_of(bucket_of(name), index))
        for index in range(start, start + count)
    ]


def row_of(name: str, index: int) -> TrainingRow:
    arguments = arguments_of(name, f"a ball that bounces {index} times")
    return TrainingRow(index=index, video="", sha256="", arguments=arguments, bucket=bucket_of(name))
