"""What is read from a model folder without opening its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.configs import FLOW, SD, WAN, WAN_FLOW, write_model

LTX_VAE = {"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [True, True, True, False]}
COGVIDEOX = {
    "vae": {"block_out_channels": [1, 2, 3, 4], "temporal_compression_ratio": 4},
    "transformer": {"patch_size": 2, "sample_height": 60, "sample_width": 90, "sample_frames": 49},
    "scheduler": {"_class_name": "CogVideoXDDIMScheduler"},
}
TI2V = WAN | {"vae": {"scale_factor_spatial": 16, "scale_factor_temporal": 4}}
FLUX = {"vae": {"block_out_channels": [1, 2, 3, 4]}, "transformer": {"patch_size": 1}, "scheduler": FLOW}
HUNYUAN = {
    "vae": {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4},
    "transformer": {"patch_size": 2},
    "scheduler": FLOW,
}
SD3 = {
    "vae": {"block_out_channels": [1, 2, 3, 4]},
    "transformer": {"patch_size": 2, "sample_size": 128},
    "scheduler": FLOW,
}
LTX = {"vae": LTX_VAE, "transformer": {"patch_size": 1, "patch_size_t": 1}, "scheduler": FLOW}


@pytest.mark.parametrize(
    ("class_name", "configs", "multiple", "step", "fps", "default"),
    [
        ("WanPipeline", WAN, 16, 4, 16, (480, 832, 81)),
        ("CogVideoXPipeline", COGVIDEOX, 16, 8, 8, (480, 720, 49)),
        ("LTXPipeline", LTX, 32, 8, 25, (512, 704, 161)),
        ("HunyuanVideoPipeline", HUNYUAN, 16, 4, 24, (720, 1280, 129)),
        (
            "MochiPipeline",
            {"vae": {}, "transformer": {"patch_size": 2}, "scheduler": FLOW},
            16,
            6,
            30,
            (480, 848, 19),
        ),
        ("FluxPipeline", FLUX, 16, None, None, (1024, 1024, None)),
        ("StableDiffusionPipeline", SD, 8, None, None, (512, 512, None)),
        ("StableDiffusionXLPipeline", SD | {"unet": {"sample_size": 128}}, 8, None, None, (1024, 1024, None)),
        ("StableDiffusion3Pipeline", SD3, 16, None, None, (1024, 1024, None)),
    ],
)
def test_each_family_has_its_rules(
    tmp_path: Path,
    class_name: str,
    configs: dict[str, Any],
    multiple: int,
    step: int | None,
    fps: float | None,
    default: tuple[int, int, int | None],
) -> None:
    spec = inspect_model(write_model(tmp_path, class_name, configs))
    assert (spec.size_multiple, spec.frame_step, spec.native_fps) == (multiple, step, fps)
    assert (spec.default_height, spec.default_width, spec.default_frames) == default
    assert spec.kind == ("video" if fps else "image")


def test_a_class_that_returns_frames_makes_videos_though_its_call_takes_no_number_of_them(
    tmp_path: Path,
) -> None:
    assert inspect_model(write_model(tmp_path, "VideoToVideoSDPipeline", SD)).kind == "video"


def test_wan_ti2v_needs_multiples_of_32_and_runs_at_24_fps(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "WanPipeline", TI2V, expand_timesteps=True))
    assert (spec.size_multiple, spec.native_fps) == (32, 24)


def test_cogvideox_1_5_runs_at_16_fps(tmp_path: Path) -> None:
    newer = COGVIDEOX | {"transformer": COGVIDEOX["transformer"] | {"patch_size_t": 2}}
    assert inspect_model(write_model(tmp_path, "CogVideoXPipeline", newer)).native_fps == 16


def test_animatediff_is_bounded_by_its_motion_module(tmp_path: Path) -> None:
    configs = SD | {"motion_adapter": {"motion_max_seq_length": 32}}
    spec = inspect_model(write_model(tmp_path, "AnimateDiffPipeline", configs))
    assert (spec.max_frames, spec.frame_step, spec.default_frames) == (32, None, 16)


def test_parameters_that_a_table_can_give_are_told_from_tensors_and_plumbing(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "WanPipeline", WAN))
    kinds = {name: parameter.kind for name, parameter in spec.parameters.items()}
    assert (kinds["prompt"], kinds["height"], kinds["guidance_scale_2"]) == ("str", "int", "float")
    for name in ("latents", "generator", "output_type", "num_videos_per_prompt", "attention_kwargs"):
        assert kinds[name] is None
    assert spec.defaults()["guidance_scale"] == 5.0
    assert not {"output_type", "return_dict"} & set(spec.defaults())


def test_the_clip_of_ltx_runs_at_the_rate_it_was_rendered_for(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "LTXPipeline", LTX))
    assert (spec.fps_of({}), spec.fps_of({"frame_rate": 30})) == (25, 30)


def test_the_clip_of_svd_runs_at_the_rate_it_was_rendered_for_and_is_as_long_as_its_network(
    tmp_path: Path,
) -> None:
    configs = SD | {"unet": {"sample_size": 96, "num_frames": 14}}
    spec = inspect_model(write_model(tmp_path, "StableVideoDiffusionPipeline", configs))
    assert (spec.fps_of({}), spec.fps_of({"fps": 12})) == (7, 12)
    assert spec.defaults()["num_frames"] == 14


def test_motion_asked_of_videocrafter_does_not_change_how_fast_its_clip_plays(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "VideoCrafterPipeline", SD))
    assert spec.fps_of({"fps": 28}) == 10


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        inspect_model(tmp_path / "absent")


def test_a_folder_without_model_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index\.json does not exist"):
        inspect_model(tmp_path)


def test_an_unknown_class_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'WanPipelin'") as caught:
        inspect_model(write_model(tmp_path, "WanPipelin", WAN))
    assert "WanPipeline" in caught.value.fix


def test_a_missing_component_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "WanPipeline", WAN)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"text_encoder": ["transformers", "UMT5EncoderModel"]})
    )
    with pytest.raises(ModelError, match="text_encoder does not exist"):
        inspect_model(folder)


def test_an_optional_component_may_be_null(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "WanPipeline", WAN)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"transformer_2": [None, None]}))
    assert inspect_model(folder).class_name == "WanPipeline"


def test_a_config_cut_short_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "WanPipeline", {"scheduler": WAN_FLOW})
    (folder / "scheduler" / "scheduler_config.json").write_text('{"shift": ')
    with pytest.raises(ModelError, match="cannot be read"):
        inspect_model(folder)
