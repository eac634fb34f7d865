"""Whatever a pipeline returns and `keep:` stores is in the output, of former versions too, and exported."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

import framefleet
from framefleet import (
    Given,
    JobError,
    ModelError,
    RenderError,
    Request,
    Store,
    open_output,
    replay,
    replay_script,
)
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.layout import extras_path
from framefleet.pipeline.outputs.media.media import decode, decode_floats
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.plugins.demo.prepare import MODEL
from framefleet.plugins.export.trajectories import arrays_of
from tests.commands import command
from tests.here import render_here, run_script
from tests.jobs import job_values, write_job, write_table
from tests.pictures import write_starts
from tests.tiny import SMALLEST, UNLIKE, tiny

ROW: dict[str, Any] = {"prompt": "a red ball", "seed": 5}


def values_of(folder: Path, model: str, *, row: dict[str, Any] = ROW, **more: Any) -> dict[str, Any]:
    values = job_values(write_table(folder / "t.parquet", [row]), folder / "out", model=model, **more)
    return values | {"defaults": (SMALLEST | UNLIKE)[model]}


def rendered(folder: Path, model: str, **more: Any) -> tuple[Store, Record]:
    output, (row_id,) = render_here(values_of(folder, model, **more))
    store = Store(output)
    return store, find_record(store, row_id)


def content(record: Record) -> bytes:
    return Path(record.uri.removeprefix("file://")).read_bytes()


def plain_call(model: str, **more: Any) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny(model))
    generator = torch.Generator("cpu").manual_seed(ROW["seed"])
    return pipe(**UNLIKE[model], prompt=ROW["prompt"], generator=generator, output_type="np", **more)


def test_layers_are_a_zip_of_pngs_with_alpha(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    _, record = rendered(tmp_path, "qwen_layered", row=ROW | {"image": "a.png"})
    layers = plain_call("qwen_layered", image=Image.fromarray(noise)).images[0]
    assert record.uri.endswith(".png.zip")
    assert (record.frames_format, record.num_frames, record.fps) == ("rgba uint8", 2, None)
    assert np.array_equal(decode(content(record)), (layers * 255).round().astype(np.uint8))
    assert record.frames_sha256 == frames_sha256(decode(content(record)))
    with pytest.raises(JobError, match="renders layers"):  # of which one PNG has one
        values = values_of(tmp_path, "qwen_layered", row=ROW | {"image": "a.png"}, media={"format": "png"})
        resolve_job(load_job(values), Callback())


def test_light_beyond_one_is_kept_in_a_format_that_has_it_and_made_again(tmp_path: Path) -> None:
    store, record = rendered(tmp_path, "ltx2_hdr", media={"format": "exr.zip"})
    plain = plain_call("ltx2_hdr").frames[0]
    assert plain.max() > 1
    assert record.frames_format == "rgb float32"
    assert np.array_equal(decode_floats(content(record)), plain)
    assert record.frames_sha256 == frames_sha256(plain)
    assert run_script(replay_script(store.url_of(""), record.row_id)).startswith("the same frames")
    (tmp_path / "mp4").mkdir()
    with pytest.raises(RenderError, match=r"not \[0, 1\]") as caught:
        render_here(values_of(tmp_path / "mp4", "ltx2_hdr"))
    assert "exr.zip" in caught.value.fix


def with_camera(pipe: Any, request: Request) -> dict[str, Any]:
    """Return more than frames, as SANA's world model, LTX-2's keyframes and ERNIE's rewriter do."""
    output = pipe(**request.arguments, generator=request.generator(), output_type="np")
    camera = torch.eye(4).repeat(5, 1, 1)
    return {**output, "c2w": camera, "revised_prompts": ["一个红球"], "positions": [0, 2]}


