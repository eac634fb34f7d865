"""The script that renders a row without framefleet: what it holds, and when there is none."""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from framefleet import Store
from framefleet.jobs.keep.replay.script import replay_script
from framefleet.pipeline.errors import JobError, ModelError
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from tests.model_files import model_files
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
    writer = PartWriter(store, "records", RECORD_FIELDS, run="r1")
    writer.add(None, values_of(record(7, **values)))
    writer.flush()
    return str(folder)


@functools.cache
def digest_of(model: str) -> str:
    return model_digest(model_files(Path(model))) if Path(model).is_dir() else "0" * 64


def assigned(script: str) -> dict[str, Any]:
    """Return the literals that the script gives names to."""
    found = {}
    for node in ast.parse(script).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id.isupper()
        ):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_a_pipeline_that_diffusers_lacks_is_imported_from_framefleet(tmp_path: Path) -> None:
    output = output_with(tmp_path, model=str(tiny("opensora")), scheduler=None)
    script = replay_script(output, ROW_ID)
    assert "from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline\n" in script
    assert "from diffusers import FlowMatchEulerDiscreteScheduler\n" in script


def test_a_script_imports_torch_and_diffusers_and_nothing_else_that_must_be_installed(tmp_path: Path) -> None:
    tree = ast.parse(replay_script(output_with(tmp_path), ROW_ID))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {
        "hashlib",
        "random",
        "sys",
        "numpy",
        "torch",
        "diffusers",
    }  # NumPy comes with diffusers


def test_a_script_holds_the_arguments_to_the_last_bit(tmp_path: Path) -> None:
    names = assigned(replay_script(output_with(tmp_path), ROW_ID))
    assert names["ARGUMENTS"] == {"prompt": 'a "猫"\n\\', "guidance_scale": 0.1 + 0.2, "height": 16}
    assert names["SEED"] == record(7).seed
    assert names["FRAMES_SHA256"] == record(7).frames_sha256
    assert names["MODEL"] == str(tiny("wan"))


def test_a_script_sets_what_decides_the_bits(tmp_path: Path) -> None:
    script = replay_script(output_with(tmp_path), ROW_ID)
    assert "torch.set_num_threads(2)" in script
    assert "dtype=torch.bfloat16" in script
    assert "pipe.to('cpu')" in script
    assert "FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, shift=3.0)" in script
    assert "tf32" not in script


def test_on_a_gpu_a_script_sets_tf32_as_it_was(tmp_path: Path) -> None:
    environment = json.dumps(ENVIRONMENT | {"device": "cuda", "tf32": 0})
    script = replay_script(output_with(tmp_path, environment=environment), ROW_ID)
    assert "torch.backends.cuda.matmul.allow_tf32 = False" in script


def test_on_a_gpu_a_script_sums_products_as_they_were_summed(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"device": "cuda", "matmul": "no_split_k"}
    script = replay_script(output_with(tmp_path / "now", environment=json.dumps(environment)), ROW_ID)
    before, after = script.split("import torch\n")
    assert "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':16:8'" in before
    assert "os.environ['CUBLASLT_WORKSPACE_SIZE'] = '1'" in before
    assert "torch.backends.cuda.preferred_blas_library('cublaslt')" in after
    assert "allow_bf16_reduced_precision_reduction = (False, False)" in after
    ast.parse(script)


def test_a_row_of_a_users_recipe_has_no_script(tmp_path: Path) -> None:
    output = output_with(tmp_path, recipe="mine:refine")
    with pytest.raises(JobError, match="the code of the recipe 'mine:refine'; send its module too"):
        replay_script(output, ROW_ID)


@pytest.mark.parametrize("value", ["linear(7.0, 3.0)", {"uri": "a.png", "sha256": "0" * 64}])
def test_a_row_of_a_schedule_or_a_file_has_no_script(tmp_path: Path, value: Any) -> None:
    output = output_with(tmp_path, arguments=json.dumps({"prompt": "x", "guidance_scale": value}))
    with pytest.raises(JobError, match="no file or schedule: guidance_scale"):
        replay_script(output, ROW_ID)


def test_a_row_without_a_record_has_no_script(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no record of row 0000"):
        replay_script(output_with(tmp_path), f"{8:032x}")


def test_a_folder_that_is_no_output_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"it has no job\.json"):
        replay_script(str(tmp_path), ROW_ID)


def test_a_model_that_is_not_the_one_of_the_record_has_no_script(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not the one that rendered this row"):
        replay_script(output_with(tmp_path, model_digest="b" * 64), ROW_ID)


def test_a_script_limits_the_processor_as_the_worker_that_rendered_was(tmp_path: Path) -> None:
    environment = json.dumps({**ENVIRONMENT, "onednn_max_cpu_isa": "AVX512_CORE_BF16"})
    script = replay_script(output_with(tmp_path, environment=environment), ROW_ID)
    line = "os.environ['ONEDNN_MAX_CPU_ISA'] = 'AVX512_CORE_BF16'\n"
    assert script.index("import os\n") < script.index(line) < script.index("import torch\n")
