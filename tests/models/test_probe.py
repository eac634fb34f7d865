"""`plan --probe`: the pipeline is called without weights, once for each shape, and says what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from framefleet import Request
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.network_loading import blank_pipeline
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.forecast.command import show_probed
from framefleet.plugins.forecast.hollow import MAX_SHAPES, Shapes
from framefleet.plugins.forecast.job_plan import Probed
from framefleet.plugins.memory.stub_networks import Decoded, hollow
from tests.commands import command
from tests.jobs import job_values, write_job, write_table
from tests.tiny import SMALLEST, smallest_call, tiny


def hollow_pipe(name: str) -> Any:
    folder = tiny(name)
    files = open_weights(open_source(str(folder))).config_files
    pipe = blank_pipeline(folder, files, components_in(folder), inspect_model(folder))
    hollow(pipe)
    return pipe


def called(pipe: Any, arguments: dict[str, Any]) -> None:
    with torch.no_grad():
        pipe(**arguments, generator=torch.Generator("cpu").manual_seed(0), output_type="np")


@pytest.mark.parametrize("name", ["wan_i2v", "cogvideox_v2v", "ltx", "svd", "sdxl", "flux"])
def test_a_pipeline_without_weights_comes_as_far_as_its_decoder(name: str) -> None:
    pipe, arguments = hollow_pipe(name), smallest_call(name)
    before = {key: id(part) for key, part in pipe.components.items()}
    with pytest.raises(Decoded):
        called(pipe, arguments)
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert all(not weight.is_meta for network in networks for weight in network.parameters())
    assert before == {key: id(part) for key, part in pipe.components.items()}
    with pytest.raises(Decoded):  # and again: what a call leaves behind is no meta tensor
        called(pipe, arguments | {"height": 64, "width": 64} if name != "wan_i2v" else arguments)


def test_masks_that_pick_tokens_pick_all_of_them() -> None:
    with pytest.raises(Decoded):
        called(hollow_pipe("hunyuan_image"), {"prompt": "a", **SMALLEST["sd"]})


def test_rows_of_equal_shapes_are_probed_once_and_shapes_are_bounded() -> None:
    shapes, lists = Shapes(), Shapes()
    for index in range(3 * MAX_SHAPES):
        size = 16 * (1 + index % (2 * MAX_SHAPES))
        arguments = {"prompt": f"{index}", "height": size, "guidance_scale": 1 + index / 7}
        shapes.add(index, Request(arguments=arguments, seed=index))
    assert len(shapes.first) == MAX_SHAPES and shapes.num_others > 0
    for row in ({"sigmas": [1.0]}, {"sigmas": [1.0]}, {"sigmas": [1.0, 0.5]}, {}):
        lists.add(0, Request(arguments=row))
    assert len(lists.first) == 3


def test_plan_probe_names_the_row_the_value_what_the_pipeline_says_and_the_fix(tmp_path: Path) -> None:
    listed = {"prompt": "a", "timesteps": [999, 500], "num_inference_steps": None}
    table = write_table(
        tmp_path / "t.parquet", [listed, listed | {"timesteps": None, "num_inference_steps": 2}]
    )
    job = write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out", model="ltx"))
    assert command("plan", job).exit_code == 0  # no rule knows: LTX hands its own sigmas on beside them
    ended = command("plan", job, "--hollow", exits=2)
    message = " ".join(ended.stderr.split())
    assert "rows of 1 shape would fail row 0: with " in message
    assert "timesteps [999, 500]" in message
    assert "the pipeline fails: ValueError: Only one of `timesteps` or `sigmas` can be passed" in message
    assert "leave out timesteps" in message
    assert not (tmp_path / "out").exists()


def test_what_was_not_probed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_probed(Probed(refused=(), unknown=("row 3 cannot be probed: it calls a second model",)), "t.parquet")
    assert "not called: row 3 cannot be" in capsys.readouterr().err
