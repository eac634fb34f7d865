"""Rows of different LoRAs share forwards, and each is what plain diffusers renders with its own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from framefleet import Batching, Clip, HalfDone, Model, ModelError, Renderer, Request, TableError, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.lora import Lora
from tests.lora_dialects import DIALECTS
from tests.loras import WEIGHTS, clips_and_expected, lora_rows, plain_digest, plain_pipe, save_lora
from tests.tiny import tiny
from tests.unaudited import unaudited

Files = Callable[[str], dict[str, Path]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return what gives a pipeline's two LoRAs. Those of SD: one of the text encoder too, and a DoRA."""
    made: dict[str, dict[str, Path]] = {}

    def of(model: str) -> dict[str, Path]:
        if model not in made:
            folder = tmp_path_factory.mktemp(model)
            made[model] = {
                "style": save_lora(model, "style", folder / "style"),
                "detail": save_lora(model, "detail", folder / "detail", use_dora=model == "sd"),
            }
        return made[model]

    return of


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ("wan", "bf16"),
        ("sd", "fp32"),
        *(pytest.param("cogvideox", dtype, marks=pytest.mark.long) for dtype in ("fp32", "bf16")),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("wan", "fp32"), ("sd", "bf16"))),
    ],
)
def test_rows_of_any_loras_and_weights_are_those_of_plain_diffusers(
    model: str, dtype: Any, files: Files
) -> None:
    clips, expected = clips_and_expected(model, dtype, files(model), device="cpu")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert len(set(expected.values())) == len(expected)
    assert np.mean([clip.batch_size for clip in clips]) > 2


@pytest.fixture(scope="module")
def sd(files: Files) -> Model:
    return load_model(tiny("sd"), dtype="fp32", loras=files("sd"))


def test_a_prompt_is_encoded_once_for_all_rows_whose_loras_leave_the_encoder_alone(sd: Model) -> None:
    calls: list[str] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    table = lora_rows("sd", [None, "detail", "style", "style:0.5", "detail:2", "none"])
    same = [Request(arguments={**row.arguments, "prompt": "海", "guidance_scale": 1.0}) for row in table]
    with intercept({"text_encoder": sd.pipe.text_encoder}, count):
        assert all(isinstance(clip, Clip) for clip in unaudited(sd, Batching()).render(same))
    assert len(calls) == 3  # without style, with style, with half of it


def test_a_row_is_known_by_the_content_and_the_weight_of_the_loras_it_uses(
    sd: Model, files: Files, tmp_path: Path
) -> None:
    def row_ids(model: Model, *loras: str | None) -> list[str]:
        table = lora_rows("sd", [None]) * len(loras)
        asked = [
            {**row.arguments, "lora": lora, "num_inference_steps": 1}
            for row, lora in zip(table, loras, strict=True)
        ]
        renderer = unaudited(model, Batching())
        return [clip.row_id for clip in renderer.render(Request(arguments=given) for given in asked)]

    bare = load_model(tiny("sd"), dtype="fp32")
    assert len({*row_ids(sd, None, "", "none"), *row_ids(bare, None)}) == 1
    assert len({*row_ids(sd, "style", "style:1", " style : 1.0 ")}) == 1
    assert len({*row_ids(sd, None, "style", "style:0.5", "detail", "style+detail")}) == 5
    other = save_lora("sd", "style", tmp_path, lora_dropout=0.5)  # other bytes
    changed = load_model(tiny("sd"), dtype="fp32", loras=files("sd") | {"style": other})
    assert row_ids(changed, "style") != row_ids(sd, "style")
    (clip,), (same,) = (unaudited(model).render(lora_rows("sd", ["style"])) for model in (changed, sd))
    assert clip.frames_sha256 == same.frames_sha256  # type: ignore[union-attr]  # dropout is for training
    assert row_ids(changed, "detail") == row_ids(sd, "detail")


def test_a_row_may_name_declared_loras_only(sd: Model) -> None:
    with pytest.raises(TableError, match=r"request 0: lora is 'stile:0.5', but .* no LoRA 'stile'") as caught:
        list(unaudited(sd).render(lora_rows("sd", ["stile:0.5"])))
    assert "did you mean 'style'?" in caught.value.fix


def test_nothing_is_left_on_the_model_and_alone_it_is_the_bare_one(sd: Model) -> None:
    modules = [part for network in sd.networks().values() for part in network.modules()]
    before = [sorted(vars(part)) for part in modules]
    list(Renderer(sd, Batching(min_gain=0)).render(lora_rows("sd", ["style", None, "detail", "style"])))
    assert [sorted(vars(part)) for part in modules] == before