def test_other_outputs_are_kept_beside_the_clip_and_compared(tmp_path: Path) -> None:
    recipe = f"{__name__}:with_camera"
    store, record = rendered(tmp_path, "wan", recipe=recipe)
    assert record.extra_outputs == '{"positions":[0,2],"revised_prompts":["一个红球"]}'
    path = extras_path(record.row_id)
    assert store.list("extras") == [path]
    assert torch.equal(load(store.read(path))["c2w"], torch.eye(4).repeat(5, 1, 1))
    replayed = replay(store.url_of(""), record.row_id, Given(recipe=recipe))
    names = [name for name, then, now in replayed.digests if then == now]
    assert names == ["frames_sha256", "extra_outputs", "extra_outputs_sha256", "media_sha256"]


@pytest.mark.parametrize("model", ["marigold_depth", "ldm3d"])
def test_a_map_of_a_picture_is_an_array_beside_the_clip(model: str, tmp_path: Path) -> None:
    row = {"image": write_starts(tmp_path, num_frames=1)[0], "seed": 5} if model == "marigold_depth" else ROW
    store, record = rendered(tmp_path, model, row=row)
    kept = load(store.read(record.extra_outputs_path or ""))
    if model == "ldm3d":
        assert kept["depth"].shape == (1, 16, 16, 1)
    else:
        shown = (kept["prediction"].numpy().repeat(3, axis=-1) * 255).round()
        assert np.array_equal(decode(content(record)), shown.astype(np.uint8))
    replayed = replay(store.url_of(""), record.row_id, Given())
    assert all(then == now for _, then, now in replayed.digests)


def test_a_model_that_makes_neither_frames_nor_sound_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd"), tmp_path / "model")
    index = folder / "model_index.json"
    changed = json.loads(index.read_text()) | {"_class_name": "StableCascadePriorPipeline"}
    index.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="neither frames nor sound, but image_embeddings"):
        inspect_model(folder)


# output: five rows that an earlier version rendered. output_with_drafts: four drafts, of which one failed
# while the best of the others were rendered in full.
REFERENCES = Path(__file__).parents[1] / "references"


def planned(output: Path) -> dict[str, str]:
    """Return how many rows `framefleet plan` finds done, and how many it would render."""
    written = json.loads((output / "job.json").read_text("utf-8"))["job"]
    job = {key: written[key] for key in ("table", "defaults", "batching")}
    job |= {"output": str(output), "model": {"path": str(MODEL), "device": "cpu"}}
    ended = command("plan", str(write_job(output / "job.yaml", job)), exits=0)
    return dict(re.findall(r"(done|to render) +(\d+)", ended.stdout))


def test_rows_that_the_former_version_recorded_are_done_and_another_is_the_only_one_to_render(
    tmp_path: Path,
) -> None:
    output = shutil.copytree(REFERENCES / "output", tmp_path / "output")
    claim, table = output / "job.json", output / "table.csv"
    ours = ["row_id", "preview_path", "extra_outputs"]  # the second and third came later
    assert (
        sum(len(table) for table in framefleet.Output.open(str(output)).records(ours, where="seed >= 0")) == 5
    )
    values = json.loads(claim.read_text("utf-8"))
    values["job"]["table"] = str(table)  # where it lies now
    claim.write_text(json.dumps(values), encoding="utf-8")
    assert planned(output) == {"done": "5", "to render": "0"}
    table.write_text(table.read_text("utf-8") + "a blue triangle,6,2,,,,,5\n", encoding="utf-8")
    assert planned(output) == {"done": "5", "to render": "1"}


def test_an_output_with_drafts_and_a_failure_is_read_as_before(tmp_path: Path) -> None:
    place = shutil.copytree(REFERENCES / "output_with_drafts", tmp_path / "output")
    found = framefleet.status(place)
    assert (found.num_rows, found.num_done, found.num_failed, found.num_left) == (2, 2, 0, 0)
    drafts = found.inner["drafts"]
    assert (drafts.num_rows, drafts.num_done, drafts.num_failed, drafts.num_left) == (4, 3, 1, 0)
    (failure,) = framefleet.failures(place)
    assert (failure.seed, failure.message) == (3, "this row cannot be rendered")
    for folder in (place, place / "drafts"):
        assert framefleet.verify(folder, files=True).is_well
    assert command("gallery", str(place)).exit_code == 0


FOX = {"prompt": "a fox", "num_inference_steps": 3, "scheduler": "euler_a"}
KEEP = {"latents": [0, -1, 1], "log_probs": True, "text_embeddings": True}


