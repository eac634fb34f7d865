"""Model folders packed to do harm, or damaged in odd ways: loaded, or refused with a fix.

What is loaded here may not connect to anything, whatever its configs name: no test sets HF_HUB_OFFLINE.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.verified_folder import alone, sealed
from tests.commands import command
from tests.model_files import model_files
from tests.no_network import refuse_network
from tests.tiny import tiny

ENCODER = "text_encoder/config.json"
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
Change = Callable[[Path], Any]
ENDLESS = "layers without end"  # takes ten seconds: its process goes to the limit of a large model


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)
    monkeypatch.setattr("framefleet.pipeline.model.sources.verified_folder.MAX_MODULES", 2000)  # soon reached


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(tiny("wan"), tmp_path / "wan")


def index(**entries: Any) -> Change:
    return config("model_index.json", **entries)


def config(file: str, **entries: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | entries))

    return change


def text(file: str, content: str | bytes) -> Change:
    def change(folder: Path) -> None:
        content_bytes = content.encode() if isinstance(content, str) else content
        (folder / file).write_bytes(content_bytes)

    return change


def link(file: str, place: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(place)

    return change


def renamed(component: str, file: str) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / component / file)
        save_file({f"zzz.{name}": weight for name, weight in weights.items()}, folder / component / file)

    return change


def pipe(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return change


def without(component: str, file: str) -> Change:
    """Take the first matrix out of a network's weights."""

    def change(folder: Path) -> None:
        weights = load_file(folder / component / file)
        del weights[next(name for name in weights if weights[name].ndim == 2)]
        save_file(weights, folder / component / file)

    return change


def quantized(method: str) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, "load_in_4bit": True}}


