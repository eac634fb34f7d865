"""What `keep:` stored of rows is exported with their clips, bit for bit, and read without torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save

from framefleet import JobError, open_output
from framefleet.plugins.export.trajectories import arrays_of
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST

ROW = {"prompt": "a fox", "num_inference_steps": 3, "scheduler": "euler_a"}
KEEP = {"latents": [0, -1, 1], "log_probs": True, "text_embeddings": True}


def rendered(folder: Path, keep: dict[str, Any], seeds: range) -> str:
    """Render rows into the same output, whatever is kept of their steps."""
    table = write_table(folder / "t.parquet", [ROW | {"seed": seed} for seed in seeds])
    values = job_values(table, folder / "out", model="sd") | {"defaults": SMALLEST["sd"], "keep": keep}
    return render_here(values)[0]


def test_trajectories_are_what_was_stored_and_the_rest_is_reported(tmp_path: Path) -> None:
    import webdataset

    place = rendered(tmp_path, {}, range(1))
    refused = command("export", place, tmp_path / "none", "--format", "trajectories")
    assert refused.exit_code == 2 and "keep: {latents: all}" in refused.stderr
    rendered(tmp_path, KEEP, range(1, 3))
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
    place = rendered(tmp_path, {"latents": [-1]}, range(2))
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
