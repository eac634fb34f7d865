"""What is read from a model folder without opening its weights, and the signature of all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.signature import parameters_of
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
MOCHI = {"vae": {}, "transformer": {"patch_size": 2}, "scheduler": FLOW}
LTX = {"vae": LTX_VAE, "transformer": {"patch_size": 1, "patch_size_t": 1}, "scheduler": FLOW}


@pytest.mark.parametrize(
    ("class_name", "configs", "multiple", "step", "fps", "default"),
    [
        ("WanPipeline", WAN, 16, 4, 16, (480, 832, 81)),
        ("CogVideoXPipeline", COGVIDEOX, 16, 8, 8, (480, 720, 49)),
        ("LTXPipeline", LTX, 32, 8, 25, (512, 704, 161)),
        ("HunyuanVideoPipeline", HUNYUAN, 16, 4, 24, (720, 1280, 129)),
        ("MochiPipeline", MOCHI, 16, 6, 30, (480, 848, 19)),
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


ANIMATED = SD | {"motion_adapter": {"motion_max_seq_length": 32}}
COGVIDEOX_1_5 = COGVIDEOX | {"transformer": COGVIDEOX["transformer"] | {"patch_size_t": 2}}
SVD = SD | {"unet": {"sample_size": 96, "num_frames": 14}}


@pytest.mark.parametrize(
    ("class_name", "configs", "facts"),
    [
        ("WanPipeline", TI2V, {"size_multiple": 32, "native_fps": 24}),
        ("CogVideoXPipeline", COGVIDEOX_1_5, {"native_fps": 16}),
        ("AnimateDiffPipeline", ANIMATED, {"max_frames": 32, "frame_step": None, "default_frames": 16}),
        # It returns frames, though its call takes no number of them.
        ("VideoToVideoSDPipeline", SD, {"kind": "video"}),
    ],
)
def test_a_config_changes_the_rules_of_its_family(
    tmp_path: Path, class_name: str, configs: dict[str, Any], facts: dict[str, Any]
) -> None:
    settings = {"expand_timesteps": True} if configs is TI2V else {}
    spec = inspect_model(write_model(tmp_path, class_name, configs, **settings))
    assert {name: getattr(spec, name) for name in facts} == facts


@pytest.mark.parametrize(
    ("class_name", "configs", "usual", "arguments", "fps"),
    [
        ("LTXPipeline", LTX, 25, {"frame_rate": 30}, 30),
        ("StableVideoDiffusionPipeline", SVD, 7, {"fps": 12}, 12),
        ("VideoCrafterPipeline", SD, 10, {"fps": 28}, 10),  # of its motion, not of the file
    ],
)
def test_a_clip_runs_at_the_rate_it_was_rendered_for(
    tmp_path: Path, class_name: str, configs: Any, usual: float, arguments: dict[str, Any], fps: float
) -> None:
    spec = inspect_model(write_model(tmp_path, class_name, configs))
    assert (spec.fps_of({}), spec.fps_of(arguments)) == (usual, fps)
    assert spec.defaults().get("num_frames") == 14 or configs is not SVD


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        inspect_model(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"model_index\.json does not exist"):
        inspect_model(tmp_path)
    folder = write_model(tmp_path, "WanPipeline", {"scheduler": WAN_FLOW})
    (folder / "scheduler" / "scheduler_config.json").write_text('{"shift": ')
    with pytest.raises(ModelError, match="cannot be read"):
        inspect_model(folder)
    with pytest.raises(ModelError, match="'WanPipelin'") as caught:
        inspect_model(write_model(tmp_path / "wan", "WanPipelin", WAN))
    assert "WanPipeline" in caught.value.fix


def test_a_missing_component_is_named_and_an_optional_one_may_be_null(tmp_path: Path) -> None:
    encoder = ["transformers", "UMT5EncoderModel"]
    with pytest.raises(ModelError, match="text_encoder does not exist"):
        inspect_model(write_model(tmp_path, "WanPipeline", WAN, text_encoder=encoder))
    folder = write_model(tmp_path, "WanPipeline", WAN, transformer_2=[None, None])
    assert inspect_model(folder).class_name == "WanPipeline"


def call(
    prompt: str | list[str],
    picture: "NotImported | None" = None,  # type: ignore[name-defined]  # noqa: F821, UP037
    steps: int | None = None,
    sigmas: list[float] | None = None,
    seed: int = 0,
    conditions: Any = None,
) -> None: ...


def test_one_annotation_that_cannot_be_read_leaves_the_others() -> None:
    kinds = {parameter.name: parameter.kind for parameter in parameters_of(call)}
    assert kinds == {
        "prompt": "str",
        "picture": None,
        "steps": "int",
        "sigmas": "list[float]",
        "seed": None,  # framefleet gives a generator
        "conditions": None,
    }
