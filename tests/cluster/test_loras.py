"""Tables with a column `lora`, rendered by a fleet: their rows, their records, their refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import framefleet
from framefleet import Given, ModelError, Request, replay, replay_script
from tests.commands import command
from tests.here import run_script
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.loras import plain_digest, plain_pipe, save_lora
from tests.tiny import SMALLEST

CELLS: dict[str | None, dict[str, float]] = {
    None: {"style": 0.5},  # the job's default
    "none": {},
    "style": {"style": 1.0},
    "style:0.8+detail:-1": {"detail": -1.0, "style": 0.8},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return {name: save_lora("wan", name, folder / name) for name in ("style", "detail")}


def values_of(
    folder: Path, files: dict[str, Path], cells: list[str | None], address: str | None = None
) -> dict[str, Any]:
    rows = [row | {"lora": cell} for row, cell in zip(prompt_rows(len(cells)), cells, strict=True)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", address=address)
    values["defaults"] |= {"lora": "style:0.5"}
    return values | {"loras": {name: str(file) for name, file in files.items()}}


def plain_digests(files: dict[str, Path], cells: list[str | None]) -> list[str]:
    """What a script renders for the rows, one after the other."""
    found = []
    bare, adapted = plain_pipe("wan", torch.float32), plain_pipe("wan", torch.float32, files)
    for row, cell in zip(prompt_rows(len(cells)), cells, strict=True):
        names = ("prompt", "num_inference_steps", "guidance_scale")
        arguments = {**SMALLEST["wan"], "max_sequence_length": 32} | {name: row[name] for name in names}
        request = Request(arguments=arguments, seed=row["seed"])
        found.append(plain_digest(adapted if CELLS[cell] else bare, request, CELLS[cell]))
    return found


def test_rows_choose_their_loras_and_their_records_lead_back_to_them(
    tmp_path: Path, files: dict[str, Path], ray_cluster: str
) -> None:
    cells = list(CELLS) * 2
    values = values_of(tmp_path, files, cells, ray_cluster)
    assert framefleet.render(values).done == len(cells)
    records = {int(record["tag"].removeprefix("row ")): record for record in records_of(tmp_path / "out")}
    assert [records[row]["frames_sha256"] for row in range(len(cells))] == plain_digests(files, cells)
    asked = [json.loads(records[row]["arguments"]).get("lora", {}) for row in range(4)]
    assert [{name: lora["weight"] for name, lora in loras.items()} for loras in asked] == list(CELLS.values())
    columns = [records[row]["lora"] for row in range(4)]
    assert columns == ["style:0.5", "none", "style:1.0", "detail:-1.0+style:0.8"]
    claim = json.loads((tmp_path / "out" / "job.json").read_text())
    assert claim["job"]["loras"]["style"]["sha256"] == asked[2]["style"]["sha256"]

    output, row_id = str(tmp_path / "out"), records[3]["row_id"]
    assert replay(output, row_id).is_equal
    assert run_script(replay_script(output, row_id)).startswith("the same frames: ")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(files["style"].read_bytes())
    command("replay", output, row_id, "--lora", f"style={moved}", exits=0)
    with pytest.raises(ModelError, match=r"loras\.style: .* is not the expected file"):
        replay(output, row_id, Given(loras={"style": str(files["detail"])}))
