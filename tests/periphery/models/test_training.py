"""Training of tiny pipelines in this process: what it writes, what resumes, what is left as it was."""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import framefleet
from framefleet import JobError, TableError, train
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.media.media import decode
from framefleet.plugins.forecast.plan import plan_job
from framefleet.plugins.train.job import TrainJob
from framefleet.plugins.train.reports import TrainProgress
from framefleet.plugins.train.train import TrainSummary
from tests.commands import command
from tests.compiled import without_kernels
from tests.gguf_files import wan_weights
from tests.jobs import write_table
from tests.tiny import tiny
from tests.training_jobs import SIZE, equal, trained_weights, training_job, write_clips

SAMPLE = {"prompt": "square 1", "seed": 3, "num_inference_steps": 2, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    write_clips(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Tensor]:
    ended = command("train", training_job(folder, "undisturbed"), "--json")
    assert ended.exit_code == 0 and "6/6" in ended.stderr, ended.output
    values = json.loads(ended.stdout)
    assert (values["steps"], values["steps_done"]) == (6, 6)
    return trained_weights(folder / "undisturbed")


def run(folder: Path, output: str, **train_values: Any) -> TrainSummary:
    return train(training_job(folder, output, **train_values))


def test_interrupted_it_saves_the_step_that_was_done_and_comes_to_the_same_bits(
    folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    def interrupt(progress: TrainProgress) -> None:
        if progress.done == 3:
            signal.raise_signal(signal.SIGINT)

    job = training_job(folder, "interrupted", checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        train(job, on_progress=interrupt)
    assert (folder / "interrupted/checkpoints/3/checkpoint.json").exists()
    assert train(job).steps_done == 3
    assert equal(trained_weights(folder / "interrupted"), undisturbed)


def test_a_training_can_be_stopped_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framefleet.plugins.train.train.DriverLock", partial(DriverLock, beat_s=0.01))
    job, steps = training_job(folder, "stopped", steps=1000, checkpoint_every=1000), []

    def stop_once(progress: TrainProgress) -> None:
        steps.append(progress.done)
        if len(steps) == 1:
            framefleet.stop(str(folder / "stopped"))

    with pytest.raises(KeyboardInterrupt):
        framefleet.train(job, on_progress=stop_once)
    assert len(steps) < 1000


def test_samples_on_the_way_leave_the_weights_as_they_would_be(
    folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    run(folder, "sampled", sample_every=4, samples=[SAMPLE])
    assert equal(trained_weights(folder / "sampled"), undisturbed)
    made = sorted(path.relative_to(folder / "sampled") for path in (folder / "sampled/samples").rglob("*.*"))
    assert list(map(str, made)) == [
        f"samples/{step}/{name}" for step in (4, 6) for name in ("01.mp4", "contact-sheet.png")
    ]


def test_the_model_folder_renders_and_keeps_what_was_not_trained(
    folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    model = folder / "undisturbed/model"
    pipe = DiffusionPipeline.from_pretrained(model)
    assert torch.equal(
        dict(pipe.transformer.named_parameters())["proj_out.weight"], undisturbed["proj_out.weight"]
    )
    assert str(tiny("wan")) not in (model / "transformer/config.json").read_text()  # a place of this machine
    kept = "vae/diffusion_pytorch_model.safetensors"
    assert (model / kept).read_bytes() == (tiny("wan") / kept).read_bytes()
    request = framefleet.Request(
        arguments={"prompt": "a", "num_frames": 5, "height": 16, "width": 16, "num_inference_steps": 1}
    )
    (clip,) = framefleet.Renderer(framefleet.load_model(model)).render([request])
    assert isinstance(clip, framefleet.Clip)


def test_a_finished_training_has_nothing_to_do(folder: Path, undisturbed: dict[str, Tensor]) -> None:
    job, output = training_job(folder, "undisturbed"), folder / "undisturbed"
    assert train(job).steps_done == 0
    quiet = command("train", job, "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, f"{output / 'model'}\n", "")
    assert json.loads((output / "train.json").read_text())["rows"]["count"] == 8
    assert (output / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_another_training_is_refused_though_the_checkpoints_were_deleted(folder: Path) -> None:
    run(folder, "tidied")
    shutil.rmtree(folder / "tidied/checkpoints")
    with pytest.raises(JobError, match=r"train\.seed"):
        run(folder, "tidied", seed=1)


def test_trainings_of_the_same_videos_share_what_was_prepared(
    folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    common = folder / "common"

    def kept() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in common.rglob("*.*")}

    run(folder, "first", prepared=str(common))
    assert equal(trained_weights(folder / "first"), undisturbed)
    before = kept()
    job = training_job(folder, "second", prepared=str(common))
    train(yaml.safe_load(job.read_text()) | {"model": str(folder / "first/model")})
    assert before and kept() == before
    assert not (folder / "first/prepared").exists() and not (folder / "second/prepared").exists()


@pytest.mark.parametrize("missing", ["finished.json", "checkpoints"])
def test_fewer_steps_than_were_trained_are_refused(
    missing: str, folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    output = folder / f"without-{missing}"
    shutil.copytree(folder / "undisturbed", output, ignore=shutil.ignore_patterns(missing))
    with pytest.raises(
        JobError, match=r"train.steps is 3, but .* is already trained for 6\nhint: raise it to 6"
    ):
        run(folder, output.name, steps=3)
    assert equal(trained_weights(output), undisturbed)


def test_bad_rows_are_listed_before_anything_is_trained_or_left_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bad", ignore=shutil.ignore_patterns("out*", "*d", "*.yaml"))
    (tmp_path / "bad/0.mkv").write_bytes(b"no video")
    job = training_job(tmp_path / "bad", steps=1)
    with pytest.raises(TableError, match=r"1 of 8 rows cannot be trained on\n.*row 0.*0\.mkv"):
        train(job)
    values = yaml.safe_load(job.read_text()) | {"on_invalid": "skip"}
    assert train(values).steps_done == 1
    assert list((tmp_path / "bad/out/invalid").glob("part-*.parquet"))


def test_cells_of_a_csv_are_text_and_refused_row_by_row(folder: Path) -> None:
    lines = ["video,prompt,max_sequence_length", "0.mkv,1,32", "1.mkv,2,many", "2.mkv,3,32"]
    (folder / "clips.csv").write_text("\n".join(lines))
    job = yaml.safe_load(training_job(folder, "csv", steps=1).read_text())
    job |= {"table": str(folder / "clips.csv"), "on_invalid": "skip"}
    assert train(job).steps_done == 1
    (invalid,) = (folder / "csv/invalid").glob("*.parquet")
    assert pq.read_table(invalid)["row_index"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"precision": "bf17"}, r"`train.precision` is 'bf17'"),
        ({"betas": [0.9, 1.0]}, r"`train.betas` is 1.0\nhint: it must be a number below 1"),
        ({"learning_rate": 1e38}, r"`train.learning_rate` is 1e\+38"),
        ({"stps": 3}, r"unknown key `train.stps`\nhint: did you mean `train.steps`"),
        ({"sample_every": 3}, r"there are no train.samples"),
        ({"samples": [{"seed": 1}]}, r"number 1 has no prompt\nhint: write {prompt: ..., seed: ...}"),
        ({"samples": [{"promt": "a"}]}, r"train.samples: number 1 has 'promt'\nhint: did you mean 'prompt'"),
        ({"part": "autoencoder", "lora": {}}, r"train.lora is set, but train.part is autoencoder"),
        (
            {"part": "autoencoder", "strategy": "fsdp"},
            r"train.strategy is fsdp, but train.part is autoencoder",
        ),
        ({"part": "text_encoder", "batch_size": 1}, r"train.batch_size is 1\nhint: raise it"),
        ({"sizes": [[6, 16, 16]]}, r"train.sizes has \[6, 16, 16\]"),
        ({"batch_size": 9}, r"one step takes 9 rows"),
    ],
)
def test_settings_that_will_not_do_are_refused_with_the_fix(
    values: dict[str, Any], problem: str, folder: Path
) -> None:
    with pytest.raises((JobError, TableError), match=problem):
        run(folder, "refused", **values)


@pytest.mark.parametrize("key", ["base", "parts", "packed"])
def test_weights_that_no_model_folder_is_written_from_are_refused(
    key: str, folder: Path, tmp_path: Path
) -> None:
    vae = next((tiny("wan") / "vae").glob("*.safetensors"))
    model: dict[str, Any] = {"path": str(tiny("wan")), "parts": {"vae": str(vae)}}
    if key == "base":
        save_file(wan_weights(), file := tmp_path / "checkpoint.safetensors")
        model = {"path": str(file), "base": str(tiny("wan"))}
    elif key == "packed":
        model = {"path": str(shutil.copytree(tiny("wan"), tmp_path / "packed"))}
        config = tmp_path / "packed/transformer/config.json"
        packing = {"quantization_config": {"quant_method": "quanto"}}
        config.write_text(json.dumps(json.loads(config.read_text()) | packing))
    job = yaml.safe_load(training_job(folder, f"refused-{key}").read_text()) | {"model": model}
    with pytest.raises(
        JobError, match=r"are packed \(quanto\)" if key == "packed" else rf"model.{key} is set"
    ):
        train(job)
    if key == "parts":  # a LoRA is a file of its own
        job["train"] |= {"lora": {"name": "style", "rank": 2}, "steps": 1}
        assert train(job).result == str(folder / "refused-parts/style.safetensors")
        assert not (folder / "refused-parts/model").exists()


def test_outputs_of_others_stay_as_they_are(folder: Path, undisturbed: dict[str, Tensor]) -> None:
    """Also where rows would be left out, which are noted in the output."""
    (folder / "rendered").mkdir()
    for output, other in (("undisturbed", "train.json"), ("rendered", "job.json")):
        claim, invalid = folder / output / other, folder / output / "invalid/part-0.parquet"
        invalid.parent.mkdir()
        for file in {claim, invalid}:
            if not file.exists():
                file.write_text("{}")
        before = files_in(folder / output)
        job = yaml.safe_load(training_job(folder, output, learning_rate=0.1).read_text())
        with pytest.raises(JobError, match=r"has another training|has clips of a render job"):
            train(job | {"on_invalid": "skip"})
        assert files_in(folder / output) == before
        shutil.rmtree(invalid.parent)


def test_a_training_is_no_place_for_clips(folder: Path, undisturbed: dict[str, Tensor]) -> None:
    write_table(folder / "prompts.parquet", [{"prompt": "square 1"}])
    job = {
        "table": str(folder / "prompts.parquet"),
        "output": str(folder / "undisturbed"),
        "model": str(tiny("wan")),
    }
    with pytest.raises(JobError, match=r"undisturbed/? belongs to a job with `train`"):
        plan_job(Job(**job), Callback())


def files_in(folder: Path) -> dict[Path, bytes]:
    files = (file for file in folder.rglob("*.*") if file.is_file())
    return {file: file.read_bytes() for file in files}


def test_samples_may_begin_with_a_picture(folder: Path) -> None:
    job = yaml.safe_load(training_job(folder, "pictures", steps=1).read_text())
    Image.new("RGB", SIZE[1:], "red").save(folder / "first.png")
    job |= {"model": str(tiny("wan_i2v")), "defaults": {}, "inputs": {"roots": [str(folder)]}}
    job["train"]["samples"] = [{"prompt": "a", "image": "first.png", "num_inference_steps": 1}]
    train(job)
    assert decode((folder / "pictures/samples/1/01.mp4").read_bytes()).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("option", "part", "problem"),
    [
        ("attention=sage", "denoiser", r"'sage' gives gradients(.|\n)*native"),
        ("vae_slicing=true", "autoencoder", "vae_slicing or vae_tiling is set"),
        ("dtype={transformer: bf16}", "denoiser", r"trained weights are fp32(.|\n)*precision: bf16"),
    ],
)
def test_options_of_a_model_that_cannot_be_trained_with_are_refused(
    option: str, part: str, problem: str, folder: Path
) -> None:
    job = load_job(training_job(folder, "refused", part=part), [f"model.{option}"], kind=TrainJob)
    with pytest.raises(JobError, match=problem):
        train(job)


@pytest.mark.parametrize(("part", "component"), [("autoencoder", "vae"), ("text_encoder", "text_encoder")])
def test_other_parts_are_trained_by_the_same_command(part: str, component: str, folder: Path) -> None:
    run(folder, part, part=part, steps=2, checkpoint_every=100)
    before = load_file(next((tiny("wan") / component).glob("*.safetensors")))
    after = trained_weights(folder / part, component)
    assert before.keys() == after.keys() and not equal(before, after)


def test_precision_bf16_and_gradient_checkpointing_train(folder: Path) -> None:
    run(folder, "bf16", precision="bf16", save_dtype="bf16", gradient_checkpointing=True, steps=2)
    kept = [load_file(file) for file in (folder / "bf16" / "checkpoints").rglob("*.safetensors")]
    assert kept and all(value.dtype == torch.float32 for state in kept for value in state.values())
    assert {value.dtype for value in trained_weights(folder / "bf16").values()} == {torch.bfloat16}


@pytest.mark.parametrize("has_kernels", [False, pytest.param(True, marks=pytest.mark.long)])
def test_compiled_blocks_learn_the_same_by_rounding(
    folder: Path, undisturbed: dict[str, Tensor], has_kernels: bool
) -> None:
    job = load_job(training_job(folder, "compiled"), ["model.compile=true"], kind=TrainJob)
    with nullcontext([None]) if has_kernels else without_kernels() as graphs:
        train(job)
    assert graphs, "it compiles"
    compiled = trained_weights(folder / "compiled")
    assert all(torch.allclose(compiled[name], value, atol=1e-4) for name, value in undisturbed.items())
