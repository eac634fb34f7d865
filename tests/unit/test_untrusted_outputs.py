"""An output may be somebody else's: what its record and job.json say runs no code and opens no door."""

from __future__ import annotations

import ast
import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefleet import Given, InputError, JobError, ModelError, Output, Store, UserError, replay_script
from framefleet.api.clips import Media, encode
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.keep.replay.command import given_of
from framefleet.plugins.keep.replay.recorded_row import find_recorded, recipe_of, steps_again
from tests.commands import command
from tests.outputs import write_part
from tests.rows import own_row_id
from tests.tiny import build
from tests.unit.test_script import ENVIRONMENT, ROW_ID, output_with
from tests.web_server import WebServer, web

__all__ = ["web"]  # a fixture

CODE = 'x"""\'\n\r\x0c\x85\u2028import os\nopen("ran", "w")\n"""\''
RUNS = 'def f(pipe, request): ...\nopen("ran", "w")\n'


LORA = {"sha256": "0" * 64, "weight": 1.0}


def environment(changed: dict[str, Any]) -> str:
    return json.dumps(ENVIRONMENT | changed)


def asked(more: dict[str, Any]) -> str:
    return json.dumps({"prompt": "a", **more})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a folder with a module that leaves a file when it is imported."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "runs.py").write_text(RUNS)
    yield here
    assert not (here / "ran").exists()


def claiming(output: str, **job: Any) -> str:
    """Change what job.json of an output says."""
    path = Path(output, "job.json")
    path.write_text(json.dumps({"framefleet": CODE, "job": {"recipe": "generate", **job}}))
    return output


def shape_of(script: str) -> str:
    """What code a script is, whatever its literals hold."""

    class Blank(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant(value=type(node.value).__name__)

    return ast.dump(Blank().visit(ast.parse(script)))


def test_a_module_is_imported_only_for_a_caller_who_names_it(tmp_path: Path, folder: Path) -> None:
    recorded = find_recorded(output_with(tmp_path, recipe="runs:f"), ROW_ID)
    for given in (
        Given(),
        Given(recipe="generate"),
        Given(recipe="runs:g"),
        Given(recipe=["runs:g", "runs"]),
    ):
        with pytest.raises(JobError, match=r"recipe (is )?'runs:f'"):
            recipe_of(recorded, given)
    assert "--recipe runs:f" in command("replay", tmp_path, ROW_ID, exits=2).output
    assert not (folder / "ran").exists()
    clip = f"clips/{ROW_ID[:2]}/{ROW_ID}.mp4"
    verified = command("verify", claiming(output_with(tmp_path / "c", recipe="runs:f", path=clip)))
    assert f"{ROW_ID}: not rendered, its recipe is 'runs:f', and code is not run just" in verified.stdout
    assert "rendered by" not in verified.stdout
    assert recipe_of(recorded, Given(recipe="runs:f")).name == "runs:f"
    assert recipe_of(recorded, given_of(recipes=["runs:g", "runs:f"])).name == "runs:f"
    (folder / "ran").unlink()
    assert recipe_of(find_recorded(output_with(tmp_path / "b"), ROW_ID), Given()) is BUILT_IN["generate"]
    with pytest.raises(JobError, match="hint: install the plugin that has this recipe"):
        recipe_of(find_recorded(output_with(tmp_path / "d", recipe="flipped"), ROW_ID), Given())


def test_whatever_a_record_holds_a_script_is_the_same_code(tmp_path: Path) -> None:
    honest = replay_script(claiming(output_with(tmp_path / "a")), ROW_ID)
    found = environment({"gpu": CODE, CODE: [CODE, {"a": CODE}], "torch": None})
    arguments = json.dumps({"prompt": CODE, "guidance_scale": 3.5, "height": 16})
    other = output_with(tmp_path / "b", environment=found, arguments=arguments)
    script = replay_script(claiming(other), ROW_ID)
    assert shape_of(script) == shape_of(honest)
    assert "#   gpu x" in script


BY_CODE = {"backend": "quanto", "type": "int8", "components": [CODE]}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("model_digest", f'0"""\n{RUNS}', "not a SHA-256"),
        ("frames_sha256", "b" * 63 + "'", "not a SHA-256"),
        ("environment", environment({"dtype": "bf16)\nopen('ran', 'w')"}), "dtype"),
        ("environment", environment({"dtype": {"x": CODE}}), "dtype"),
        ("environment", environment({"dtype": {CODE: "bf16"}}), "no such component"),
        ("environment", environment({"device": "meta"}), "device"),
        ("environment", environment({"device": "cpu'); open('ran', 'w') #"}), "device"),
        ("environment", environment({"threads": 10**9}), "threads"),
        ("environment", environment({"threads": "open('ran', 'w')"}), "threads"),
        ("environment", environment({"attention": 'flash"); open("ran", "w") #'}), "attention"),
        ("environment", "[]", "environment"),
        ("environment", "{}", "dtype"),
        ("environment", "{", "environment"),
        ("environment", "[" * 100_000, "levels deep"),
        ("numerics", "[]", "numerics"),
        ("numerics", json.dumps({"cache": {"type": CODE}}), "cache"),
        ("numerics", json.dumps({"quantization": BY_CODE}), "component"),
        ("arguments", "[]", "arguments"),
        ("arguments", "7", "arguments"),
        ("arguments", json.dumps({"prompt": ["a"]}), "prompt is"),
        ("arguments", json.dumps({"prompt": None}), "arguments"),
        ("arguments", json.dumps({"prompt": {"uri": "/etc/passwd"}}), "arguments"),
        ("arguments", asked({"lora": "style"}), "lora"),
        ("arguments", asked({"lora": {"style": LORA | {"sha256": "x"}}}), "lora"),
        ("arguments", asked({"lora": {CODE: LORA}}), "lora"),
        ("arguments", '{"prompt": "a", "guidance_scale": NaN}', "guidance_scale"),
        ("arguments", asked({"height": 2**40}), "height"),
        ("arguments", asked({"height": "open('ran', 'w')"}), "height"),
        ("arguments", asked({"callback_on_step_end": "x"}), "callback_on_step_end"),
        ("arguments", asked({"x=open('ran','w'),y": 1}), "does not take it"),
        ("scheduler", "__class__", "no scheduler is named"),
        ("seed", -1, "seed"),
        ("fps", float("nan"), "fps"),
    ],
    ids=range(33),
)
def test_a_record_that_framefleet_did_not_write_is_refused(
    tmp_path: Path, column: str, value: Any, said: str
) -> None:
    output = output_with(tmp_path, **{column: value})
    with pytest.raises(UserError, match=said):
        replay_script(output, ROW_ID)
    for flags in ((), ("--script",)):
        command("replay", output, ROW_ID, *flags, exits=2)


