"""What a model cannot render although its pipeline takes it, refused before the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.configs import FLOW, SD, WAN, write_model

LEVELS = {"block_out_channels": [1, 2, 3, 4], "temporal_compression_ratio": 4}
LEARNED = {
    "use_learned_positional_embeddings": True,
    "sample_height": 60,
    "sample_width": 90,
    "patch_size": 2,
}
PICTURE: dict[str, Any] = {"uri": "last.png", "sha256": "0"}


def spec_of(folder: Path, class_name: str, configs: dict[str, Any], **settings: Any) -> PipelineSpec:
    return inspect_model(write_model(folder, class_name, configs, **settings))


def wan(
    folder: Path, *, task: str = "ImageToVideo", index: dict[str, Any] | None = None, **transformer: Any
) -> PipelineSpec:
    configs = WAN | {"transformer": WAN["transformer"] | transformer}
    return spec_of(folder, f"Wan{task}Pipeline", configs, **(index or {}))


def told(spec: PipelineSpec, **arguments: Any) -> list[tuple[str, str, str]]:
    return [(name, refused.reason, refused.fix) for name, refused in limits(spec, arguments)]


def test_text_and_picture_have_the_sizes_that_the_model_learned(tmp_path: Path) -> None:
    learned = {"vae": LEVELS, "transformer": LEARNED, "scheduler": FLOW}
    spec = spec_of(tmp_path / "learned", "CogVideoXImageToVideoPipeline", learned)
    assert told(spec) == told(spec, height=480, width=720) == []
    size = ("width", "the model only learned 480 x 720 pixels", "use 720")
    assert told(spec, height=480, width=1360) == [size]
    flux = spec_of(tmp_path / "flux", "FluxPipeline", {"vae": LEVELS, "transformer": {}, "scheduler": FLOW})
    assert told(flux, max_sequence_length=512) == []
    text = ("max_sequence_length", "the pipeline takes at most 512 tokens", "use 512 or less")
    assert told(flux, max_sequence_length=513) == [text]
    for rotary, expected in ((False, ["use 226"]), (True, [])):
        configs = {"vae": LEVELS, "transformer": {"use_rotary_positional_embeddings": rotary}}
        spec = spec_of(tmp_path / str(rotary), "CogVideoXPipeline", configs | {"scheduler": FLOW})
        assert told(spec, max_sequence_length=226) == []
        assert [fix for _, _, fix in told(spec, max_sequence_length=100)] == expected


def test_beside_an_embedded_picture_the_text_has_one_length(tmp_path: Path) -> None:
    spec = wan(tmp_path / "2.1", image_dim=1280)
    assert told(spec, max_sequence_length=512) == []
    assert told(wan(tmp_path / "2.2"), max_sequence_length=226) == []
    table = pa.RecordBatch.from_pydict({"prompt": ["a"], "tokens": [226]})
    spec = wan(tmp_path / "text", task="", image_dim=1280)
    (row,) = plan_rows(table.schema, spec, columns={"max_sequence_length": "tokens"}).rows(0, table)
    assert isinstance(row, InvalidRow)
    ((problem, fix),) = row.messages()
    assert problem.startswith("row 0: tokens is 226, but with a picture") and "512 tokens as text" in problem
    assert fix == "use 512"


def test_a_last_image_needs_a_model_that_looks_at_it(tmp_path: Path) -> None:
    assert told(wan(tmp_path / "2.2"), last_image=PICTURE) == []
    assert told(wan(tmp_path / "flf", image_dim=1280, pos_embed_seq_len=514), last_image=PICTURE) == []
    for spec in (
        wan(tmp_path / "2.1", image_dim=1280),
        wan(tmp_path / "5b", index={"expand_timesteps": True}),
    ):
        ((name, reason, fix),) = told(spec, last_image=PICTURE)
        assert (name, reason) == ("last_image", "the model starts from a first image only")
        assert "FLF2V" in fix


@pytest.mark.parametrize(("low", "high", "fine"), [(1, 1, True), (1, 3, True), (3, 2, True), (1.5, 1, False)])
def test_guidance_that_is_on_is_on_at_the_maximum(
    tmp_path: Path, low: float, high: float, fine: bool
) -> None:
    spec = spec_of(tmp_path, "StableVideoDiffusionPipeline", SD)
    problems = told(spec, min_guidance_scale=low, max_guidance_scale=high)
    assert [name for name, _, _ in problems] == ([] if fine else ["min_guidance_scale"])


def test_a_strength_that_leaves_no_step_is_refused(tmp_path: Path) -> None:
    spec = wan(tmp_path, task="VideoToVideo")
    assert told(spec, num_inference_steps=2) == []  # with the 0.8 of the signature
    for given in ({"num_inference_steps": 1}, {"num_inference_steps": 4, "strength": 0.2}):
        ((name, reason, _),) = told(spec, **given)
        assert name == "strength"
        assert "leaves none" in reason


def test_a_second_guidance_scale_needs_a_second_transformer(tmp_path: Path) -> None:
    one, two = wan(tmp_path / "2.1", task=""), wan(tmp_path / "2.2", task="", index={"boundary_ratio": 0.9})
    ((name, reason, fix),) = told(one, guidance_scale_2=3.0)
    assert (name, fix) == ("guidance_scale_2", "leave it out")
    assert "one transformer" in reason
    assert told(one) == told(two, guidance_scale_2=3.0) == []
