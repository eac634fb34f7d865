"""The server of the videos API with a model: it renders what a plain call gives."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DiffusionPipeline

from tests.tiny import smallest_call, tiny
from tests.unit.test_videos_server import content, finish, frames_of
from tests.videos_server import videos_server


def test_a_lossless_clip_is_a_plain_call_unless_the_scheduler_is_another() -> None:
    call = smallest_call("wan")
    more = {"max_sequence_length": call.pop("max_sequence_length")}
    pipeline = DiffusionPipeline.from_pretrained(tiny("wan"))
    generator = torch.Generator("cpu").manual_seed(7)
    frames = pipeline(**call, **more, generator=generator, output_type="pil").frames[0]
    with videos_server("sglang", model=tiny("wan")) as server:
        words = {**call, "seed": 7, "diffusers_kwargs": more}
        usual = frames_of(content(server, finish(server, **words)["id"]).content)
        server.set_faults(other_scheduler=1)
        other = frames_of(content(server, finish(server, **words)["id"]).content)
    assert np.array_equal(usual, np.stack([np.asarray(frame) for frame in frames]))
    assert not np.array_equal(other, usual)
