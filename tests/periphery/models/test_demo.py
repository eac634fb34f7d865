"""The shipped model is small and does as it is told; the demo's table takes one's own words."""

from __future__ import annotations

import csv
from pathlib import Path

import diffusers
import pytest
import torch

from framefleet import Batching, JobError, Request, load_model
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.plugins.demo.prepare import MODEL, PROMPTS, Size, prepare_demo
from tests.here import render_here
from tests.jobs import job_values, records_of, write_table
from tests.pictures import clip, write_starts
from tests.unaudited import unaudited
from tools.shapes.measure import measure
from tools.shapes.prompts import prompt_rows
from tools.shapes.scenes import SIZE

SHAPES = dict(next(one.arguments for one in PRESETS if one.name == "framefleet-shapes"))
PARTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
MAX_BYTES = 12 * 10**6  # of all weights; a newcomer downloads them with the package


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "prompts.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_shipped_model_is_small_and_holds_no_pickle() -> None:
    weights = {file for file in MODEL.rglob("*") if file.stat().st_size > 100_000}
    assert {file.suffix for file in weights} == {".safetensors"}
    assert sum(file.stat().st_size for file in weights) <= MAX_BYTES


@pytest.mark.parametrize(
    ("language", "size", "num_scenes", "least_right"),
    [
        ("en", SIZE, 2, {"color": 2, "background": 2, "shape": 1, "motion": 2}),
        ("zh", SIZE, 2, {"color": 2, "background": 2, "shape": 1, "motion": 2}),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("en", SIZE, 12, {"color": 12, "background": 12, "shape": 9, "motion": 11}),
                ("zh", SIZE, 8, {"color": 8, "background": 8, "shape": 5, "motion": 7}),
                ("en", Size(33, 64, 64), 4, {"color": 4, "background": 4, "shape": 2, "motion": 3}),
                ("zh", Size(17, 96, 96), 4, {"color": 4, "background": 4, "shape": 2, "motion": 3}),
            )
        ),
    ],
    ids=str,
)
def test_held_out_prompts_are_followed(
    language: str, size: Size, num_scenes: int, least_right: dict[str, int]
) -> None:
    rows = prompt_rows(
        num_scenes=num_scenes,
        languages=[language],
        guidance_scales=[float(SHAPES["guidance_scale"])],
        sizes=[size],
    )
    arguments = [SHAPES | size._asdict() | {"prompt": row["prompt"]} for row in rows]
    requests = [Request(arguments=given, seed=index) for index, given in enumerate(arguments)]
    renderer = unaudited(load_model(MODEL, device="cpu"), Batching())
    seen = {clip.request.seed: measure(clip.frames) for clip in renderer.render(requests)}
    for attribute, least in least_right.items():
        right = [getattr(seen[index], attribute) == row[attribute] for index, row in enumerate(rows)]
        assert sum(right) >= least, attribute


def test_ones_own_words_are_rows_beside_those_that_are_there(tmp_path: Path) -> None:
    prepare_demo(tmp_path, ["a red ball bounces"], num_seeds=3)
    assert [(row["prompt"], row["seed"]) for row in rows_of(tmp_path)] == [
        ("a red ball bounces", str(seed)) for seed in range(3)
    ]
    prepare_demo(tmp_path, ["一个绿色的方块变大"])
    assert len(rows_of(tmp_path)) == 4
    assert rows_of(tmp_path)[-1]["prompt"] == "一个绿色的方块变大"


def test_ones_own_words_have_the_size_that_was_asked_for(tmp_path: Path) -> None:
    prepare_demo(tmp_path, ["a red ball bounces"], Size(33, 64, 96))
    sizes = {tuple(row[name] for name in Size._fields) for row in rows_of(tmp_path)}
    assert sizes == {("33", "64", "96")}
    with pytest.raises(JobError, match="is for your own prompts"):
        prepare_demo(tmp_path, [], Size(33, 64, 96))


@pytest.mark.parametrize(
    ("words", "size", "place"),
    [
        ("a red ball", Size(10, 64, 64), "num_frames is 10"),
        ("a red ball", Size(9, 64, 72), "width is 72"),
        (" ", None, "prompt is ' '"),
    ],
)
def test_what_the_model_does_not_render_is_refused_before_it_is_in_the_table(
    tmp_path: Path, words: str, size: Size | None, place: str
) -> None:
    with pytest.raises(JobError, match=place):
        prepare_demo(tmp_path, [words], size)
    assert not any(tmp_path.iterdir())


def test_words_are_added_to_a_table_as_editors_save_it(tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text('"prompt","seed"\r\n"a star, blue",1', encoding="utf-8-sig")
    prepare_demo(tmp_path, ["a red ball bounces"])
    assert [row["prompt"] for row in rows_of(tmp_path)] == ["a star, blue", "a red ball bounces"]


def test_a_table_that_lacks_a_column_for_ones_words_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt,seed\na blue star,1\n", encoding="utf-8")
    with pytest.raises(JobError, match="no column 'num_frames'"):
        prepare_demo(tmp_path, ["a red ball bounces"], Size(33, 64, 96))
    prepare_demo(tmp_path, ["a red ball bounces"])
    assert [len(row) for row in rows_of(tmp_path)] == [2] * 2


@pytest.mark.parametrize("name", ["job.yaml", "job.json"])
def test_a_folder_of_another_job_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(JobError, match="choose another --output"):
        prepare_demo(tmp_path, ["a red ball bounces"])
    assert [file.read_text("utf-8") for file in tmp_path.iterdir()] == ["{}"]


def test_without_words_the_table_is_the_shipped_one_and_a_changed_one_stays(tmp_path: Path) -> None:
    job = prepare_demo(tmp_path)
    assert (tmp_path / "prompts.csv").read_bytes() == PROMPTS.read_bytes()
    assert job.model.path == str(MODEL)
    (tmp_path / "prompts.csv").write_text("prompt\na blue star\n", encoding="utf-8")
    prepare_demo(tmp_path)
    assert [row["prompt"] for row in rows_of(tmp_path)] == ["a blue star"]


def test_the_shipped_model_renders_over_a_video(tmp_path: Path) -> None:
    """diffusers' pipeline for it takes 2 x 2 pixels for a latent, and the autoencoder packs 8 x 8."""
    video = write_starts(tmp_path, num_frames=9)[0]
    arguments = {"height": 64, "width": 64, "num_inference_steps": 4, "strength": 0.5}
    row = {"prompt": "a red circle", "video": video, "seed": 3, **arguments}
    values = job_values(write_table(tmp_path / "t.parquet", [row]), tmp_path / "out")
    values |= {"model": {"path": str(MODEL), "dtype": "fp32"}, "recipe": "video_to_video", "defaults": {}}
    values["inputs"] = {"fit": "stretch"}
    output, _ = render_here(values)
    parts = diffusers.WanPipeline.from_pretrained(MODEL, dtype=torch.float32).components
    pipe = diffusers.WanVideoToVideoPipeline(**{name: parts[name] for name in PARTS})
    pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal = 8, 2
    given = {"prompt": "a red circle", "video": clip(0, num_frames=9), **arguments}
    given |= {"guidance_scale": 2.5, "max_sequence_length": 64}  # of its preset
    frames = to_frames(pipe(**given, generator=Request(seed=3).generator(), output_type="np"))
    assert [record["frames_sha256"] for record in records_of(output)] == [frames_sha256(frames)]
