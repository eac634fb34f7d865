"""Rows of different LoRAs share forwards, each as plain diffusers renders it; jobs declare and fetch them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import framefleet
from framefleet import (
    Batching,
    Clip,
    Given,
    JobError,
    Model,
    ModelError,
    Renderer,
    Request,
    load_model,
    replay,
    replay_script,
)
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.job.model import open_models
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import ServiceError
from framefleet.pipeline.model.lora import Lora, fetch_lora
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.commands import command
from tests.driven import render_driven
from tests.here import run_script
from tests.hub_server import HubServer
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.loras import DIALECTS, clips_and_expected, lora_rows, plain_digest, plain_pipe, save_lora
from tests.tiny import SMALLEST, tiny
from tests.two_models import two_model_rows, two_models
from tests.unaudited import calls_of, clips_in_order, unaudited

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
    table = lora_rows("sd", [None, "detail", "style", "style:0.5", "detail:2", "none"])
    same = [Request(arguments={**row.arguments, "prompt": "海", "guidance_scale": 1.0}) for row in table]
    with calls_of(sd.text_encoders()) as calls:
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


OPTIONS: dict[str, dict[str, Any]] = {
    "cast": {"layerwise_casting": "fp8_e4m3"},
    "offload": {"offload": "group"},
    "torchao": {"quantization": {"backend": "torchao", "type": "int8_weight_only"}},
    "quanto": {"quantization": {"backend": "quanto", "type": "int8"}},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_rows_of_different_loras_share_forwards_and_are_those_of_a_row_alone(
    name: str, tmp_path: Path
) -> None:
    lora = save_lora("wan", "style", tmp_path)
    asked = ("none", "style:0.8", "style", "none")
    rows = [
        framefleet.Request(arguments={**SMALLEST["wan"], "prompt": "a cat", "lora": given}, seed=seed)
        for seed, given in enumerate(asked)
    ]

    def rendered(max_rows: int) -> dict[str, tuple[str, float]]:
        model = framefleet.load_model(tiny("wan"), loras={"style": lora}, **OPTIONS[name])
        batching = framefleet.Batching(max_rows=max_rows, min_gain=0)
        clips = clips_in_order(unaudited(model, batching), rows)
        return {clip.row_id: (clip.frames_sha256, clip.batch_size) for clip in clips}

    together, alone = rendered(4), rendered(1)
    assert {row: digest for row, (digest, _) in together.items()} == {
        row: digest for row, (digest, _) in alone.items()
    }
    assert all(size > 2 for _, size in together.values())
    assert len({digest for digest, _ in together.values()}) == 4


@pytest.fixture(scope="module")
def job_files(files: Files) -> dict[str, str]:
    return {name: str(file) for name, file in files("wan").items()}


def values_of(folder: Path, loras: dict[str, Any], cell: str | None) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", [row | {"lora": cell} for row in prompt_rows(2)])
    return job_values(table, folder / "out") | {"loras": loras}


def resolved(folder: Path, loras: dict[str, Any]) -> ResolvedJob:
    return resolve_job(load_job(values_of(folder, loras, None)), Callback())


def test_rows_choose_their_loras_and_their_records_lead_back_to_them(
    tmp_path: Path, job_files: dict[str, str]
) -> None:
    # By cell, what its row has: that of the first is the job's default.
    cells = {None: "style:0.5", "none": "none", "style": "style:1.0"}
    cells |= {"style:0.8+detail:-1": "detail:-1.0+style:0.8"}
    rows = [row | {"lora": cell} for row, cell in zip(prompt_rows(len(cells)), cells, strict=True)]
    values = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out") | {"loras": job_files}
    values["defaults"] |= {"lora": "style:0.5"}
    render_driven(values)
    *_, record = records = sorted(records_of(tmp_path / "out"), key=lambda record: record["row_indices"])
    assert [record["lora"] for record in records] == [*cells.values()]
    claimed = json.loads((tmp_path / "out" / "job.json").read_text())["job"]["loras"]
    assert claimed["style"]["sha256"] == json.loads(record["arguments"])["lora"]["style"]["sha256"]
    output, row_id = str(tmp_path / "out"), record["row_id"]
    assert replay(output, row_id).is_equal
    assert run_script(replay_script(output, row_id)).startswith("the same frames: ")
    moved = shutil.copy(job_files["style"], tmp_path / "moved.safetensors")
    command("replay", output, row_id, "--lora", f"style={moved}", exits=0)
    with pytest.raises(ModelError, match=r"loras\.style: .* is not the expected file"):
        replay(output, row_id, Given(loras={"style": job_files["detail"]}))


def test_loras_may_be_added_to_an_output_and_left_out_and_not_changed(
    tmp_path: Path, job_files: dict[str, str]
) -> None:
    first = resolved(tmp_path, {"style": job_files["style"]})
    claim(first)
    style = json.loads(first.store.read("job.json"))["job"]["loras"]["style"]
    assert Path(style["path"], style["file"]) == Path(job_files["style"])  # as other machines find it
    assert len(style["sha256"]) == 64
    first.store.create("clips/ab/ab.mp4", b"a clip")
    claim(resolved(tmp_path, {"detail": job_files["detail"]}))
    assert sorted(read_claim(first.store).job.loras) == ["detail", "style"]
    assert check_claim(resolved(tmp_path, {}))
    with pytest.raises(JobError, match=r"loras\.style\.sha256: \w{64} there, \w{64} here"):
        claim(resolved(tmp_path, {"style": job_files["detail"]}))


def test_loras_that_the_model_has_no_layers_for_are_refused(
    tmp_path: Path, job_files: dict[str, str]
) -> None:
    for model, lora, message in (
        ("svd", job_files["style"], "StableVideoDiffusionPipeline takes no LoRAs"),
        (
            "wan",
            {"path": job_files["style"], "component": "transformer_2"},
            r"it has no layer for transformer_2\.blocks\.0",
        ),
    ):
        values = values_of(tmp_path, {"style": lora}, None) | {"model": str(tiny(model))}
        with pytest.raises(ModelError, match=message):
            resolve_job(load_job(values), Callback())


def test_a_row_whose_model_the_lora_does_not_fit_says_why(tmp_path: Path, job_files: dict[str, str]) -> None:
    rows = [row | {"lora": "style"} for row in two_model_rows(2)]
    with closing(resolve_job(load_job(two_models(tmp_path, rows, loras=job_files)), Callback())) as job:
        assert {*job.models["wan"].settings.loras} == {*job_files} and not job.models["ltx"].settings.loras
        of_wan, of_ltx = (row for first, batch in job.table.batches() for row in job.rows.read(first, batch))
    assert not isinstance(of_wan, InvalidRow) and isinstance(of_ltx, InvalidRow)
    ((problem, fix),) = of_ltx.messages()
    assert problem.startswith("row 1: lora is 'style', but loras.style: /")
    assert "does not fit LTXPipeline: " in problem and fix


def test_ulysses_is_refused_together_with_loras_that_fit_its_model(
    tmp_path: Path, job_files: dict[str, str]
) -> None:
    placed = {"device": "cpu", "placement": {"type": "ulysses", "devices": 2}}
    values = values_of(tmp_path, {"style": job_files["style"]}, None)
    message = "placement: ulysses and model.loras are both set"
    with pytest.raises(ModelError, match=message):
        open_models(load_job(values | {"model": {"path": str(tiny("wan")), **placed}}))
    values = two_models(tmp_path, two_model_rows(2), loras=job_files)
    for name, problem in (
        ("wan", message),
        ("ltx", "no context parallel plan"),
    ):  # its LoRAs are not the reason
        models = {**values["models"], name: {"path": str(tiny(name)), **placed}}
        with pytest.raises(ModelError, match=problem):
            open_models(load_job(values | {"models": models}))


REPO = "studio/style-lora"


@pytest.fixture(scope="module")
def file(files: Files) -> Path:
    return files("wan")["style"]


@pytest.fixture
def repo(hub: HubServer, file: Path, tmp_path: Path) -> HubServer:
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.copy(file, folder / "style.safetensors")
    (folder / "README.md").write_text("never loaded")
    hub.repos[REPO] = folder
    return hub


def test_a_local_file_and_its_folder_are_the_same_lora(file: Path) -> None:
    found = fetch_lora("style", Lora(path=str(file)))
    assert found.path == file
    assert found.lora == Lora(path=str(file.parent), file=file.name, sha256=sha256_of(file))
    assert fetch_lora("style", Lora(path=f"file://{file.parent}")) == found
    assert fetch_lora("style", found.lora) == found


def test_a_link_is_followed_where_the_user_named_it_and_not_in_a_folder_of_others(
    file: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "style.safetensors").symlink_to(file)
    with pytest.raises(ModelError, match="not in the model's folder"):
        fetch_lora("style", Lora(path=str(packed)))
    named = fetch_lora("style", Lora(path=str(packed / "style.safetensors")))
    assert fetch_lora("style", named.lora) == named  # as a worker does


def test_a_file_that_is_another_than_the_drivers_or_not_there_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="is not the expected file.*" + "0" * 64):
        fetch_lora("style", Lora(path=str(file), sha256="0" * 64))
    with pytest.raises(ModelError, match=r"loras\.style: .* does not exist"):
        fetch_lora("style", Lora(path="./nowhere"))


def test_a_hub_lora_is_named_by_its_commit_and_fetched_once(repo: HubServer, file: Path) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    assert found.lora == Lora(
        path=REPO, revision=repo.commit(REPO), file="style.safetensors", sha256=sha256_of(file)
    )
    assert fetch_lora("style", Lora(path=f"{REPO}@main", file="style.safetensors")).lora == found.lora
    requests = len(repo.requests)
    assert fetch_lora("style", found.lora) == found  # as a worker does
    assert len(repo.requests) == requests
    assert len(repo.fetched()) == 1


DEEP = "sdxl/style/x.safetensors"


@pytest.mark.parametrize("name", ["style.safetensors", DEEP])
def test_a_hub_lora_in_the_cache_is_used_offline(
    name: str, repo: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "style.safetensors").rename(folder / name)
    found = fetch_lora("style", Lora(path=REPO, file=name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for lora in (found.lora, Lora(path=REPO, file=name), Lora(path=REPO)):
        assert fetch_lora("style", lora) == found
    with pytest.raises(ServiceError):
        fetch_lora("style", Lora(path="studio/other"))


def test_a_file_below_folders_is_found_in_a_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / DEEP).parent.mkdir(parents=True)
    shutil.copy(file, tmp_path / DEEP)
    assert fetch_lora("style", Lora(path=str(tmp_path), file=DEEP)).path == tmp_path / DEEP
    with pytest.raises(ModelError, match=r"other/y\.safetensors does not exist"):
        fetch_lora("style", Lora(path=str(tmp_path), file="sdxl/other/y.safetensors"))


def test_a_hub_lora_whose_bytes_changed_in_the_cache_is_refused(repo: HubServer) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    content = bytearray(found.path.read_bytes())
    content[-1] ^= 1
    found.path.resolve().write_bytes(content)
    for lora in (found.lora, replace(found.lora, sha256=None)):
        with pytest.raises(ModelError, match="is not the expected file"):
            fetch_lora("style", lora)


def test_a_hub_lora_that_is_not_there_is_refused(repo: HubServer) -> None:
    for lora, problem in (
        (Lora(path=REPO, file="other.safetensors"), r"has no other\.safetensors"),
        (Lora(path=REPO, file="README.md"), r"README\.md is not a \.safetensors file"),
        (Lora(path=REPO, revision="v9"), "has no revision 'v9'"),
    ):
        with pytest.raises(ModelError, match=problem):
            fetch_lora("style", lora)


def test_a_url_of_a_file_or_a_folder_is_fetched_into_the_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    place = f"memory://loras-{tmp_path.name}"
    fsspec.filesystem("memory").put(str(file), f"{place}/style.safetensors")
    found = fetch_lora("style", Lora(path=f"{place}/style.safetensors"))
    assert found.lora == Lora(path=place, file="style.safetensors", sha256=sha256_of(file))
    assert found.path.read_bytes() == file.read_bytes()
    assert found.path.is_relative_to(tmp_path / "cache")
    assert fetch_lora("style", Lora(path=place)).lora == found.lora
    with pytest.raises(ModelError, match=r"loras\.style: .*nowhere\.safetensors does not exist"):
        fetch_lora("style", Lora(path=f"{place}/nowhere.safetensors"))
