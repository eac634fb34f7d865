"""What a row takes is counted by calling its own pipeline on the meta device, whatever its class."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from framefleet.jobs.plan.blank_call import BlankCalls, Precision
from framefleet.jobs.plan.footprint import Footprint, Way
from framefleet.jobs.plan.memory import MemoryCounts, _bits
from framefleet.jobs.plan.meter import Repeated, metered
from framefleet.pipeline.model.load_model import load_model
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.options.schema import read_options
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.request import Request
from tests.commands import command
from tests.jobs import write_job, write_table
from tests.long import long_but
from tests.tiny import INPUTS, SMALLEST, TYPICAL, tiny

NAMES = sorted(name for name in SMALLEST if name not in INPUTS)


def size_of(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def counted(folder: Path, row: dict[str, Any], way: Way | None = None, **options: Any) -> Footprint:
    settings = ModelSettings(path=str(folder), options=read_options(options))
    weights = open_weights(open_source(str(folder)))
    spec = inspect_model(folder)
    with closing(MemoryCounts(settings, weights, spec, folder, is_on_cpu=True)) as counts:
        return counts.count(Request(arguments=row), way or Way())


@pytest.mark.parametrize("name", long_but(NAMES, *(name for name in TYPICAL if name in NAMES)))
def test_every_class_is_counted_or_says_why_not(name: str) -> None:
    found = counted(tiny(name), {"prompt": "a red ball", **SMALLEST[name]})
    assert found.weights_gb > 0
    if not found.missing:
        assert found.activations_gb > 0
        assert found.decoding_gb > 0 or not {"vae", "movq", "vqvae"} & found.networks.keys()


def test_weights_are_those_of_the_files_in_the_dtype_that_computes() -> None:
    found = counted(tiny("wan"), SMALLEST["wan"] | {"prompt": "a"})
    pipe = load_model(tiny("wan"), dtype="fp32").pipe
    for name, network in found.networks.items():
        assert network.weights == size_of(getattr(pipe, name))
    half = counted(tiny("wan"), SMALLEST["wan"] | {"prompt": "a"}, Way(dtype="bf16"))
    pipe = load_model(tiny("wan"), dtype="bf16").pipe
    for (
        name,
        network,
    ) in half.networks.items():  # some of diffusers' layers stay in fp32, and tables of places
        assert network.weights == pytest.approx(size_of(getattr(pipe, name)), rel=0.01)


def test_a_larger_row_takes_more_and_fewer_bits_take_less() -> None:
    row = SMALLEST["wan"] | {"prompt": "a"}
    small, large = counted(tiny("wan"), row), counted(tiny("wan"), row | {"height": 64, "width": 64})
    half = counted(tiny("wan"), row, Way(dtype="bf16"))
    assert large.activations_gb > 1.5 * small.activations_gb  # beside 32 tokens of text
    assert large.decoding_gb > 8 * small.decoding_gb
    assert large.weights_gb == small.weights_gb > half.weights_gb
    cast = counted(tiny("wan"), row, layerwise_casting="fp8_e4m3")
    # all of its layers, but not its table of places
    assert cast.networks["transformer"].weights < 0.65 * small.networks["transformer"].weights


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"backend": "torchao", "type": "int8_weight_only"}, 8),
        ({"backend": "torchao", "type": "nvfp4_dynamic"}, 4),
        ({"backend": "quanto", "type": "int2"}, 2),
        ({"backend": "sdnq", "weights_dtype": "uint4", "group_size": 32}, 4),
        ({"backend": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}, 8),
        ({"backend": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}, 4),
    ],
)
def test_the_bits_of_a_quantisation_are_read_from_its_own_names(
    quantization: dict[str, Any], bits: int
) -> None:
    options = read_options({"quantization": quantization})
    assert _bits(options, ["transformer", "vae"]) == {"transformer": bits}


def test_only_what_is_alive_at_once_is_counted() -> None:
    size = 1000 * 4
    weight = torch.empty(1000, device="meta")
    with metered([weight]) as meter:
        one = weight * 2
        del one
        two = weight.view(10, 100) + 1  # a view of a weight takes nothing
        three = two * 2
        assert meter.now == 2 * size
        del two, three
    assert (meter.now, meter.peak) == (0, 2 * size)


def test_tiles_and_frames_of_equal_shapes_are_computed_once_and_count_as_if_they_were_not() -> None:
    config = dict(base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
    with torch.device("meta"):
        vae = AutoencoderKLWan(**config, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).eval()
        latents = torch.empty(1, 4, 9, 8, 8)
    others = [latents, *vae.parameters(), *vae.buffers()]
    with metered(others) as plain:
        shape = vae.decode(latents, return_dict=False)[0].shape
    calls = []
    forward = vae.decoder.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return forward(*args, **kwargs)

    repeated = Repeated(counting)
    object.__setattr__(vae.decoder, "forward", repeated)
    with metered(others) as meter:
        repeated.meter = meter
        assert vae.decode(latents, return_dict=False)[0].shape == shape
    assert meter.peak == pytest.approx(plain.peak, rel=0.01)
    assert len(calls) < 9


def test_a_group_holds_the_largest_block_and_what_is_in_none(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = WanTransformer3DModel.from_config(
            WanTransformer3DModel.load_config(tiny("wan") / "transformer")
        )
    blocks, whole = [size_of(block) for block in network.blocks], size_of(network)
    found = counted(tiny("wan"), SMALLEST["wan"] | {"prompt": "a"}).networks["transformer"]
    assert found.held == pytest.approx(whole - sum(blocks) + max(blocks), rel=0.01)


def test_a_class_that_looks_at_values_is_counted_as_far_as_it_comes_and_says_so(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "m")
    found = counted(folder, SMALLEST["wan"] | {"prompt": "a", "height": 17})
    assert "height" in found.missing  # the pipeline's own words
    assert found.weights_gb > 0 and found.activations_gb == 0
    row = {"prompt": "a", "other": {"uri": "x", "model": "y"}}
    assert counted(folder, row).weights_gb > 0


def test_a_config_that_asks_for_all_memory_ends_the_call_and_nothing_else(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("wan"), tmp_path / "m")
    path = folder / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_max_seq_len": 1 << 34}))
    files = open_weights(open_source(str(folder))).config_files
    with closing(BlankCalls(folder, files, max_silence_s=180)) as calls:
        call = calls.call(Request(arguments=SMALLEST["wan"] | {"prompt": "a"}), Precision())
    assert call.objection is not None


@pytest.mark.parametrize("name", ["minimax_h3", "sd"])
def test_plan_of_a_model_without_a_preset_counts_all_phases(name: str, tmp_path: Path) -> None:
    job = {
        "table": str(write_table(tmp_path / "t.parquet", [{"prompt": "a red ball"}])),
        "output": str(tmp_path / "out"),
        "model": str(tiny(name)),
        "defaults": SMALLEST[name],
    }
    printed = command("plan", write_job(tmp_path / "job.yaml", job)).stdout
    line = next(line for line in printed.splitlines() if line.startswith("memory:"))
    assert "encoding" in line and "denoising" in line and "not counted" not in line
