"""What a pipeline states about itself is taken from it; what a model lacks is known before it is loaded."""

from __future__ import annotations

import io
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import av
import diffusers
import pytest
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks

import framefleet
from framefleet import Clip, ModelError, Renderer, Request, Store, load_model
from framefleet.pipeline.model import modular
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.modular import ModularRows
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.commands import command
from tests.here import render_here
from tests.ip_adapters import ENCODER, save_ip_adapter
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.tiny import SMALLEST, tiny

INDEX = "modular_model_index.json"


class OddModularPipeline(diffusers.WanModularPipeline):  # type: ignore[misc]
    """Of a month to come: what it states is stated nowhere else, and in words of its own."""

    default_blocks_name = "WanBlocks"

    @property
    def fps(self) -> float:
        return 12.0 if self.vae_scale_factor_temporal == 4 else 10.0

    @property
    def max_duration(self) -> float:
        return 2.0

    @property
    def canvas_multiple(self) -> int:
        return 2 * self.vae_scale_factor_spatial


def without(folder: Path, place: Path, *names: str) -> Path:
    """Return a copy of a model whose index leaves components null, as a partial download does."""
    shutil.copytree(folder, place)
    index = json.loads((place / INDEX).read_text())
    for name in names:
        _, _, said = index[name]
        index[name] = [None, None, {**said, "pretrained_model_name_or_path": None}]
    (place / INDEX).write_text(json.dumps(index))
    return place


def test_minimax_h3_says_its_rate_its_lengths_and_its_sizes() -> None:
    spec = inspect_model(tiny("minimax_h3"))
    assert (spec.native_fps, spec.size_multiple, spec.default_frames) == (24.0, 32, 124)
    assert (spec.frame_step, spec.frame_rest, spec.min_frames, spec.max_frames) == (17, 5, 124, 345)


def test_picture_and_sound_of_minimax_h3_are_in_step_in_the_file(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", [{"prompt": "a red ball", "num_frames": 141, "seed": 1}])
    values = job_values(table, tmp_path / "out", model="minimax_h3")
    output, _ = render_here(values | {"media": {"format": "mp4"}, "defaults": SMALLEST["minimax_h3"]})
    (record,) = records_of(output)
    assert (record["fps"], record["fps_source"], record["num_frames"]) == (24.0, "model", 141)
    assert record["duration_s"] == pytest.approx(record["audio_duration_s"], abs=1 / 24)
    with av.open(io.BytesIO(Store(output).read(record["path"]))) as file:
        pictures, sound = file.streams.video[0], file.streams.audio[0]
        assert (pictures.average_rate, pictures.frames, sound.rate, sound.channels) == (24, 141, 32_000, 2)


def model_of(place: Path, monkeypatch: pytest.MonkeyPatch, name: str, *classes: type) -> Path:
    """Return a copy of a tiny model whose pipeline, and whose blocks, are of these classes."""
    for made in classes:
        monkeypatch.setattr(diffusers, made.__name__, made, raising=False)
    modular.modular_class.cache_clear()
    folder = shutil.copytree(tiny(name), place / "odd")
    (file,) = folder.glob("*model_index.json")
    names = zip(("_class_name", "_blocks_class_name"), (made.__name__ for made in classes), strict=False)
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(names)))
    return folder


def test_a_pipeline_that_nobody_planned_for_states_its_own_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = inspect_model(model_of(tmp_path, monkeypatch, "wan_modular", OddModularPipeline))
    assert (spec.native_fps, spec.max_frames, spec.size_multiple % 16) == (12.0, 24, 0)


class OddUpper(diffusers.WanPipeline):  # type: ignore[misc]
    """A pipeline of a month to come, whose family nobody knows, with its rate as a constant."""

    FPS = 12


class OddAttribute(OddUpper):
    FPS, RATE = None, 12

    def __init__(self, *components: Any, **named: Any) -> None:
        super().__init__(*components, **named)
        self.frame_rate = self.RATE


class OddProperty(OddUpper):
    @property
    def frame_rate(self) -> float:
        return self.FPS / 1


def constant(name: str) -> type:
    return type("OddConstant", (diffusers.WanPipeline,), {name: 12, "__module__": __name__})