def kept(folder: Path, keep: dict[str, Any], seeds: range) -> str:
    """Render rows into the same output, whatever is kept of their steps."""
    table = write_table(folder / "t.parquet", [FOX | {"seed": seed} for seed in seeds])
    values = job_values(table, folder / "out", model="sd") | {"defaults": SMALLEST["sd"], "keep": keep}
    return render_here(values)[0]


def test_trajectories_are_what_was_stored_and_the_rest_is_reported(tmp_path: Path) -> None:
    import webdataset

    place = kept(tmp_path, {}, range(1))
    refused = command("export", place, tmp_path / "none", "--format", "trajectories")
    assert refused.exit_code == 2 and "keep: {latents: all}" in refused.stderr
    kept(tmp_path, KEEP, range(1, 3))
    for format in ("trajectories", "trajectories-parquet"):
        result = command("export", place, tmp_path / format, "--format", format, "--shard-rows", "1", exits=0)
        assert "left out: 1 clip without stored latents" in result.stderr
        assert "not stored for every row: sigmas; `keep: {sigmas: true}`" in result.stderr
    output = open_output(place)
    records = {row["row_id"]: row for table in output.records() for row in table.to_pylist()}
    shards = str(tmp_path / "trajectories/shard-{000000..000001}.tar")
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    rows = pq.read_table(tmp_path / "trajectories-parquet").to_pylist()
    assert len(samples) == len(rows) == 2
    for sample, row in zip(samples, rows, strict=True):
        assert sample["__key__"] == row["row_id"]
        record = records[row["row_id"]]
        stored = {name: tensor.numpy() for name, tensor in output.extras(record).items()}
        clip = Path(place, record["path"]).read_bytes()
        assert row["image"]["bytes"] == sample["png"] == clip
        expected = {
            "latents": np.concatenate([stored[f"latents.{step}"] for step in (0, 1, -1)]),
            "latent_steps": np.array([0, 1, 3]),
            "timesteps": stored["timesteps"],
            "log_probs": stored["log_probs"],
        }
        cells = {name: np.load(io.BytesIO(row[name])) for name in expected}
        embeddings = [np.load(io.BytesIO(cell)) for cell in row["text_embeddings"]]
        for name, array in expected.items():
            for read in (cells[name], sample[f"{name}.npy"]):  # with NaN in log_probs
                assert (read.dtype, read.tobytes()) == (array.dtype, array.tobytes())
        for place_of, embedding in enumerate(embeddings):
            assert np.array_equal(embedding, stored[f"text_embeddings.0.{place_of}"])
            assert np.array_equal(sample[f"text_embeddings.0.{place_of}.npy"], embedding)
        assert len(embeddings) == 2 and row["sigmas"] is None and "sigmas.npy" not in sample


def test_a_damaged_file_of_arrays_leaves_its_row_out(tmp_path: Path) -> None:
    place = kept(tmp_path, {"latents": [-1]}, range(2))
    next(Path(place, "extras").iterdir()).write_bytes(b"torn")
    result = command("export", place, tmp_path / "to", "--format", "trajectories")
    assert result.exit_code == 1 and "1 clip in 1 shard" in result.stderr


@pytest.mark.parametrize("names", [["timesteps"], ["latents.0"], ["timesteps", "latents.x"]])
def test_arrays_that_are_no_trajectory_are_refused(names: list[str]) -> None:
    import torch

    with pytest.raises(JobError, match="no trajectory"):
        arrays_of(save({name: torch.zeros(2) for name in names}), "0" * 32)
    halves = {"timesteps": torch.zeros(2), "latents.0": torch.full((1, 2), 1 / 3, dtype=torch.bfloat16)}
    names = ("text_embeddings.0.10", "text_embeddings.0.2", "text_embeddings./../x")  # it may be anybody's
    arrays = arrays_of(save(halves | {name: torch.zeros(1) for name in names}), "0" * 32)
    assert [*arrays] == ["latents", "latent_steps", names[1], names[0], "timesteps"]
    assert arrays["latents"].dtype == np.float32
