"""Rollouts of reinforcement learning: a fleet that stays, weights that change, log-probabilities that agree.

The script that they have to agree with is in tests/models/test_scheduler_steps.py.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import framefleet
from framefleet import JobError, ModelError, Request, Store, load_model
from framefleet.cluster.driver.earlier_runs import spent_before
from framefleet.jobs.job.model import open_model
from framefleet.jobs.job.schema import ModelSection
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.lora import Lora
from framefleet.plugins.rollouts.weight_updates import (
    WeightUpdates,
    check_update,
    store_weights,
    updated_digest,
)
from tests.jobs import ROOT, finish, job_values
from tests.models.test_scheduler_steps import ddim_script
from tests.tiny import SMALLEST, tiny
from tests.warm.process import start

NUM_ROUNDS = 10


def rows(num_rows: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"a fox {n % 2}",
            "seed": n,
            "scheduler": "ddim",
            "eta": 1.0,
            "num_inference_steps": 3 + n % 2,
        }
        for n in range(num_rows)
    ]


def job(out: Path, address: str | None = None) -> dict[str, Any]:
    values = job_values(out, out, model="sd", address=address)
    del values["table"]
    values |= {"defaults": SMALLEST["sd"], "keep": {"latents": "all", "log_probs": True}}
    return values


@pytest.mark.timeout(600)
def test_ten_rounds_on_one_fleet_agree_with_a_plain_script(tmp_path: Path, ray_cluster: str) -> None:
    model = load_model(tiny("sd"), dtype="fp32")
    digests, row_ids, frames, workers = set(), set(), set(), set()
    store, elapsed_s = Store(str(tmp_path / "out")), 0.0
    with framefleet.fleet(job(tmp_path / "out", ray_cluster)) as fleet:
        for number in range(NUM_ROUNDS):
            records = fleet.render(rows()).to_pylist()
            assert len(store.list("weights")) == min(number, 1), "former ones stay until no worker loads them"
            assert fleet.summary and (fleet.summary.done, fleet.summary.failed) == (len(rows()), 0)
            elapsed_s += fleet.summary.elapsed_s
            assert [record["seed"] for record in records] == [row["seed"] for row in rows()]
            rewards = []
            for row, record in zip(rows(), records, strict=True):
                kept = fleet.output.extras(record)
                named = {name: row[name] for name in ("prompt", "eta", "num_inference_steps")}
                request = Request(arguments=SMALLEST["sd"] | named, seed=row["seed"])
                script = ddim_script(model, request)
                for step, sample in enumerate(script["samples"]):
                    assert torch.equal(kept[f"latents.{step}"], sample), (number, row, step)
                assert torch.allclose(
                    kept["log_probs"], script["log_probs"].double(), rtol=1e-4, equal_nan=True
                )
                rewards.append(float(fleet.output.frames(record).mean()))
                frames.add(record["frames_sha256"])
                workers.add(record["worker"])
                row_ids.add(record["row_id"])
            assert len({record["model_digest"] for record in records}) == 1
            digests.add(records[0]["model_digest"])
            fleet.render(rows())
            assert fleet.summary.done == 0, "with the same weights they are the same rows"
            with torch.no_grad():
                for weight in model.pipe.unet.parameters():
                    weight.add_(torch.randn_like(weight) * 1e-2 * (sum(rewards) / 1000))
            assert fleet.update({"unet": model.pipe.unet.state_dict()}) not in digests
    assert len(digests) == NUM_ROUNDS and len(row_ids) == len(frames) == NUM_ROUNDS * len(rows())
    assert workers == {"worker-0", "worker-1"}, "none was started again"
    assert not store.list("weights")
    assert spent_before(store).elapsed_s > elapsed_s / 2, "of all calls together"
    with framefleet.fleet(job(tmp_path / "out", ray_cluster)) as fleet:
        first = fleet.render(rows())
        assert fleet.summary and fleet.summary.done == 0, "the weights of its files again"
        assert set(first["row_id"].to_pylist()) < row_ids
        good = model.pipe.unet.state_dict()
        for weights, said in [
            ({"unet": {**good, "conv_in.bias": good["conv_in.bias"].long()}}, "conv_in.bias is I64, not"),
            ({"unet": {**good, "conv_in.bias": good["conv_in.bias"].numpy()}}, "'conv_in.bias' is a ndarray"),
            ({"unet": {**good, "conv_in.bias": good["conv_in.bias"].to("meta")}}, "is on the device meta"),
            ({"unet": {**good, 3: good["conv_in.bias"]}}, "3 is a Tensor"),
            ({"unet": None}, "a NoneType has no .safetensors files"),
            ({"unet": [good]}, "a list has no .safetensors files"),
            (good["conv_in.bias"], "weights are a Tensor, not a mapping"),
            ({"nonsense": good}, "weights of 'nonsense' cannot be updated"),
        ]:
            with pytest.raises(ModelError, match=said):
                fleet.update(weights)
        assert fleet.render(rows())["row_id"].to_pylist() == first["row_id"].to_pylist()
        fleet.update({"unet": good})
        fleet.render(rows())
        assert fleet.summary and fleet.summary.failed == 0


@pytest.mark.timeout(600)
def test_the_example_learns_from_the_samples_that_were_rendered(tmp_path: Path) -> None:
    example = start(ROOT / "examples/rollouts.py", tmp_path / "out", "2")
    printed = finish(example, timeout_s=900)
    assert printed.count("log-probabilities agree to") == 2


def test_what_a_fleet_that_stays_does_not_take_is_refused(tmp_path: Path) -> None:
    with framefleet.fleet(job(tmp_path / "out")) as fleet, pytest.raises(JobError, match="call render"):
        fleet.update({})
    drafted = job(tmp_path / "out") | {"draft": {"num_inference_steps": 1, "keep": {"where": "true"}}}
    with framefleet.fleet(drafted) as fleet, pytest.raises(JobError, match="renders no job with `draft`"):
        fleet.render(rows())
    followed = job(tmp_path / "out") | {"on_end": {"webhook": "http://127.0.0.1:9/x"}}
    with framefleet.fleet(followed) as fleet, pytest.raises(JobError, match="no end or clips for `on_end`"):
        fleet.render(rows())


@pytest.mark.parametrize("key", ["loras", "ip_adapter", "packed"])
def test_networks_that_hold_other_weights_than_their_files_are_not_updated(key: str, tmp_path: Path) -> None:
    """No worker could take the weights, and each would be lost."""
    path = Path(shutil.copytree(tiny("sd"), tmp_path / "sd"))
    if key == "packed":
        config = path / "unet/config.json"
        packing = {"quantization_config": {"quant_method": "quanto"}}
        config.write_text(json.dumps(json.loads(config.read_text()) | packing))
    model = open_model(ModelSection(path=str(path)), {})
    settings = {
        "loras": {"loras": {"fox": Lora(path="fox.safetensors")}},
        "ip_adapter": {
            "ip_adapter": IpAdapter(path="adapter", weights="a.safetensors", image_encoder="clip")
        },
        "packed": {},
    }
    with pytest.raises(ModelError, match=f"unet cannot be updated .*{key}"):
        check_update("unet", replace(model, settings=replace(model.settings, **settings[key])))


def test_weights_are_replaced_where_they_are_and_the_digest_says_so(tmp_path: Path) -> None:
    model, store = load_model(tiny("sd"), dtype="fp32"), Store(str(tmp_path))
    before = model.pipe.unet.conv_in.weight
    other = {name: weight + 1 for name, weight in model.pipe.unet.state_dict().items()}
    update = store_weights(store, "unet", other)
    updated = WeightUpdates((update,)).apply(model, store)
    assert model.pipe.unet.conv_in.weight is before and torch.equal(before, other["conv_in.weight"])
    assert updated.digest == updated_digest(model.digest, [update]) != model.digest
    assert WeightUpdates((update,)).apply(updated, store).digest == updated.digest
    assert store_weights(store, "unet", tmp_path / update.files[0]) == update
    for component, weights, said in [
        ("unet", {"conv_in.bias": torch.zeros(1)}, "have no "),
        ("unet", {**other, "more": torch.zeros(1)}, "have a weight that it does not know, more"),
        ("unet", {**other, "conv_in.bias": torch.zeros(1)}, r"conv_in.bias has the shape \[1\], not"),
        ("vae", {}, "name one of unet"),
    ]:
        with pytest.raises(ModelError, match=said):
            WeightUpdates((store_weights(store, component, weights),)).apply(model, store)
    (tmp_path / update.files[0]).write_bytes(b"another")
    with pytest.raises(ModelError, match="has changed"):
        WeightUpdates((update,)).apply(model, store)
    with pytest.raises(ModelError, match=r"has no \.safetensors files"):
        store_weights(store, "unet", tmp_path / "none")