DEEP = '{"a":' * 60_000 + "1" + "}" * 60_000
HARMFUL: dict[str, tuple[Change, str]] = {
    # the pipeline's class
    "a module of diffusers": (index(_class_name="logging"), "has no pipeline 'logging'"),
    "a function of diffusers": (index(_class_name="is_torch_available"), "has no pipeline"),
    "a network as pipeline": (index(_class_name="AutoencoderKL"), "has no pipeline"),
    "no pipeline in particular": (index(_class_name="DiffusionPipeline"), "has no call of its own"),
    "a class that asks others": (index(_class_name="AutoPipelineForText2Image"), "has no pipeline"),
    "a pipeline of blocks": (index(_class_name="ModularPipeline"), "has no pipeline"),
    "a list": (index(_class_name=["pipeline", "Mine"]), "names a custom pipeline"),
    "a number": (index(_class_name=7), "names no pipeline class"),
    "nothing": (index(_class_name=None), "names no pipeline class"),
    "a custom pipeline": (index(custom_pipeline="lpw"), "names a custom pipeline"),
    # components
    "a module": (index(vae=["os", "system"]), "not installed here"),
    "a module of ours": (index(vae=["framefleet.jobs.cli", "main"]), "not installed here"),
    "a function": (index(vae=["diffusers", "is_torch_available"]), "not what pipelines are made of"),
    "a library within": (index(vae=["pipeline_utils", "importlib"]), "not installed here|not what pipelines"),
    "a pipeline in a pipeline": (index(vae=["diffusers", "WanPipeline"]), "not what pipelines are made of"),
    "a class that asks the config": (index(vae=["diffusers", "AutoModel"]), "not what pipelines are made of"),
    "and one of transformers": (index(tokenizer=["transformers", "AutoTokenizer"]), "not what pipelines"),
    "networks in other folders": (index(vae=["diffusers", "MultiControlNetModel"]), "not what pipelines"),
    "weights by its own code": (index(text_encoder=["transformers", "TimmBackbone"]), "pipelines|packages"),
    "a retriever": (index(tokenizer=["transformers", "RagRetriever"]), "not what pipelines are made of"),
    "a trainer": (index(tokenizer=["transformers", "Trainer"]), "not what pipelines are made of"),
    "ONNX": (index(vae=["diffusers", "OnnxRuntimeModel"]), "not what pipelines|needs the Python packages"),
    "a network as scheduler": (index(scheduler=["diffusers", "AutoencoderKL"]), "needs weights|no noise"),
    "a mixin as scheduler": (index(scheduler=["diffusers", "SchedulerMixin"]), "not a noise scheduler"),
    "a path as name": (index(**{"../vae": ["diffusers", "AutoencoderKLWan"]}), "a component's name"),
    "a word as class": (index(vae="x"), "cannot be loaded|no such component|not a noise scheduler"),
    "no scheduler": (index(scheduler=[None, None]), "has no noise scheduler"),
    # what leads to code, to the network, or to other files
    "kernels of the hub": (config(ENCODER, _attn_implementation="org/name"), "not torch's own"),
    "and by the other name": (config(ENCODER, attn_implementation="org/name:f"), "not torch's own"),
    "in a part of a config": (config(ENCODER, part={"attn_implementation": "org/name"}), "not torch's own"),
    "kernels of a package": (config(ENCODER, _attn_implementation="flash_attention_2"), "not torch's own"),
    "packed weights": (
        config("transformer/config.json", **quantized("bitsandbytes")),
        "needs the Python package",
    ),
    "and by transformers": (config(ENCODER, **quantized("awq")), "diffusers does not read"),
    "packed by nobody": (config("vae/config.json", quantization_config=3), "diffusers does not read"),
    "weights elsewhere": (config(ENCODER, transformers_weights="/etc/passwd"), "not the component's own"),
    "trust": (config("tokenizer/tokenizer_config.json", trust_remote_code=True), "asks to run code"),
    "a key for a terminal": (
        config("tokenizer/tokenizer_config.json", added_tokens_decoder={"9": {"\x1b[2J": 1}}),
        r"the key 'added_tokens_decoder\.9\.\\x1b\[2J' holds control characters",
    ),
    "a network within": (
        text("tokenizer/processor_config.json", '{"audio_tokenizer_name_or_path": "org/name"}'),
        "not the component's own",
    ),
    # files
    "an adapter": (text("text_encoder/adapter_config.json", "{}"), "lies next to the weights"),
    "its weights": (text("text_encoder/adapter_model.safetensors", ""), "lies next to the weights"),
    "weights by the other name": (text(f"text_encoder/{DIFFUSERS}", ""), "lies next to the weights"),
    "a key": (link("tokenizer/tokenizer_config.json", "/etc/passwd"), "which is not in the model's folder"),
    "a key as weights": (link(f"vae/{DIFFUSERS}", "/etc/passwd"), "which is not in the model's folder"),
    "no end": (link("vae/config.json", "/dev/zero"), "does not exist|not in the model's folder"),
    "itself": (link("vae/config.json", "config.json"), "does not exist"),
    "a pipe": (pipe("vae/config.json"), "does not exist"),
    "a pipe as index": (pipe("model_index.json"), "does not exist"),
    # JSON
    "an index that nests": (text("model_index.json", DEEP), "nests more than"),
    "a config that nests": (text("vae/config.json", DEEP), "nests more than"),
    "a config of a tokenizer": (text("tokenizer/tokenizer_config.json", DEEP), "nests more than"),
    "an index of Latin-1": (text("model_index.json", b'{"_class_name": "caf\xe9"}'), "cannot be read"),
    "an index that is a list": (text("model_index.json", "[]"), "not a JSON object"),
    "an index without end": (text("model_index.json", b" " * (17 * 2**20)), "has more than"),
    "a config that is a number": (text("transformer/config.json", "3"), "not a JSON object"),
    "a digit too many": (text("vae/config.json", '{"dim_mult": ' + "9" * 5000 + "}"), "cannot be read"),
    # values
    "levels without end": (config("vae/config.json", dim_mult=[1] * 10_000), "and not a list"),
    "levels of nothing": (config("vae/config.json", dim_mult=3), "and not a list"),
    "a patch of text": (config("transformer/config.json", patch_size="x"), "and not a whole number"),
    "a negative patch": (config("transformer/config.json", patch_size=[1, -2, 2]), "and not a whole number"),
    "no step at all": (config("vae/config.json", scale_factor_temporal=0), "and not a whole number"),
    "not a number": (config("vae/config.json", scale_factor_spatial=float("nan")), "and not a whole number"),
    "tables without end": (
        config("scheduler/scheduler_config.json", num_train_timesteps=2**62),
        "and not a whole number from 1",
    ),
    "a schedule without end": (
        config("scheduler/scheduler_config.json", trained_betas=[0.1] * 3_000_000),
        "lists more than 10,000 values",
    ),
    "a schedule of lists": (config("scheduler/scheduler_config.json", flow_shift=[3]), "and not a number"),
    ENDLESS: (config("transformer/config.json", num_layers=10**12), "modules"),
    "thousands of layers": (config("transformer/config.json", num_layers=4_000), "modules"),
    "no layers": (config("transformer/config.json", num_layers="two"), "cannot be loaded"),
    "heads of nothing": (config(ENCODER, num_heads=0), "cannot be loaded|has no weight"),
    "widths of nobody": (config(ENCODER, d_model=2**40), "takes at least .* bytes"),
    "a tokenizer of numbers": (config("tokenizer/tokenizer_config.json", extra_ids=[3]), "cannot be loaded"),
    "a boundary of text": (index(boundary_ratio="half"), "and not a number"),
    # weights
    "weights of another": (text(f"vae/{DIFFUSERS}", b"<html>"), "not a safetensors file"),
    "a weight that is missing": (without("transformer", DIFFUSERS), "has no weight"),
    "and that would be made up": (without("text_encoder", TRANSFORMERS), "has no weight"),
    "none of the weights": (renamed("text_encoder", TRANSFORMERS), "has no weight"),
}
HARMLESS: dict[str, Change] = {
    "code beside": text("pipeline.py", "raise SystemExit"),
    "code in a component": text("transformer/diffusers.py", "raise SystemExit"),
    "code that a config names": config(ENCODER, auto_map={"AutoModel": "org/name--evil.Model"}),
    "a tokenizer's code": config(
        "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["e.T", None]}
    ),
    "another model's card": text("README.md", "---\nbase_model: org/name\n---"),
    "a model that it was": config(ENCODER, _name_or_path="org/name"),
    "kernels that torch has": config(ENCODER, _attn_implementation="eager"),
    "weights unpacked": config("transformer/config.json", quantization_config=None),
    "a variant": text("vae/diffusion_pytorch_model.fp16.safetensors", "not even one"),
    "a pickle beside": text("text_encoder/pytorch_model.bin", "not even one"),
    "a vocabulary elsewhere": config("tokenizer/tokenizer_config.json", vocab_file="/etc/passwd"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.ci) if name == ENDLESS else name for name in HARMFUL]
)
def test_harm_is_refused_with_a_fix(name: str, folder: Path) -> None:
    change, problem = HARMFUL[name]
    change(folder)
    with pytest.raises(ModelError, match=problem) as caught:
        framefleet.load_model(folder)
    assert caught.value.fix
    assert "framefleet-model-" not in str(caught.value)  # the place is the user's


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_let_through(name: str, folder: Path) -> None:
    HARMLESS[name](folder)
    framefleet.load_model(folder)


