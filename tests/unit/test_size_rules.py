"""Size rules read from the source of a pipeline, with the values of its configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.constructor import Constructed
from framefleet.pipeline.model.specs.pipeline_call import source_facts
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.plugins.demo.prepare import MODEL
from tests.configs import FLOW, write_model

KL = {"_class_name": "AutoencoderKL", "block_out_channels": [1, 2, 3, 4]}
WAN_VAE = {"_class_name": "AutoencoderKLWan", "temperal_downsample": [False, True, True]}


def model(folder: Path, class_name: str, vae: dict[str, Any], **transformer: Any) -> PipelineSpec:
    configs = {"vae": vae, "transformer": transformer, "scheduler": FLOW}
    return inspect_model(write_model(folder, f"{class_name}Pipeline", configs))


class Early:
    """A pipeline that rounds, refuses and divides, as diffusers' do."""

    def __init__(self, levels: list[int], patch: int = 2, is_cut: bool = False) -> None:
        self.factor = 2 ** (len(levels) - 1) if getattr(self, "levels", None) else 3
        if is_cut:
            self.multiple = 5
        else:
            self.multiple = self.factor * patch
        self.unknown = open("nowhere")  # noqa: SIM115  # never evaluated

    @property
    def steps(self) -> int:
        return self.factor * 2

    def check_inputs(self, height: int, num_frames: int, max_sequence_length: int | None) -> None:
        if height % self.multiple != 0 and num_frames % self.steps != 1:
            raise ValueError
        if max_sequence_length is not None and max_sequence_length > 256:
            raise ValueError

    def __call__(self, height: int, width: int) -> int:
        width = width // 7 * 7
        latent_width = width // 2
        height = height // self.factor
        return latent_width + height % 11


def test_refusals_roundings_and_divisions_are_rules_until_a_size_is_one_of_latents() -> None:
    rules = source_facts(Early, Constructed(Early, {"levels": [1, 2, 3]}))
    assert rules.side_divisor == 8 * 7
    assert rules.frame_divisor == 8
    assert rules.max_text == 256
    cut = Constructed(Early, {"levels": [1], "is_cut": True})
    assert source_facts(Early, cut).side_divisor == 5 * 7


class Grown:
    """A network whose source is as harmless as diffusers' own."""

    def __init__(self, heads: Any, width: Any, is_any: bool = False) -> None:
        self.inner = heads * width * width
        self.levels = 2 ** (width * width * width)
        self.shown = heads % width
        self.doubled = [heads, heads] * 2


@pytest.mark.parametrize("heads", [[1] * 16, "%999999999d", "a" * 64, 3])
def test_what_a_config_makes_grow_is_not_computed(heads: Any) -> None:
    """It would take hours, and more memory than there is."""
    found = Constructed(Grown, {"heads": heads, "width": 65_536}).attributes
    assert found.get("inner", 0) in (0, 3 * 2**32)
    assert "levels" not in found
    assert ("shown" in found) == (heads == 3)
    assert found["doubled"] == [heads] * 4


def test_a_class_without_a_constructor_of_its_own_sets_nothing() -> None:
    assert Constructed(type("Plain", (), {"__module__": __name__}), {"a": 1}).attributes == {"a": 1}


@pytest.mark.parametrize(
    ("class_name", "vae", "transformer", "multiple"),
    [
        ("ZImage", KL, {"all_patch_size": [2]}, 16),
        ("Flux", KL, {"patch_size": 1}, 16),
        ("QwenImage", {"_class_name": "AutoencoderKLQwenImage"}, {"patch_size": 2}, 16),
        ("GlmImage", KL, {"patch_size": 2}, 32),
        ("SkyReelsV2", WAN_VAE, {"patch_size": [1, 2, 2]}, 16),
        ("Wan", WAN_VAE | {"scale_factor_spatial": 16}, {"patch_size": [1, 2, 2]}, 32),
        ("MotifVideo", WAN_VAE, {"patch_size": 2}, 16),
        ("Lumina2", KL, {"patch_size": 2}, 16),
    ],
)
def test_sizes_are_multiples_of_what_the_class_and_its_configs_come_to(
    tmp_path: Path, class_name: str, vae: dict[str, Any], transformer: dict[str, Any], multiple: int
) -> None:
    assert model(tmp_path, class_name, vae, **transformer).size_multiple == multiple


def test_text_is_no_longer_than_check_inputs_takes(tmp_path: Path) -> None:
    assert model(tmp_path / "flux", "Flux", KL).max_text == 512
    assert model(tmp_path / "qwen", "QwenImage", KL).max_text == 1024
    assert model(tmp_path / "wan", "Wan", WAN_VAE).max_text is None


def test_a_sibling_has_the_factors_of_the_autoencoder() -> None:
    spec = inspect_model(MODEL)
    called = spec_for(BUILT_IN["video_to_video"], spec)
    assert called.class_name == "WanVideoToVideoPipeline"
    assert (called.size_multiple, called.frame_step) == (spec.size_multiple, spec.frame_step) == (16, 2)


def test_a_pipeline_that_takes_another_factor_than_its_autoencoder_has_is_refused(tmp_path: Path) -> None:
    vae = {"_class_name": "AutoencoderKLWan", "temperal_downsample": [True], "scale_factor_spatial": 8}
    with pytest.raises(ModelError, match="computes vae_scale_factor_spatial 2, but its autoencoder has 8"):
        model(tmp_path, "WanVideoToVideo", vae, patch_size=[1, 2, 2])


@pytest.mark.parametrize(
    "values",
    [[10**9] * 16, ["a" * 64] * 16, [[2] * 16] * 16, [65536] * 16, {"a": 1}, "levels", 10**30],
    ids=lambda value: f"{value!r:.20}",
)
def test_a_config_of_any_values_is_read(tmp_path: Path, values: Any) -> None:
    vae = {"_class_name": "AutoencoderKLWan", "temperal_downsample": values}
    assert model(tmp_path, "WanVideoToVideo", vae | {"scale_factor_spatial": None}).size_multiple >= 1


def test_no_size_goes_beyond_a_table_of_positions(tmp_path: Path) -> None:
    table = {"_class_name": "SD3Transformer2DModel", "patch_size": 2, "pos_embed_max_size": 64}
    spec = model(tmp_path, "StableDiffusion3", KL, **table)
    assert not list(limits(spec, {"height": 1024, "width": 1024}))
    ((name, refused),) = limits(spec, {"height": 1024, "width": 1040})
    assert (name, refused.reason) == ("width", "the model has positions for 1024 pixels")
    assert not list(limits(spec, {}))
