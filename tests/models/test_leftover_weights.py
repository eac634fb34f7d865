"""Weights in a model's folder that no network takes, and those of a network that no file holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.class_cache import cache_folder
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.sources.folder_source import FolderSource
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.pipeline.model.sources.leftovers import check_scales
from framefleet.pipeline.model.sources.weights import open_weights
from framefleet.plugins.forecast.weights_fit import check_weights_fit, errors_of, write_hollow
from tests.hub_server import HubServer
from tests.tiny import tiny

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
TRANSFORMER, ENCODER = f"transformer/{DIFFUSERS}", f"text_encoder/{TRANSFORMERS}"
_Weights = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("wan", tmp_path)


def copied(model: str, place: Path) -> Path:
    return shutil.copytree(tiny(model), place / model)


def change(path: Path, changed: Callable[[_Weights], Any]) -> None:
    weights = load_file(path)
    changed(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("file", [TRANSFORMER, ENCODER])
def test_weights_that_no_network_takes_are_refused_unless_they_are_allowed(
    file: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"extra.{at}.weight" for at in range(5)]
    change(folder / file, lambda w: w.update({name: torch.ones(1) for name in names}))
    with pytest.raises(ModelError, match=r"nothing uses: extra\.0\.weight, .* and 2 more") as caught:
        framefleet.load_model(folder)
    assert str(folder / file.partition("/")[0]) in caught.value.problem
    assert "allow_unmatched_weights" in caught.value.fix
    model = framefleet.load_model(folder, allow_unmatched_weights=True)
    assert "extra.0.weight" in caplog.text
    assert model.settings.numerics("exact")["allow_unmatched_weights"] is True


@pytest.mark.parametrize(
    ("model", "file", "name"),
    [
        ("sd", ENCODER, "text_model.embeddings.position_ids"),  # a buffer, before transformers 4.31
        ("sd", ENCODER, "text_projection.weight"),  # of CLIP as a whole
        ("wan", ENCODER, "decoder.final_layer_norm.weight"),  # of UMT5 as a whole
        ("wan", TRANSFORMER, "blocks.0.attn2.norm_added_q.weight"),  # diffusers' own list
    ],
)
def test_what_published_models_hold_besides_is_passed_over(
    model: str, file: str, name: str, tmp_path: Path
) -> None:
    folder = copied(model, tmp_path)
    change(folder / file, lambda weights: weights.update({name: torch.ones(1, 4)}))
    framefleet.load_model(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("q.weight_scale", "q.scale_weight", "q.weight_scale_inv", "q.weight_scale_2", "q.input_scale"),
        *("q.weight_global_scale", "q.weight._scale", "q.weight_quantizer._amax", "q.comfy_quant"),
        "scaled_fp8",
    ],
)
def test_scales_of_weights_packed_in_fp8_are_known_by_their_names(name: str) -> None:
    check_scales("x", ["q.weight", "scale_shift_table"])
    with pytest.raises(ModelError, match="packed in fp8"):
        check_scales("x", ["q.weight", name])


FILES = (TRANSFORMER, ENCODER, f"vae/{DIFFUSERS}")


@pytest.mark.parametrize("file", FILES)
def test_weights_packed_in_fp8_are_refused_whatever_is_allowed(file: str, folder: Path) -> None:
    def pack(weights: _Weights) -> None:
        name = next(name for name in weights if name.endswith(".weight") and weights[name].ndim > 1)
        weights |= {name: weights[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.ones(1)}

    change(folder / file, pack)
    for options in ({}, {"allow_unmatched_weights": True}):
        with pytest.raises(ModelError, match="packed in fp8") as caught:
            framefleet.load_model(folder, **options)
        assert caught.value.fix


@pytest.mark.parametrize(("file", "dtype"), zip(FILES, (torch.int8, torch.uint8, torch.int32), strict=True))
def test_weights_packed_as_whole_numbers_are_refused(file: str, dtype: torch.dtype, folder: Path) -> None:
    change(folder / file, lambda w: w.update({k: v.to(dtype) for k, v in w.items() if v.ndim > 1}))
    with pytest.raises(ModelError, match="packed as whole numbers") as caught:
        framefleet.load_model(folder, allow_unmatched_weights=True)
    assert str(folder / file) in caught.value.problem and "quantization" in caught.value.fix


@pytest.mark.parametrize("file", FILES)
def test_a_weight_of_another_shape_is_named(file: str, folder: Path) -> None:
    name = next(name for name, weight in load_file(folder / file).items() if weight.ndim > 1)
    change(folder / file, lambda weights: weights.update({name: torch.ones(3, 3)}))
    with pytest.raises(
        ModelError, match=r"has the shape \[3, 3\], but by the config it should have \["
    ) as caught:
        framefleet.load_model(folder, allow_unmatched_weights=True)
    assert f"{folder / Path(file).parent}: the weight {name} " in caught.value.problem


def extra(weights: _Weights) -> None:
    weights["extra.weight"] = torch.ones(1)


def moved(weights: _Weights) -> None:
    weights["extra.weight"] = weights.pop(next(iter(weights)))


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        *((file, extra) for file in FILES),
        *((file, lambda weights: weights.popitem()) for file in FILES),
        *((file, lambda weights: weights.update({[*weights][-1]: torch.ones(3, 3)})) for file in FILES),
        (TRANSFORMER, moved),
        (ENCODER, lambda weights: weights.update({"decoder.final_layer_norm.weight": torch.ones(4)})),
        (ENCODER, lambda weights: weights.update({k: v.bfloat16() for k, v in weights.items()})),
        (ENCODER, lambda weights: None),
    ],
)
def test_a_plan_says_of_weights_what_loading_them_does(
    file: str, changed: Callable[[_Weights], Any], folder: Path, tmp_path: Path
) -> None:
    change(folder / file, changed)
    for allow, foreseen in zip((False, True), foreseen_errors(folder, tmp_path / "hollow"), strict=True):
        try:
            framefleet.load_model(folder, allow_unmatched_weights=allow)
            error = None
        except ModelError as raised:
            error = (raised.problem.removeprefix(f"{folder}/"), raised.fix)
        assert foreseen == error


def foreseen_errors(folder: Path, place: Path) -> Any:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        hollow = place / path.relative_to(folder)
        if path.suffix == ".safetensors":
            write_hollow(hollow, check_file_size(path), {"format": "pt"})
        else:
            hollow.parent.mkdir(parents=True, exist_ok=True)
            hollow.symlink_to(path)
    components = components_in(folder)
    return errors_of(place, components, compared=[one.name for one in components if one.has_weights])


def test_what_plan_finds_of_weights_is_remembered(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder / ENCODER, extra)
    weights = open_weights(FolderSource(str(folder)))
    with pytest.raises(ModelError, match=r"text_encoder has weights that nothing uses: extra\.weight"):
        check_weights_fit(weights.source, weights.files, weights.components, allow_unmatched=False)
    files = (cache_folder() / "classes").iterdir()
    (answer,) = [file for file in files if f"{folder}/text_encoder has" in file.read_text()]
    answer.write_text(answer.read_text().replace("extra.weight", "remembered.weight"))
    check_weights_fit(weights.source, weights.files, weights.components, allow_unmatched=True)
    assert f"{folder}/text_encoder has weights that nothing uses: remembered.weight" in caplog.text


def test_plan_compares_weights_of_the_hub_by_their_headers(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    change(folder / TRANSFORMER, lambda weights: weights.popitem())
    hub.repos["studio/wan"] = folder
    table = tmp_path / "t.csv"
    table.write_text("prompt\na cat\n")
    job = {"model": "studio/wan", "output": str(tmp_path / "o"), "table": str(table)}
    for _ in range(2):
        with pytest.raises(ModelError, match=r"studio/wan@\w+/transformer has no weight "):
            framefleet.plan(job)
        assert not [*(tmp_path / "hf").rglob("*.safetensors")]
        assert len(hub.fetched()) == 3  # each file's header, once


@pytest.mark.parametrize("model", ["z_image_controlnet", "wan_modular", "flux2_klein"])
def test_sound_models_are_taken_by_a_plan_and_loaded(model: str, tmp_path: Path) -> None:
    assert foreseen_errors(copied(model, tmp_path), tmp_path / "hollow") == (None, None)
    framefleet.load_model(tiny(model))  # also with layers that a pipeline shares and saves twice


def test_a_buffer_without_a_value_is_refused_unless_its_own_is_allowed(tmp_path: Path) -> None:
    folder = copied("flux2_klein", tmp_path)
    change(folder / f"vae/{DIFFUSERS}", lambda weights: weights.pop("bn.running_mean"))
    with pytest.raises(ModelError, match=r"vae has no weight bn\.running_mean"):
        framefleet.load_model(folder)
    framefleet.load_model(folder, allow_unmatched_weights=True)


@pytest.mark.parametrize("file", [TRANSFORMER, ENCODER])
def test_shards_hold_what_their_index_says(file: str, folder: Path) -> None:
    path = folder / file
    weights = load_file(path)
    path.unlink()
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    index = {name: half for half, own in halves.items() for name in own}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))

    def write(half: str, own: list[str]) -> None:
        save_file({name: weights[name].clone() for name in own}, path.with_name(half))

    for half, own in halves.items():
        write(half, own)
    framefleet.load_model(folder)
    first, second = halves.values()
    write("a.safetensors", [*first, second[0]])  # in two shards: which one counts?
    with pytest.raises(ModelError, match=r"a\.safetensors has weights that nothing uses"):
        framefleet.load_model(folder)
    write("a.safetensors", first[1:])
    with pytest.raises(ModelError, match=r"a\.safetensors has no weight"):
        framefleet.load_model(folder)
