"""The script that renders a row without framefleet: what it holds, and when there is none."""

from __future__ import annotations

import ast
import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from framefleet import JobError, Store, UserError, replay_script
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from tests.model_files import model_files
from tests.outputs import write_part
from tests.rows import record
from tests.tiny import tiny

ENVIRONMENT = {"device": "cpu", "dtype": "bf16", "threads": 2, "torch": "2.13.0"}
ROW_ID = f"{7:032x}"


def output_with(folder: Path, **changed: Any) -> str:
    """Return an output that holds one record of the tiny Wan model, or of another."""
    model = changed.get("model", str(tiny("wan")))
    values = {
        "model": model,
        "model_digest": changed.get("model_digest") or digest_of(model),
        "arguments": json.dumps({"prompt": 'a "猫"\n\\', "guidance_scale": 0.1 + 0.2, "height": 16}),
        "environment": json.dumps(ENVIRONMENT),
        "scheduler": "flow_euler",
        **changed,
    }
    store = Store(str(folder))
    store.create("job.json", json.dumps({"framefleet": "0.1.0", "job": {"recipe": "generate"}}).encode())
    write_part(store, "records", RECORD_FIELDS, [values_of(record(7, **values))], "r1")
    return str(folder)


@functools.cache
def digest_of(model: str) -> str:
    return model_digest(model_files(Path(model))) if Path(model).is_dir() else "0" * 64


def test_a_pipeline_that_diffusers_lacks_is_imported_from_framefleet(tmp_path: Path) -> None:
    output = output_with(tmp_path, model=str(tiny("opensora")), scheduler=None)
    script = replay_script(output, ROW_ID)
    assert "from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline\n" in script
    assert "from diffusers import FlowMatchEulerDiscreteScheduler\n" in script


def test_a_script_imports_torch_and_diffusers_and_nothing_else_that_must_be_installed(tmp_path: Path) -> None:
    tree = ast.parse(replay_script(output_with(tmp_path), ROW_ID))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules - sys.stdlib_module_names == {"numpy", "torch", "diffusers"}  # NumPy comes with diffusers


def test_a_script_holds_the_arguments_to_the_last_bit(tmp_path: Path) -> None:
    script = ast.parse(replay_script(output_with(tmp_path), ROW_ID))
    assigned = [node for node in script.body if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    names = {name: ast.literal_eval(value) for name, value in values.items() if name.isupper()}
    assert names["ARGUMENTS"] == {"prompt": 'a "猫"\n\\', "guidance_scale": 0.1 + 0.2, "height": 16}
    assert names["SEED"] == record(7).seed
    assert names["FRAMES_SHA256"] == record(7).frames_sha256
    assert names["MODEL"] == str(tiny("wan"))


CUDA = {"device": "cuda"}
NO_SPLIT_K = CUDA | {"matmul": "no_split_k"}
EULER = "FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, shift=3.0)"
NO_REDUCTION = "allow_bf16_reduced_precision_reduction = (False, False)"


@pytest.mark.parametrize(
    ("changed", "before", "after"),
    [
        ({}, "", "torch.set_num_threads(2)"),
        ({}, "", "dtype=torch.bfloat16"),
        ({}, "", f"pipe.to('cpu')|{EULER}"),
        (CUDA | {"tf32": 0}, "", "torch.backends.cuda.matmul.allow_tf32 = False"),
        (NO_SPLIT_K, "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':16:8'", NO_REDUCTION),
        (NO_SPLIT_K, "os.environ['CUBLASLT_WORKSPACE_SIZE'] = '1'", "preferred_blas_library('cublaslt')"),
        ({"onednn_max_cpu_isa": "A"}, "import os\n|os.environ['ONEDNN_MAX_CPU_ISA'] = 'A'\n", ""),
    ],
)
def test_a_script_sets_what_decides_the_bits_before_torch_is_imported_or_after_it(
    tmp_path: Path, changed: dict[str, Any], before: str, after: str
) -> None:
    script = replay_script(output_with(tmp_path, environment=json.dumps(ENVIRONMENT | changed)), ROW_ID)
    ast.parse(script)
    head, _, rest = script.partition("import torch\n")
    assert all(line in head for line in before.split("|")) and all(line in rest for line in after.split("|"))
    assert ("tf32" in script) == ("tf32" in changed)


def arguments(value: object) -> str:
    return json.dumps({"prompt": "x", "guidance_scale": value})


@pytest.mark.parametrize(
    ("changed", "row_id", "problem"),
    [
        ({"recipe": "mine:refine"}, ROW_ID, "the code of the recipe 'mine:refine'; send its module too"),
        ({"arguments": arguments("linear(7.0, 3.0)")}, ROW_ID, "schedules or IP-adapters: guidance_scale"),
        (
            {"arguments": arguments({"uri": "a.mp4", "sha256": "0" * 64, "num_frames": 5})},
            *(ROW_ID, "schedules or IP-adapters: guidance_scale"),
        ),
        ({}, f"{8:032x}", "has no record of row 0000"),
        ({"model_digest": "b" * 64}, ROW_ID, "is not the one that rendered this row"),
    ],
)
def test_a_row_that_needs_more_than_a_script_has_none(
    tmp_path: Path, changed: dict[str, Any], row_id: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        replay_script(output_with(tmp_path, **changed), row_id)


def test_a_folder_that_is_no_output_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"it has no job\.json"):
        replay_script(str(tmp_path), ROW_ID)
