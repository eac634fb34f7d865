"""What under_fire.py compares: the same rows by a plain loop, accelerate, Ray Data and Daft.

    python -m tools.benchmarks.fire_systems SYSTEM FOLDER BUCKET

FOLDER has a table (parts/) and a model. Each system makes its clips by `Renderer`, writes them to the bucket,
which the environment says how to reach, and resumes when it is started again. Where its way comes from:

- plain: the loop over prompts of huggingface.co/docs/diffusers/using-diffusers/batched_inference, and a file
  with a line for each row that is done.
- accelerate: `split_between_processes` of huggingface.co/docs/accelerate/usage_guides/distributed_inference.
  The guide does not say how to resume: rows that have a clip are left out before the others are split.
- Ray Data: `map_batches` with a class and an actor pool, then a write, as
  docs.ray.io/en/latest/data/batch-inference.html has it; a checkpoint as "Configure job-level checkpointing"
  shows it in docs.ray.io/en/latest/data/execution-configurations.html.
- Daft: a class as a function (`daft.cls`), a checkpoint and an idempotent commit to Delta Lake, which is the
  stronger one of the two guarantees in docs.daft.ai/en/stable/use-case/checkpointing.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import boto3
import numpy as np
import pyarrow.parquet as pq

from tools.benchmarks.fire_reader import CLIPS, DONE, RESULTS

# As small as a clip can be: what is compared are faults, not models.
SETTINGS = {
    **{"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 1},
    **{"guidance_scale": 1.0, "max_sequence_length": 32},
}
WORKERS, PART_ROWS = 2, 20
CHECKPOINTS = "checkpoints"


class Renderer:
    """One tiny pipeline. It notes when it begins a row, for who disturbs it."""

    def __init__(self, folder: Path) -> None:
        import diffusers
        import torch

        torch.set_num_threads(1)
        self._pipe = diffusers.DiffusionPipeline.from_pretrained(folder / "model")
        self._pipe.set_progress_bar_config(disable=True)

    def clip(self, prompt: str, seed: int) -> bytes:
        import torch

        # The format of tools/chaos/traced.py, which would import framefleet.
        with open(os.environ["CHAOS_TRACE"], "a") as trace:
            trace.write(f"{seed} {os.getpid()} {socket.gethostname()} {time.time()}\n")
        generator = torch.Generator("cpu").manual_seed(seed)
        frames = self._pipe(prompt, generator=generator, output_type="np", **SETTINGS).frames[0]
        return _encoded((frames * 255).round().astype(np.uint8))


def _encoded(pixels: np.ndarray) -> bytes:
    """Return an mp4 of frames, (T, H, W, 3), by way of a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        with av.open(f"{folder}/clip.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=16, options={"threads": "1"})
            stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
            for frame in pixels:
                rgb = av.VideoFrame.from_ndarray(frame, "rgb24")
                # With several threads, PyAV 18 changes a frame in 1 of 600 clips; so, in 1 of 3,000.
                container.mux(stream.encode(rgb.reformat(format="yuv420p", threads=1)))
            container.mux(stream.encode())
        return Path(folder, "clip.mp4").read_bytes()


def plain(folder: Path, bucket: str) -> None:
    done_file = folder / DONE
    done = set(done_file.read_text().split()) if done_file.exists() else set()
    renderer, store = Renderer(folder), boto3.client("s3")
    for row in pq.read_table(folder / "parts").to_pylist():
        if row["id"] not in done:
            clip = renderer.clip(row["prompt"], row["seed"])
            store.put_object(Bucket=bucket, Key=f"{CLIPS}/{row['id']}.mp4", Body=clip)
            with open(done_file, "a") as file:
                print(row["id"], file=file)


def accelerate(folder: Path, bucket: str) -> None:
    from accelerate import PartialState

    state, store = PartialState(cpu=True), boto3.client("s3")
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{CLIPS}/")
    done = {Path(found["Key"]).stem for page in pages for found in page.get("Contents", ())}
    left = [row for row in pq.read_table(folder / "parts").to_pylist() if row["id"] not in done]
    state.wait_for_everyone()  # all have seen the same rows
    renderer = Renderer(folder)
    with state.split_between_processes(left) as own:
        for row in own:
            clip = renderer.clip(row["prompt"], row["seed"])
            store.put_object(Bucket=bucket, Key=f"{CLIPS}/{row['id']}.mp4", Body=clip)
    state.wait_for_everyone()


class Predictor:
    """One model in one actor of Ray Data."""

    def __init__(self, folder: Path) -> None:
        self._renderer = Renderer(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["clip"] = [
            self._renderer.clip(prompt, int(seed))
            for prompt, seed in zip(batch["prompt"], batch["seed"], strict=True)
        ]
        return batch


def ray_data(folder: Path, bucket: str) -> None:
    import ray
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    # One CPU for what reads, one for what filters by the checkpoint: with none left, all wait for ever.
    ray.init("local", num_cpus=WORKERS + 2, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=f"s3://{bucket}/{CHECKPOINTS}", delete_checkpoint_on_success=False
    )
    # Else all of these small rows are one block, for one actor, with one checkpoint at its end.
    rows = ray.data.read_parquet(str(folder / "parts")).repartition(target_num_rows_per_block=PART_ROWS)
    compute = ray.data.ActorPoolStrategy(size=WORKERS)
    clips = rows.map_batches(Predictor, fn_constructor_args=(folder,), compute=compute, batch_size=8)
    clips.write_parquet(f"s3://{bucket}/{RESULTS}")


def daft(folder: Path, bucket: str) -> None:
    import daft
    import ray

    @daft.cls(max_concurrency=WORKERS)
    class Model:
        def __init__(self, folder: Path) -> None:
            self._renderer = Renderer(folder)

        def __call__(self, prompt: str, seed: int) -> bytes:
            return self._renderer.clip(prompt, seed)

    s3 = daft.io.S3Config(
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name=os.environ["AWS_DEFAULT_REGION"],
        key_id=os.environ["AWS_ACCESS_KEY_ID"],
        access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        use_ssl=False,
    )
    io_config = daft.io.IOConfig(s3=s3)
    # One for what filters keys, one for what runs the plan: with none left, all wait for ever.
    ray.init("local", num_cpus=WORKERS + 2, include_dashboard=False)
    daft.set_runner_ray()
    store = daft.CheckpointStore(f"s3://{bucket}/{CHECKPOINTS}", io_config)
    settings = daft.KeyFilteringSettings(num_workers=1, cpus_per_worker=1.0)
    checkpoint = daft.CheckpointConfig(store, on="id", settings=settings)
    rows = daft.read_parquet(f"{folder}/parts/*.parquet", checkpoint=checkpoint)
    clips = rows.with_column("clip", Model(folder)(rows["prompt"], rows["seed"]))
    clips.write_deltalake(
        f"s3://{bucket}/{RESULTS}",
        io_config=io_config,
        checkpoint=daft.IdempotentCommit(store, idempotence_key="under-fire"),
    )


SYSTEMS: Mapping[str, Callable[[Path, str], None]] = {
    "plain": plain,
    "accelerate": accelerate,
    "ray": ray_data,
    "daft": daft,
}

if __name__ == "__main__":
    SYSTEMS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
