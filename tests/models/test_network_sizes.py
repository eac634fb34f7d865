"""Configs of one kilobyte that ask for all memory: refused by all that would build their networks."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.commands import command
from tests.ip_adapters import ENCODER, save_ip_adapter
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.tiny import tiny

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


@pytest.mark.parametrize("key", ["solver_order", "num_train_timesteps", "lower_order_final"])
def test_a_scheduler_makes_no_list_of_any_length(key: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "wan")
    change(folder / "scheduler" / "scheduler_config.json", {key: 10**9})
    with pytest.raises(ModelError, match=f"{key} of scheduler is 1000000000"):
        inspect_model(folder)