JOBS: dict[str, Any] = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "deep": b'{"job":' * 100_000,
    "no job": b"{}",
    "a job that is a list": {"job": []},
    "a recipe that is a list": {"job": {"recipe": []}},
    "media of another kind": {"job": {"media": {"format": "exe"}}},
    "media without end": {"job": {"media": {"crf": 10**6}}},
    "a list of LoRAs": {"job": {"loras": ["style"]}},
    "a LoRA that is a path": {"job": {"loras": {"style": "a.safetensors"}}},
    "a LoRA without a digest": {"job": {"loras": {"style": {"path": "a"}}}},
    "a second model without a digest": {"job": {"second_models": {"flux": {"path": "a"}}}},
    "files that are numbers": {"job": {}, "model_files": {"a": 1}},
    "a digest that is a mapping": {"job": {}, "recipe_digest": {}},
    "a number of ten thousand digits": b'{"job": {}, "framefleet": ' + b"9" * 10_000 + b"}",
    "too much": b" " * (1 << 26) + b"{}",
}


@pytest.mark.parametrize("content", JOBS.values(), ids=JOBS)
def test_a_damaged_job_json_is_an_error_that_names_it(tmp_path: Path, content: Any) -> None:
    output = output_with(tmp_path)
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "job.json").write_bytes(written)
    ended = command("replay", output, ROW_ID, "--script", exits=2)
    assert "job.json is not as framefleet wrote it" in " ".join(ended.output.split())


def test_a_kernel_of_the_hub_is_fetched_only_for_a_caller_who_names_it(tmp_path: Path) -> None:
    output = claiming(output_with(tmp_path, environment=environment({"attention": "flash_hub"})))
    for given in (Given(), Given(attention="sage_hub"), Given(attention="_flash_3_hub")):
        with pytest.raises(JobError, match="'flash_hub', a kernel that would be fetched") as refused:
            find_recorded(output, ROW_ID, given)
        assert "--attention flash_hub" in refused.value.fix
    assert "--attention flash_hub" in command("replay", output, ROW_ID, exits=2).output
    assert find_recorded(output, ROW_ID, Given(attention="flash_hub")).model.options.attention == "flash_hub"