def test_each_transformer_of_wan_2_2_takes_its_own(files: Files, tmp_path: Path) -> None:
    file = files("wan_moe")["style"]
    loras = {"high": Lora(path=str(file)), "low": {"path": str(file), "component": "transformer_2"}}
    loaded = load_model(tiny("wan_moe"), dtype="fp32", loras=loras)
    weights = {"high": 1.0, "low": 0.5}
    pipe = plain_pipe("wan_moe", torch.float32, {"high": file})
    pipe.load_lora_weights(str(file), adapter_name="my_low", load_into_transformer_2=True)
    table = lora_rows("wan_moe", ["high+low:0.5", "high", "low", None])
    clips = {clip.request.seed: clip for clip in unaudited(loaded).render(table)}
    assert len({clip.frames_sha256 for clip in clips.values()}) == 4  # type: ignore[union-attr]
    assert clips[0].frames_sha256 == plain_digest(pipe, table[0], weights)  # type: ignore[union-attr]


def test_a_file_of_kohyas_trainer_is_taken_as_diffusers_takes_it(tmp_path: Path) -> None:
    layers = DIALECTS["kohya"].layers(plain_pipe("sd", torch.float32))
    save_file({key: weight for layer in layers for key, weight in layer.items()}, tmp_path / "k.safetensors")
    loaded = load_model(tiny("sd"), dtype="fp32", loras={"k": tmp_path / "k.safetensors"})
    (row,) = lora_rows("sd", ["k:0.9"])
    (clip,) = unaudited(loaded).render([row])
    pipe = plain_pipe("sd", torch.float32, {"k": tmp_path / "k.safetensors"})
    assert clip.frames_sha256 == plain_digest(pipe, row, {"k": 0.9})  # type: ignore[union-attr]


def refusal(lora: Any, model: str = "wan") -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_model(tiny(model), loras={"style": lora})
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("model", ["cogvideox", "sd", "ltx"])
def test_a_lora_of_another_model_is_refused_by_its_first_weight(model: str, files: Files) -> None:
    error = refusal(files("wan")["style"], model)
    assert re.search(r"loras\.style: .* does not fit \w+Pipeline: it has no layer for ", error.problem)
    assert "transformer.blocks.0.attn1.to_q.lora_A.weight" in error.problem
    assert "made for this model" in error.fix


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"init_lora_weights": "pissa"}, r"changes the model's own weights .* is 'pissa'"),
        ({"megatron_core": "antigravity"}, "changes the model's own weights"),
        ({"eva_config": {"rho": 2.0}}, "changes the model's own weights"),
        ({"target_modules": "(a+)+$"}, "may take too long"),
        ({"exclude_modules": ".*.*.*.*.*x"}, "may take too long"),
        ({"rank_pattern": {"(.*)*": 3}}, "may take too long"),
        ({"r": "four"}, "does not fit"),
        ({"r": 10**9}, "does not fit"),
        ({"rank_pattern": [1]}, "does not fit"),
        ({"rank_pattern": {"to_q": 10**8}}, "a rank of at most 4"),
        ({"r": 10**8}, "a rank of at most 4"),
        ({"unheard_of": 3}, "changes the model's own weights"),
        ([1, 2], "does not fit"),
    ],
    ids=repr,
)
def test_a_description_that_asks_for_more_than_adapters_is_refused(
    description: Any, problem: str, files: Files, tmp_path: Path
) -> None:
    plain = {"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_v", "ffn.net.0.proj"]}
    if isinstance(description, dict):
        description = {f"transformer.{key}": value for key, value in (plain | description).items()}
    path, metadata = tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(description)}
    save_file(load_file(files("wan")["style"]), path, metadata=metadata)
    assert re.search(problem, refusal(path).problem)
    assert "antigravity" not in sys.modules


