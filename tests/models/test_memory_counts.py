"""What a row takes is counted by calling its own pipeline on the meta device, whatever its class."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file

from framefleet import Request, load_model
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.redaction import keep_secrets
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.options.schema import read_options
from framefleet.pipeline.model.sources.parts import ModelPart
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import open_weights
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.memory.blank_call import BlankCalls
from framefleet.plugins.memory.footprint import Footprint, Way
from framefleet.plugins.memory.memory import MemoryCounts, _bits, _deciding, native_row
from framefleet.plugins.memory.stub_networks import Repeated, metered
from tests.long import long_but
from tests.tiny import INPUTS, SMALLEST, TYPICAL, tiny
from tools import memory_reports

NAMES = sorted(name for name in SMALLEST if name not in INPUTS)
# The last computes with flex attention.
WHOLE = [*(name for name in TYPICAL if name in NAMES), "ltx2_5_modular"]
ROW_OF_WAN = {"prompt": "a", **SMALLEST["wan"]}
STARTING = ["wan_i2v", "svd", "flux_kontext", "qwen_edit", "cogvideox_v2v", "flux_fill", "sd_controlnet"]


def size_of(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def counts_of(
    folder: Path, recipes: str | None = None, parts: Mapping[str, ModelPart] | None = None, **options: Any
) -> closing[MemoryCounts]:
    settings = ModelSettings(path=str(folder), options=read_options(options), parts=parts or {})
    weights = weights_of(settings, source_of(settings))
    spec = inspect_model(folder)
    return closing(MemoryCounts(settings, weights, spec, folder, is_on_cpu=True, recipes=recipes))


def counted(folder: Path, row: dict[str, Any], way: Way | None = None, **options: Any) -> Footprint:
    with counts_of(folder, **options) as counts:
        return counts.count(Request(arguments=row), way or Way())


@pytest.mark.parametrize("name", long_but(NAMES, *WHOLE))
def test_every_class_is_counted_or_says_why_not(name: str) -> None:
    prompt = {} if name == "ddpm" else {"prompt": "a red ball"}
    found = counted(tiny(name), prompt | SMALLEST[name])
    assert found.weights_gb > 0
    if name in WHOLE:
        assert not found.missing
    if not found.missing:
        assert found.activations_gb > 0
        assert found.decoding_gb > 0 or not {"vae", "movq", "vqvae"} & found.networks.keys()


@pytest.fixture(scope="module")
def of_wan() -> tuple[Footprint, Footprint, Footprint]:
    """Return what a row takes in fp32, in bf16, and of a larger size: counted by one process."""
    large = ROW_OF_WAN | {"height": 64, "width": 64}
    with counts_of(tiny("wan")) as counts:
        return (
            counts.count(Request(arguments=ROW_OF_WAN), Way()),
            counts.count(Request(arguments=ROW_OF_WAN), Way(dtype="bf16")),
            counts.count(Request(arguments=large), Way()),
        )


def test_weights_are_those_of_the_files_in_the_dtype_that_computes(of_wan: tuple[Footprint, ...]) -> None:
    for found, dtype, more in zip(of_wan, ("fp32", "bf16"), (0, 0.01), strict=False):
        pipe = load_model(tiny("wan"), dtype=dtype).pipe  # type: ignore[arg-type]
        for name, network in found.networks.items():  # some layers stay in fp32, and tables of places
            assert network.weights == pytest.approx(size_of(getattr(pipe, name)), rel=more)


def test_a_larger_row_takes_more_and_fewer_bits_take_less(of_wan: tuple[Footprint, ...]) -> None:
    small, half, large = of_wan
    assert large.activations_gb > 1.5 * small.activations_gb  # beside 32 tokens of text
    assert large.decoding_gb > 8 * small.decoding_gb
    assert large.weights_gb == small.weights_gb > half.weights_gb
    cast = counted(tiny("wan"), ROW_OF_WAN, layerwise_casting="fp8_e4m3")
    # all of its layers, but not its table of places
    assert cast.networks["transformer"].weights < 0.65 * small.networks["transformer"].weights


@pytest.mark.parametrize(
    ("backend", "settings", "bits"),
    [
        ("torchao", {"type": "int8_weight_only"}, 8),
        ("torchao", {"type": "nvfp4_dynamic"}, 4),
        ("quanto", {"type": "int2"}, 2),
        ("sdnq", {"weights_dtype": "uint4", "group_size": 32}, 4),
        ("modelopt", {"quant_type": "FP8"}, 8),
        ("bitsandbytes", {"load_in_8bit": True, "llm_int8_threshold": 6.0}, 8),
        ("bitsandbytes", {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}, 4),
    ],
)
def test_the_bits_of_a_quantisation_are_read_from_its_own_names(
    backend: str, settings: dict[str, Any], bits: int
) -> None:
    options = read_options({"quantization": {"backend": backend, **settings}})
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
    calls, forward = [], vae.decoder.forward

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


def test_a_group_holds_the_largest_block_and_what_is_in_none(of_wan: tuple[Footprint, ...]) -> None:
    with torch.device("meta"):
        config = WanTransformer3DModel.load_config(tiny("wan") / "transformer")
        network = WanTransformer3DModel.from_config(config)
    blocks = [size_of(block) for block in network.blocks]
    held = size_of(network) - sum(blocks) + max(blocks)
    assert of_wan[0].networks["transformer"].held == pytest.approx(held, rel=0.01)


def test_a_class_that_looks_at_values_is_counted_as_far_as_it_comes_and_says_so() -> None:
    found = counted(tiny("wan"), ROW_OF_WAN | {"height": 17})
    assert "height" in found.missing  # the pipeline's own words
    assert found.weights_gb > 0 and found.activations_gb == 0


ROW = {"prompt": "a", **SMALLEST["sd"]}
RECIPES = """
import os, sys
from pathlib import Path
from framefleet.pipeline.recipes.catalog import generate