@pytest.mark.parametrize(
    "quantization",
    [
        {"backend": "nunchaku_lite"},
        {"backend": "modelopt", "quant_type": "FP8", "modelopt_config": {"checkpoint_dir": "/etc"}},
        {"backend": "sdnq", "modules_to_not_convert": ["(a+)+b"]},
        {"backend": "sdnq", "quant_method": "quanto", "compute_dtype": "hub"},
    ],
)
def test_a_record_packs_weights_by_plain_values_only(quantization: dict[str, Any], tmp_path: Path) -> None:
    output = output_with(tmp_path, numerics=json.dumps({"quantization": quantization}))
    with pytest.raises(ModelError, match="column 'numerics' of the record"):
        find_recorded(claiming(output), ROW_ID)


def test_no_place_is_opened_on_an_outputs_word_but_folders_stores_and_the_hub(
    tmp_path: Path, web: WebServer
) -> None:
    places = [f"{web.url}/model", f"simplecache::{web.url}/model", "filecache::s3://bucket/model"]
    places += ["ftp://127.0.0.1/model", "webhdfs://127.0.0.1/model", "reference://x"]
    places += [f"zip://model::{web.url}/a.zip", "HTTP://127.0.0.1/model", "~root/model"]
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        for output, option in (
            (output_with(folder / "model", model=place), "--model PLACE"),
            (with_lora(folder / "lora", {"path": place}), "--lora style=PLACE"),
            (with_second_model(folder / "second", {"path": place}), "--second-model flux=PLACE"),
        ):
            with pytest.raises(JobError, match="not opened without your consent") as refused:
                find_recorded(output, ROW_ID)
            assert option in refused.value.fix
    assert web.requests == []


def with_lora(folder: Path, claimed: dict[str, Any]) -> str:
    output = output_with(folder, arguments=asked({"lora": {"style": LORA}}))
    return claiming(output, loras={"style": {"sha256": "0" * 64, **claimed}})


def with_second_model(folder: Path, claimed: dict[str, Any]) -> str:
    named = {"name": "flux", "digest": "0" * 64}
    output = output_with(folder, arguments=asked({"image_model": named}))
    return claiming(output, second_models={"flux": {"digest": "0" * 64, **claimed}})


def test_a_place_that_the_caller_names_is_taken_and_folders_stores_and_the_hub_need_no_word(
    tmp_path: Path, web: WebServer
) -> None:
    given = Given(model=f"{web.url}/model", loras={"style": f"{web.url}/a.safetensors"})
    output = with_lora(tmp_path, {"path": "http://127.0.0.1:1/x", "file": "../x"})
    model = find_recorded(output, ROW_ID, given).model
    assert (model.path, model.loras["style"].path) == (f"{web.url}/model", f"{web.url}/a.safetensors")
    assert model.loras["style"].file is None
    for number, place in enumerate(("org/name@v1", "/models/wan", "s3://bucket/wan", "hf://org/name")):
        own = output_with(tmp_path / str(number), model=place)
        assert find_recorded(own, ROW_ID).model.path == place


def test_pickles_are_loaded_only_for_a_caller_who_says_so(tmp_path: Path) -> None:
    outputs = [
        claiming(output_with(tmp_path / "model"), model={"allow_pickle": True}),
        with_lora(tmp_path / "lora", {"path": "a.bin", "allow_pickle": True}),
        with_second_model(tmp_path / "second", {"path": "a", "allow_pickle": True}),
    ]
    for output in outputs:
        with pytest.raises(JobError, match="may contain pickles") as refused:
            find_recorded(output, ROW_ID)
        assert "--allow-pickle" in refused.value.fix
        find_recorded(output, ROW_ID, Given(allow_pickle=True))
    recorded = find_recorded(outputs[1], ROW_ID, Given(allow_pickle=True))
    assert recorded.model.allow_pickle and recorded.model.loras["style"].allow_pickle
    plain = find_recorded(output_with(tmp_path / "plain"), ROW_ID)
    assert not plain.model.allow_pickle