KEY = "transformer.blocks.1.attn1.to_q.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: w.update({KEY: torch.zeros(4, 5120)}), f"{KEY} is made for a layer 5120 wide, but the"),
        (lambda w: w.pop(KEY), "attn1.to_q.lora_B.weight has no counterpart in the file"),
        (lambda w: w.update({key: weight.to(torch.int8) for key, weight in w.items()}), ""),
        (lambda w: w.update({key: weight.flatten()[0] for key, weight in w.items()}), ""),
        (lambda w: w.update({key: weight[:0] for key, weight in w.items()}), ""),
        (lambda w: w.update({key.upper(): w.pop(key) for key in list(w)}), ""),
        (lambda w: w.update({"": torch.zeros(1)}), ""),
        (lambda w: w.update({"transformer..lora_A.weight": torch.zeros(4, 4)}), ""),
        (lambda w: w.clear(), ""),
    ],
)
def test_weights_of_odd_names_types_and_shapes_are_refused(
    change: Any, problem: str, files: Files, tmp_path: Path
) -> None:
    weights = load_file(files("wan")["style"])
    change(weights)
    save_file(weights, tmp_path / "odd.safetensors")
    error = refusal(tmp_path / "odd.safetensors")
    assert "odd.safetensors" in error.problem and problem in error.problem


def test_a_file_that_is_cut_short_absent_or_ambiguous_is_refused(files: Files, tmp_path: Path) -> None:
    file = files("wan")["style"]
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-1])
    assert "its header says" in refusal(tmp_path / "cut.safetensors").problem
    assert "nowhere.safetensors does not exist" in refusal(tmp_path / "nowhere.safetensors").problem
    shutil.copy(file, tmp_path / "two.safetensors")
    error = refusal(tmp_path)
    assert "has 2 files that may be meant" in error.problem
    assert "cut.safetensors, two.safetensors" in error.fix
    load_model(tiny("wan"), loras={"style": {"path": str(tmp_path), "file": "two.safetensors"}})


def test_a_pickle_is_loaded_only_when_it_is_allowed(files: Files, tmp_path: Path) -> None:
    torch.save(load_file(files("wan")["style"]), tmp_path / "style.bin")
    for place in (tmp_path, tmp_path / "style.bin"):
        assert "style.bin is a pickle" in refusal(place).problem
        load_model(tiny("wan"), loras={"style": {"path": str(place), "allow_pickle": True}})


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one with `diff_b`, and zeros for norms that add nothing; and one with peft's `lora_bias`."""
    folder = tmp_path_factory.mktemp("loras")
    layers = DIALECTS["original Wan"].layers(plain_pipe("wan", torch.float32))
    keys = {key: weight * 0.1 for layer in layers[::2] for key, weight in layer.items()}
    ups = {key: weight for key, weight in keys.items() if key.endswith(".lora_up.weight")}
    keys |= {key.replace("lora_up.weight", "diff_b"): weight[:, 0].clone() for key, weight in ups.items()}
    keys["diffusion_model.blocks.0.norm3.diff"] = torch.zeros(32)
    save_file(keys, folder / "distilled.safetensors")
    return {
        "style": folder / "distilled.safetensors",
        "detail": save_lora("wan", "detail", folder / "peft", lora_bias=True),
    }


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.long)])
def test_rows_with_biases_are_those_of_plain_diffusers(dtype: str, biased: dict[str, Path]) -> None:
    clips, expected = clips_and_expected("wan", dtype, biased, device="cpu")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert len({*expected.values()}) == len(expected)


def test_rows_with_biases_go_on_after_a_drain_with_equal_bits(biased: dict[str, Path]) -> None:
    def renderer(max_rows: int) -> Renderer:
        model = load_model(tiny("wan"), dtype="fp32", loras=biased)
        return unaudited(model, Batching(max_rows=max_rows, min_gain=0))

    def ended(renderer: Renderer, checkpoints: dict[str, bytes | None]) -> dict[str, str | None]:
        for row_id, checkpoint in checkpoints.items():
            renderer.submit(rows[row_id], row_id, checkpoint)
        clips: list[Any] = []
        while renderer.num_active:
            clips += renderer.step()
        return {clip.row_id: clip.frames_sha256 for clip in clips}

    first = renderer(5)
    rows = dict(first._check(row, at)[::-1] for at, row in enumerate(lora_rows("wan", list(WEIGHTS))))
    for row_id, row in rows.items():
        first.submit(row, row_id)
    outcomes = [outcome for _ in range(3) for outcome in first.step()] + first.drain()
    halves = {half.row_id: half.checkpoint for half in outcomes if isinstance(half, HalfDone)}
    under_way = [rows[row_id].arguments for row_id, checkpoint in halves.items() if checkpoint]
    assert {name for arguments in under_way for name in arguments.get("lora", ())} == {*biased}
    clips = {clip.row_id: clip.frames_sha256 for clip in outcomes if isinstance(clip, Clip)}
    assert clips | ended(renderer(5), halves) == ended(renderer(1), dict.fromkeys(rows))