PLACE = Path(__file__).parent

def ends(pipe, request):
    sys.exit("it leaves")

def crashes(pipe, request):
    with (PLACE / "calls").open("a") as file:
        file.write("call ")
    os.abort()

def quotes(pipe, request):
    raise ValueError("the key is\\n" + (PLACE / "key").read_text() + " " + "x" * 400)

def twice(pipe, request, *, again: bool = True):
    (PLACE / "called").touch()
    return generate(pipe, request)
"""


@pytest.fixture
def recipes(tmp_path: Path) -> tuple[Path, str]:
    """The folder and the name of a module, which hides one of the same name that Python finds first."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "blank_recipes.py").write_text(RECIPES)
    return tmp_path / "job", "blank_recipes"


def test_only_calls_without_an_objection_are_remembered_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path))
    with counts_of(tiny("sd")) as counts:
        assert "height" in counts.count(Request(arguments=ROW | {"height": 17}), Way()).missing
        answers = {*tmp_path.rglob("*.json")}
        assert not counts.count(Request(arguments=ROW), Way()).missing
    assert len({*tmp_path.rglob("*.json")} - answers) == 1
    assert not any('"objection": {' in file.read_text() for file in tmp_path.rglob("*.json"))


def test_rows_whose_arguments_differ_are_counted_for_themselves() -> None:
    def deciding(**arguments: Any) -> str:
        return canonical_json(_deciding(Request(arguments=arguments)))

    assert deciding(prompt="a", negative_prompt="b") == deciding(prompt="c", negative_prompt="d")
    values = [1.5, 2.5, "720p", "480p", (1, 2), (3, 4), [5], {"uri": "a"}, {"uri": "a", "num_frames": 9}]
    assert len({deciding(one=value) for value in values}) == len(values)
    assert deciding(image={"uri": "a", "sha256": "b"}) == deciding(image={"uri": "c", "sha256": "d"})


def test_a_recipe_of_the_users_own_is_called_only_where_that_was_announced(recipes: tuple[Path, str]) -> None:
    folder, name = recipes
    row = Request(arguments=ROW | {"again": True}, recipe=f"{name}:twice")
    with counts_of(tiny("sd")) as counts:
        footprint = counts.count(row, Way())
    assert "add --hollow to count your recipe" in footprint.missing
    assert footprint.activations_gb > 0 and not (folder / "called").exists()
    with counts_of(tiny("sd"), recipes=str(folder)) as counts:
        footprint = counts.count(row, Way())
    assert (footprint.missing, (folder / "called").exists()) == ("", True)
    assert footprint.activations_gb > 0