@pytest.mark.parametrize("kind", ["beside shards", "another name", "an adapter", "a template", "a shard"])
def test_a_file_that_a_library_would_load_breaks_the_lock(kind: str, folder: Path) -> None:
    encoder = folder / "text_encoder"
    weights = load_file(encoder / TRANSFORMERS)
    if kind in ("beside shards", "a shard"):
        (encoder / TRANSFORMERS).unlink()
        save_file(weights, encoder / "model-00001-of-00001.safetensors")
        shards = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
        (encoder / f"{TRANSFORMERS}.index.json").write_text(json.dumps(shards))
    assert command("model", "lock", folder).exit_code == 0
    assert command("model", "verify", folder).exit_code == 0
    framefleet.load_model(folder)
    other = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    added = {
        "beside shards": TRANSFORMERS,
        "another name": DIFFUSERS,
        "an adapter": "adapter_model.safetensors",
        "a template": "chat_template.jinja",
        "a shard": "shard-00001-model-00001-of-00001.safetensors",
    }[kind]
    save_file(other, encoder / added)
    for call in (lambda: framefleet.load_model(folder), lambda: model_files(folder)):
        with pytest.raises(ModelError, match=added):
            call()
    ended = command("model", "verify", folder)
    assert ended.exit_code == 2 and added in ended.stderr and "hint:" in ended.stderr