@pytest.mark.parametrize(
    "made",
    [
        *map(constant, ("fps", "frame_rate", "default_fps", "sample_fps", "DEFAULT_FRAMES_PER_SECOND")),
        *(OddUpper, OddAttribute, OddProperty),
    ],
)
def test_a_rate_that_is_a_constant_of_a_pipelines_class_is_that_of_its_files(
    made: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspect_model(model_of(tmp_path, monkeypatch, "wan", made)).native_fps == 12.0


class SilentBlocks(WanBlocks):  # type: ignore[misc]
    """Blocks that do not say what they give: diffusers names all that they hand to one another."""

    outputs = diffusers.SequentialPipelineBlocks.outputs


class SilentModularPipeline(diffusers.WanModularPipeline):  # type: ignore[misc]
    default_blocks_name = "SilentBlocks"


def test_blocks_without_outputs_of_their_own_give_what_the_last_of_them_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_of(tmp_path, monkeypatch, "wan_modular", SilentModularPipeline, SilentBlocks)
    arguments = SMALLEST["wan_modular"] | {"prompt": "a red ball"}
    silent, usual = (
        next(Renderer(load_model(place, dtype="fp32")).render([Request(arguments=arguments, seed=1)]))
        for place in (folder, tiny("wan_modular"))
    )
    assert isinstance(silent, Clip) and isinstance(usual, Clip)
    assert (silent.frames_sha256, silent.extras.json()) == (usual.frames_sha256, usual.extras.json())


@pytest.mark.parametrize(
    ("missing", "more", "problem"),
    [
        ("transformer_ref", {}, None),
        ("transformer_ref", {"references": []}, "the model has no transformer_ref, which it needs"),
        ("transformer", {"references": []}, None),
        ("transformer", {}, "the model has no transformer, which this row needs"),
    ],
)
def test_rows_of_a_workflow_whose_component_is_null_are_refused(
    missing: str, more: dict[str, Any], problem: str | None, tmp_path: Path
) -> None:
    rules = ModularRows(inspect_model(without(tiny("minimax_h3"), tmp_path / "model", missing)))
    arguments = {"prompt": "a", **more}
    _, problems = rules({**SMALLEST["minimax_h3"], **arguments}, arguments.keys())
    assert [refused.reason for _, refused in problems] == ([problem] if problem else [])


def test_a_model_that_can_run_no_workflow_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    folder = without(tiny("minimax_h3"), tmp_path / "model", "audio_vae")
    with pytest.raises(ModelError, match="cannot run without audio_vae, null in its index"):
        inspect_model(folder)


def test_a_component_that_blocks_look_for_may_be_null(tmp_path: Path) -> None:
    rules = ModularRows(
        inspect_model(without(tiny("sd3_modular"), tmp_path / "model", "text_encoder_3", "tokenizer_3"))
    )
    assert rules({**SMALLEST["sd3_modular"], "prompt": "a"}, {"prompt"})[1] == []


MAX_MORE_BYTES = 1 << 30
# By file: values, and what the error names.
GREEDY: dict[str, tuple[str, dict[str, Any], str]] = {
    "tables of positions": (
        "transformer/config.json",
        {"rope_max_seq_len": 10**6, "attention_head_dim": 4096},
        "rope_max_seq_len 1000000, attention_head_dim 4096",
    ),
    "channels": ("vae/config.json", {"base_dim": 10**5}, "base_dim 100000"),
    "a product of small numbers": ("transformer/config.json", {"num_attention_heads": 4000}, "heads 4000"),
    "levels": ("vae/config.json", {"dim_mult": [2000, 2000]}, "dim_mult 2000"),
    "words": ("text_encoder/config.json", {"vocab_size": 10**11}, "vocab_size 100000000000"),
}
SMALL = ("a product of small numbers", "levels")  # seen by who builds them: `plan` starts no process for them


def change(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def greedy(name: str, folder: Path) -> tuple[Path, str]:
    file, values, named = GREEDY[name]
    shutil.copytree(tiny("wan"), folder)
    change(folder / file, values)
    return folder, named


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_config_is_refused_before_its_network_is_built(name: str, tmp_path: Path) -> None:
    folder, named = greedy(name, tmp_path / "wan")
    before = peak_bytes()
    with pytest.raises(ModelError, match=GREEDY[name][0]) as caught:
        framefleet.load_model(folder)
    assert named in caught.value.problem and "bytes" in caught.value.problem and caught.value.fix
    settings = ModelSettings(path=str(folder))
    with pytest.raises(ModelError, match="the largest values are"):
        weights_of(settings, source_of(settings)).configs(is_built=True)
    assert peak_bytes() - before < MAX_MORE_BYTES


@pytest.mark.parametrize("name", [name for name in GREEDY if name not in SMALL])
def test_plan_refuses_a_greedy_config(name: str, tmp_path: Path) -> None:
    folder, named = greedy(name, tmp_path / "wan")
    table = write_table(tmp_path / "t.parquet", prompt_rows(1))
    job = write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out") | {"model": str(folder)})
    ended = command("plan", job)
    assert ended.exit_code == 2 and GREEDY[name][0] in ended.stderr and named in ended.stderr


def test_an_image_encoder_of_a_greedy_config_is_not_built(tmp_path: Path) -> None:
    adapter = save_ip_adapter(tmp_path)
    change(tmp_path / ENCODER / "config.json", {"image_size": 10**7, "patch_size": 1})
    with pytest.raises(ModelError, match=r"image_encoder/config\.json.*image_size 10000000"):
        framefleet.load_model(tiny("sd"), ip_adapter=adapter)