def test_a_recipe_that_fails_or_ends_its_process_objects_in_one_line_without_secrets(
    recipes: tuple[Path, str],
) -> None:
    folder, name = recipes
    (folder / "key").write_text("only-this-process-knows")
    files = open_weights(open_source(str(tiny("sd")))).config_files
    keep_secrets({"api_key": "only-this-process-knows"})
    with closing(BlankCalls(tiny("sd"), files, recipes=str(folder))) as calls:
        for function, text in (
            ("ends", "the recipe raised SystemExit: it leaves hint: raise an Exception"),
            ("crashes", "the process that called the libraries crashed (SIGABRT)"),
            ("quotes", "ValueError: the key is *** " + "x" * 300),
        ):
            call = calls.call(Request(arguments=ROW, recipe=f"{name}:{function}"))
            assert call.objection is not None and call.objection.text == text[:300]
        assert calls.call(Request(arguments=ROW)).objection is None


def test_a_call_that_ended_its_process_is_not_made_a_second_time(recipes: tuple[Path, str]) -> None:
    folder, name = recipes
    row = Request(arguments=ROW, recipe=f"{name}:crashes")
    with counts_of(tiny("sd"), recipes=str(folder)) as counts:
        first, again = (counts.count(row, Way(offload=offload)) for offload in ("none", "model"))
    assert first is again and "crashed" in first.missing
    assert (folder / "calls").read_text() == "call "


def test_weights_that_are_read_from_files_alone_count_in_the_dtype_that_is_loaded() -> None:
    row = {"prompt": "a", "other": {"uri": "x", "digest": "y"}}
    whole, half = (counted(tiny("sd"), row, Way(dtype=dtype)) for dtype in ("fp32", "bf16"))
    assert "second model" in whole.missing
    assert whole.networks["unet"].weights == 2 * half.networks["unet"].weights > 0


def test_a_checkpoint_is_counted_once_in_the_dtype_that_is_loaded(tmp_path: Path) -> None:
    unet = {"model.diffusion_model.a": torch.zeros(1000).to(torch.float8_e4m3fn)}
    vae = {"first_stage_model.a": torch.zeros(500, dtype=torch.float16)}
    save_file(unet | vae, tmp_path / "x.safetensors")
    parts = {"checkpoint": ModelPart(path=str(tmp_path / "x.safetensors"))}
    row = {"prompt": "a", "other": {"uri": "x", "digest": "y"}}
    with counts_of(tiny("sd"), parts=parts) as counts:
        networks = counts.count(Request(arguments=row), Way(dtype="bf16")).networks
    assert networks["unet"].weights + networks["vae"].weights == 1500 * 2
    assert networks["unet"].weights and networks["text_encoder"].weights


@pytest.mark.parametrize("name", long_but(STARTING, "wan_i2v", "svd", "flux_kontext", "qwen_edit"))
def test_the_models_own_row_has_the_pictures_and_videos_that_its_call_needs(name: str) -> None:
    row = dict(native_row(inspect_model(tiny(name))).arguments)
    assert {*INPUTS[name]} <= {*row}
    footprint = counted(tiny(name), row | SMALLEST[name])
    assert not footprint.missing and footprint.activations_gb > 0


MOST = 0.15


@pytest.mark.parametrize("index", long_but(range(len(memory_reports.REPORTS)), 6))  # Wan 2.1 1.3B
def test_what_is_counted_is_within_15_percent_of_what_people_report(index: int) -> None:
    report = memory_reports.REPORTS[index]
    number = next(float(word) for word in report.reported.split() if word[0].isdigit())
    footprint = memory_reports.counted(report.model, report.size, report.vae_tiling)
    assert abs(footprint.peak_gb(report.offload) / number - 1) <= MOST


@pytest.mark.long
def test_the_page_of_reports_is_as_the_command_prints_it() -> None:
    assert Path("docs/memory.md").read_text() == memory_reports.page()