def test_a_library_finds_the_hashed_files_and_no_others(folder: Path) -> None:
    (folder / "vae" / "more.json").write_text("{}")
    with sealed(folder, ["model_index.json", f"vae/{DIFFUSERS}"]) as place:
        found = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        assert found == ["model_index.json", f"vae/{DIFFUSERS}"]
        assert (place / found[1]).read_bytes() == (folder / found[1]).read_bytes()
    assert not place.exists()


def test_files_linked_within_the_folder_or_from_a_cache_are_taken(folder: Path, tmp_path: Path) -> None:
    digest = model_files(folder)[f"vae/{DIFFUSERS}"]
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    (folder / "vae" / DIFFUSERS).rename(blob)
    (folder / "vae" / DIFFUSERS).symlink_to(blob)
    (folder / "text_encoder").rename(folder / "encoder")
    (folder / "text_encoder").symlink_to("encoder")
    (tmp_path / "linked").symlink_to(folder)
    framefleet.load_model(tmp_path / "linked")


def test_a_component_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer").rename(tmp_path / "elsewhere")
    (folder / "tokenizer").symlink_to(tmp_path / "elsewhere")
    for action in ("lock", "info"):
        ended = command("model", action, folder)
        assert ended.exit_code == 2
        assert "not in the model's folder" in ended.stderr and "cp -rL" in ended.stderr


@pytest.mark.parametrize("what", ["https://example.org", "a question"])
def test_whatever_a_library_asks_for_while_it_loads_is_refused(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real functions: it is Python that tells of them
    with (
        pytest.raises(ModelError, match=r"asks for (a connection to example|leave to run code)"),
        alone(),
    ):
        input("?") if what == "a question" else socket.getaddrinfo("example.org", 443)


def test_a_connection_by_number_is_refused_in_this_thread_and_while_it_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with alone(), pytest.raises(ModelError, match=r"a connection to 127\.0\.0\.1"):
            socket.create_connection(server.getsockname())
        socket.create_connection(server.getsockname()).close()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (RuntimeError("in {place}"), "in {folder}"),
        (RecursionError(), "RecursionError"),
        (KeyError("x"), "x"),
    ],
)
def test_what_libraries_raise_names_the_users_folder(error: Exception, problem: str, folder: Path) -> None:
    with pytest.raises(ModelError) as caught, sealed(folder, []) as place:
        raise type(error)(*(str(part).format(place=place) for part in error.args))
    assert problem.format(folder=folder) in caught.value.problem
    assert caught.value.fix == "fetch the model again"


def test_memory_that_is_not_there_is_said_to_be_so(folder: Path) -> None:
    with pytest.raises(ModelError) as caught, sealed(folder, []):
        torch.empty(2**60)
    assert "more memory than there is" in caught.value.fix


def test_a_network_without_end_is_not_built(folder: Path) -> None:
    with pytest.raises(ModelError, match="modules"), sealed(folder, []):
        nn.ModuleList(nn.Identity() for _ in range(10**9))
    nn.ModuleList(nn.Identity() for _ in range(3000))  # of a user's own


def test_the_options_of_a_job_are_checked_on_a_hostile_config_too(folder: Path) -> None:
    config("vae/config.json", base_dim="wide")(folder)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        framefleet.load_model(folder, vae_tiling=True)
    assert str(folder) in caught.value.problem


def test_a_lock_takes_the_place_of_a_link_and_does_not_follow_it(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock = folder / "model.lock.json"
    lock.symlink_to(victim)
    assert command("model", "lock", folder).exit_code == 0
    assert victim.read_text() == "mine"
    assert lock.is_file() and not lock.is_symlink()


@pytest.mark.parametrize("place", ["of the model", "given"])
def test_a_lock_without_end_is_not_read(place: str, folder: Path, tmp_path: Path) -> None:
    lock = folder / "model.lock.json" if place == "of the model" else tmp_path / "lock.json"
    with lock.open("wb") as file:
        file.truncate(20 << 30)  # of which the disk holds nothing
    options = [] if place == "of the model" else ["--lock", lock]
    ended = command("model", "verify", folder, *options)
    assert ended.exit_code == 2 and "has more than" in ended.stderr


def test_a_lock_that_is_a_pipe_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock.json")
    ended = command("model", "verify", folder, "--lock", tmp_path / "lock.json")
    assert ended.exit_code == 2 and "is not a file" in ended.stderr