def test_packing_opens_no_models_and_says_what_whoever_renders_them_has_to_give(
    tmp_path: Path, web: WebServer
) -> None:
    place = f"{web.url}/a.safetensors"
    clip = encode(np.zeros((9, 32, 48, 3), np.uint8), media=Media(), fps=16.0, metadata={})
    changed = {"bytes": len(clip), "media_sha256": hashlib.sha256(clip).hexdigest()}
    named = {"name": "flux", "digest": "0" * 64}
    adapter = {"path": place, "weights": "a.safetensors", "image_encoder": "encoder"}
    output = output_with(
        tmp_path / "out", arguments=asked({"lora": {"style": LORA}, "image_model": named}), **changed
    )
    claiming(
        output,
        model={"allow_pickle": True, "parts": {"vae": {"path": place}}, "ip_adapter": adapter},
        loras={"style": {"sha256": "0" * 64, "path": place}},
        second_models={"flux": {"digest": "0" * 64, "path": place}},
    )
    store = Store(output)
    values = values_of(Output(store).record(ROW_ID))
    row_id = own_row_id(values)
    path = clip_path(row_id, ".mp4")
    store.create(path, clip)
    store.delete_all("records")
    write_part(store, "records", RECORD_FIELDS, [values | {"row_id": row_id, "path": path, "uri": path}])
    packed = command("pack", output, tmp_path / "pack", "--row", row_id)
    assert packed.exit_code == 0 and "no script for 1 row" in packed.stderr, packed.output
    page = (tmp_path / "pack/README.md").read_text()
    (line,) = [line for line in page.splitlines() if "framefleet verify ." in line]
    options = shlex.split(line)[3:]
    given = ["--model", "--part", "--lora", "--ip-adapter", "--second-model", "--allow-pickle"]
    assert {*given} < {*options}, line
    refused = command("verify", tmp_path / "pack", *options)
    assert "which is not opened without your consent" not in refused.output
    assert "--allow-pickle" not in refused.output and "No such option" not in refused.output
    assert web.requests == []


def test_weights_of_watermarks_are_pickles(tmp_path: Path) -> None:
    theirs = [{"name": "trustmark", "weights": "/tmp/theirs", "digest": "0" * 64}]
    recorded = find_recorded(claiming(output_with(tmp_path), marks={"watermark": theirs}), ROW_ID)
    with pytest.raises(JobError, match="its watermark trustmark may contain pickles"):
        steps_again(recorded.claim.job.model_dump(), allow_pickle=False)
    step = steps_again(recorded.claim.job.model_dump(), allow_pickle=True)["marks"]
    assert [one.weights for one in step.marks.watermarks] == ["/tmp/theirs"]  # type: ignore[attr-defined]
    own = find_recorded(
        claiming(output_with(tmp_path / "b"), marks={"watermark": [{"name": "spread"}]}), ROW_ID
    )
    step = steps_again(own.claim.job.model_dump(), allow_pickle=False)["marks"]
    assert step.labels == ("watermark spread",)


def test_an_image_on_a_private_network_is_read_only_below_a_root_of_the_caller(
    tmp_path: Path, web: WebServer
) -> None:
    uri = f"{web.url}/img/a.png"
    output = output_with(tmp_path, arguments=asked({"image": {"uri": uri, "sha256": "0" * 64}}))
    with pytest.raises(InputError, match="not a public address"):
        find_recorded(output, ROW_ID).inputs.read(uri)
    assert web.requests == []
    assert find_recorded(output, ROW_ID, Given(roots=(web.url,))).inputs.read(uri)


def test_an_image_of_ones_own_is_read_from_where_the_record_says_and_an_image_elsewhere_is_no_root(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(b"content")

    def read(uri: str, of: str) -> bytes:
        image = {"uri": of, "sha256": "0" * 64}
        output = output_with(tmp_path / f"of-{of.replace('/', '-')}", arguments=asked({"image": image}))
        return find_recorded(output, ROW_ID).inputs.read(uri)

    assert read(str(tmp_path / "a.png"), str(tmp_path / "a.png")) == b"content"
    with pytest.raises(InputError, match=r"outside of inputs\.roots"):
        read(str(tmp_path.parent), str(tmp_path / "a.png"))
    for uri in (
        "simplecache::http://127.0.0.1/a.png",
        "ftp://127.0.0.1/a.png",
        "a.png",
        "../a.png",
        "s3://a",
    ):
        with pytest.raises(InputError):
            read(uri, uri)


def test_a_component_whose_name_is_code_has_no_script(tmp_path: Path) -> None:
    model = build("wan", tmp_path / "model")
    name = "transformer); open('ran', 'w'); (0"
    (model / "transformer").rename(model / name)
    index = json.loads((model / "model_index.json").read_text())
    index[name] = index.pop("transformer")
    (model / "model_index.json").write_text(json.dumps(index))
    output = output_with(tmp_path / "out", model=str(model), model_digest="0" * 64)
    with pytest.raises(ModelError, match="cannot be a component's name"):
        replay_script(output, ROW_ID)
