"""Every scheduler that is accepted renders on the real pipelines, finite and repeatable."""

from __future__ import annotations

import copy
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from framefleet import Clip, Request, UserError, load_model
from framefleet.pipeline.model.specs.schedulers import SHORT_NAMES, SchedulerChoice, build, resolve_scheduler
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.frames.fields import VIDEO_FIELDS
from tests.long import long_but
from tests.mixed import SCHEDULERS
from tests.pictures import clip
from tests.tinies import images, modular
from tests.tiny import BUILDERS, SMALLEST, smallest_call, tiny
from tests.unaudited import unaudited
from tools.conformance.plain import plain_calls

# Not of those whose own tests look at sizes: images, modular pipelines.
MODULAR = [name for name, builder in BUILDERS.items() if builder.__module__ == modular.__name__]
NAMES = [name for name in SMALLEST if name not in (*images.TINIES, *MODULAR)]

# One of each class, as the loops differ.
LOOPS = ("wan", "wan_i2v", "wan_v2v", "cogvideox", "cogvideox_i2v", "cogvideox_v2v", "ltx", "ltx_i2v")
LOOPS += ("hunyuan", "animatediff", "svd", "sd", "sdxl", "sd3", "flux")
# Their clips are as long as a video, a network or windows make them, as large as an image, or need tiles.
OF_THEIR_INPUTS = ("lucy", "chronoedit", "skyreels_df_v2v", "wan_animate", "framepack", "helios_pyramid")
OF_THEIR_INPUTS += ("hunyuan_1_5_i2v", "modelscope_v2v", "allegro", "latte", "kandinsky_6_sr")
# A flow that several solvers take, a loop with a scheduler of its own, and noise that is predicted.
SHORT = ("wan", "cogvideox", "sd")
# Frames in fours and one, a network's own size, the length of a video, windows, images.
SHORT_SIZES = ("wan", "cogvideox_1_5_i2v", "wan_v2v", "skyreels_df", "svd", "flux")


def latents(pipe: DiffusionPipeline, name: str, steps: int) -> torch.Tensor:
    arguments = {**smallest_call(name), "num_inference_steps": steps}
    arguments |= {"strength": 1.0} if "strength" in arguments else {}  # less would leave no step of one
    generator = torch.Generator().manual_seed(1)
    output = pipe(output_type="latent", generator=generator, **arguments)
    return output.frames if hasattr(output, "frames") else output.images


def loaded(spec: PipelineSpec, name: str) -> DiffusionPipeline:
    return spec.pipeline_class.from_pretrained(tiny(name))


@pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning")  # of diffusers, 36,000 times
@pytest.mark.parametrize("name", long_but(LOOPS, *SHORT))
def test_every_accepted_scheduler_renders_the_same_finite_clip_twice(name: str) -> None:
    spec = inspect_model(tiny(name))
    pipe = loaded(spec, name)
    base = pipe.scheduler
    choices: dict[str, SchedulerChoice] = {}
    for short in SHORT_NAMES:
        try:
            choices[short] = resolve_scheduler(short, spec)
        except UserError:
            continue
    assert len(choices) >= 2
    for short, choice in choices.items():
        one, other = build(choice, base), build(choice, base)
        for steps in {choice.min_steps, 3}:
            pipe.scheduler = copy.deepcopy(one)  # some take longer to build than to render with
            first = latents(pipe, name, steps)
            torch.rand(1)  # noise from the process's own state would differ now
            pipe.scheduler = copy.deepcopy(other)
            assert torch.isfinite(first).all(), (short, steps)
            assert torch.equal(first, latents(pipe, name, steps)), (short, steps)


@pytest.mark.parametrize(
    "name", long_but([name for name in NAMES if name not in OF_THEIR_INPUTS], *SHORT_SIZES)
)
def test_the_size_and_frame_rules_are_what_the_pipeline_renders(name: str) -> None:
    spec = inspect_model(tiny(name))
    pipe = loaded(spec, name)
    height, width = spec.size_multiple, 2 * spec.size_multiple
    if spec.configs.get("transformer", {}).get("use_learned_positional_embeddings"):
        height = width = spec.default_height or 0  # it renders no other
    num_frames = 2 * (spec.frame_step or 1) + spec.frame_rest
    length: dict[str, Any] = {name: num_frames for name in FRAME_PARAMETERS if name in spec.parameters}
    if not length:
        videos = [name for name in ("video", "control_video") if name in spec.parameters]
        length = {name: clip(0, num_frames=num_frames) for name in videos}
    size = {"height": height, "width": width, **length}
    generator = torch.Generator().manual_seed(1)
    output = pipe(output_type="np", generator=generator, **(smallest_call(name) | size))
    if spec.kind == "video":
        clips = np.asarray(next(getattr(output, name) for name in VIDEO_FIELDS if hasattr(output, name)))
        assert clips.shape[-4:] == (num_frames, height, width, 3)
    else:
        assert output.images[0].shape == (height, width, 3)


@pytest.mark.parametrize("name", ["wan", "sd"])
def test_rows_of_different_schedulers_share_forwards_and_keep_their_bits(name: str, tmp_path: Path) -> None:
    same = {**smallest_call(name), "num_inference_steps": 4, "guidance_scale": 4.0}
    rows = [{**same, "scheduler": s, "seed": seed} for seed, s in enumerate(SCHEDULERS[name])]
    requests = [Request(arguments=same, scheduler=row["scheduler"], seed=row["seed"]) for row in rows]
    renderer = unaudited(load_model(tiny(name), dtype="fp32"))
    clips = {clip.request.seed: clip for clip in renderer.render(requests) if isinstance(clip, Clip)}
    plain = [made.frames for made in plain_calls(name, torch.float32, rows, tmp_path)]
    assert [clips[seed].frames_sha256 for seed in range(len(rows))] == plain
    assert mean(clip.batch_size for clip in clips.values()) > 1.5  # no two rows have the same
