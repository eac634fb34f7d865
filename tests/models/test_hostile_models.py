"""Model folders packed to do harm, or damaged in odd ways: loaded, or refused with a fix.

What is loaded here may not connect to anything, whatever its configs name: no test sets HF_HUB_OFFLINE.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from functools import partial
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
from tests.tiny import tiny

ENCODER, SCHEDULER = "text_encoder/config.json", "scheduler/scheduler_config.json"
TOKENIZER, INDEX = "tokenizer/tokenizer_config.json", "modular_model_index.json"
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
Change = Callable[[Path], Any]
ENDLESS = "layers without end"  # takes ten seconds: its process goes to the limit of a large model


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail at whatever connects, or asks at the terminal."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody connects, or asks at the terminal")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "input", refuse)
    monkeypatch.setattr("framefleet.pipeline.model.sources.verified_folder.MAX_MODULES", 2000)  # soon reached


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(tiny("wan"), tmp_path / "wan")


def config(file: str, **entries: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | entries))

    return change


index = partial(config, "model_index.json")
modular_index = partial(config, INDEX)


def text(file: str, content: str | bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def link(file: str, place: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(place)

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
    "no pipeline in particular": (index(_class_name="DiffusionPipeline"), "has no `__call__`"),
    "a class that asks others": (index(_class_name="AutoPipelineForText2Image"), "has no pipeline"),
    "a list": (index(_class_name=["pipeline", "Mine"]), "names a custom pipeline"),
    "a number": (index(_class_name=7), "names no pipeline class"),
    "a custom pipeline": (index(custom_pipeline="lpw"), "names a custom pipeline"),
    # components
    "a module": (
        index(vae=["os", "system"]),
        r"not installed here(.|\n)*pipelines with their own code are not loaded",
    ),
    "a class that diffusers lacks": (index(transformer=["diffusers", "Mine"]), "with their own code are not"),
    "a module of framefleet": (index(vae=["framefleet.pipeline.errors", "ModelError"]), "not installed here"),
    "a function": (index(vae=["diffusers", "is_torch_available"]), "not a component of pipelines"),
    "a library within": (index(vae=["pipeline_utils", "importlib"]), "not installed here|not a component of"),
    "a class that asks the config": (index(vae=["diffusers", "AutoModel"]), "not a component of pipelines"),
    "weights by its own code": (index(text_encoder=["transformers", "TimmBackbone"]), "pipelines|packages"),
    "a retriever": (index(tokenizer=["transformers", "RagRetriever"]), "not a component of pipelines"),
    "ONNX": (index(vae=["diffusers", "OnnxRuntimeModel"]), "not a component of|needs the Python pack"),
    "a network as scheduler": (index(scheduler=["diffusers", "AutoencoderKL"]), "needs weights|no noise"),
    "a path as name": (index(**{"../vae": ["diffusers", "AutoencoderKLWan"]}), "a component's name"),
    "no scheduler": (index(scheduler=[None, None]), "has no noise scheduler"),
    # what leads to code, to the network, or to other files
    "kernels of the hub": (config(ENCODER, _attn_implementation="org/name"), "not torch's own"),
    "and by the other name": (config(ENCODER, attn_implementation="org/name:f"), "not torch's own"),
    "packed weights": (config("vae/config.json", **quantized("bitsandbytes")), "needs the Python package"),
    "and by transformers": (config(ENCODER, **quantized("awq")), "diffusers does not read"),
    "weights elsewhere": (config(ENCODER, transformers_weights="/etc/passwd"), "not the component's own"),
    "trust": (config(TOKENIZER, trust_remote_code=True), "asks to run code"),
    "a key for a terminal": (
        config(TOKENIZER, added_tokens_decoder={"9": {"\x1b[2J": 1}}),
        r"the key 'added_tokens_decoder\.9\.\\x1b\[2J' contains control characters",
    ),
    "a network within": (
        text("tokenizer/processor_config.json", '{"audio_tokenizer_name_or_path": "org/name"}'),
        "not the component's own",
    ),
    "a config in place of this": (
        config(ENCODER, configuration_files=["config.1.0.0.json"]),
        "not the component's own",
    ),
    "a vocabulary elsewhere": (config(TOKENIZER, vocab_file="/etc/passwd"), "not the component's own"),
    "one of any key": (config(TOKENIZER, more={"merges": "/etc/passwd"}), "not the component's own"),
    "a tokenizer elsewhere": (
        config(TOKENIZER, fast_tokenizer_files=["../../tokenizer.9.0.json"]),
        "not a name of this kind",
    ),
    "a model of sentencepiece": (config(TOKENIZER, sp_model_kwargs={"model_file": "x"}), "not the component"),
    "a dictionary": (
        config(TOKENIZER, mecab_kwargs={"mecab_option": "-r /etc/x"}),
        "not the component's own",
    ),
    "arguments": (config(TOKENIZER, init_inputs=["/etc/passwd"]), "not the component's own"),
    "a token that is a file": (
        text("tokenizer/special_tokens_map.json", '{"vocab_file": "/etc/passwd"}'),
        "'vocab_file' is not a token",
    ),
    "a function as tokenizer": (config(TOKENIZER, tokenizer_class="pipeline"), "not a name of this kind"),
    "a function as processor": (
        text(
            "tokenizer/processor_config.json", '{"a": {"image_processor_type": "pipeline", "model": "org/x"}}'
        ),
        "not a name of this kind",
    ),
    # files
    "an adapter": (text("text_encoder/adapter_config.json", "{}"), "is next to the weights"),
    "a key": (link(TOKENIZER, "/etc/passwd"), "which is not in the model's folder"),
    "no end": (link("vae/config.json", "/dev/zero"), "does not exist|not in the model's folder"),
    "a pipe": (pipe("vae/config.json"), "does not exist"),
    # JSON
    "an index that nests": (text("model_index.json", DEEP), "nests more than"),
    "a config of a tokenizer": (text(TOKENIZER, DEEP), "nests more than"),
    "an index of Latin-1": (text("model_index.json", b'{"_class_name": "caf\xe9"}'), "cannot be read"),
    "an index without end": (text("model_index.json", b" " * (17 * 2**20)), "has more than"),
    "a config that is a number": (text("transformer/config.json", "3"), "not a JSON object"),
    "a digit too many": (text("vae/config.json", '{"dim_mult": ' + "9" * 5000 + "}"), "cannot be read"),
    # values
    "levels without end": (config("vae/config.json", dim_mult=[1] * 10_000), "but must be a list"),
    "not a number": (
        config("vae/config.json", scale_factor_spatial=float("nan")),
        "but must be a whole number",
    ),
    "tables without end": (config(SCHEDULER, num_train_timesteps=2**62), "but must be a whole number from 1"),
    "orders without end": (config(SCHEDULER, solver_order=10**9), "solver_order of scheduler is 1000000000"),
    "a number as a switch": (config(SCHEDULER, lower_order_final=10**9), "lower_order_final of scheduler is"),
    "a schedule without end": (config(SCHEDULER, trained_betas=[0.1] * 3_000_000), "lists more than 10,000"),
    ENDLESS: (config("transformer/config.json", num_layers=10**12), "modules"),
    "thousands of layers": (config("transformer/config.json", num_layers=4_000), "modules"),
    "widths of nobody": (config(ENCODER, d_model=2**40), "takes at least .* bytes"),
    "a tokenizer of numbers": (config(TOKENIZER, extra_ids=[3]), "cannot be loaded"),
    "a boundary of text": (index(boundary_ratio="half"), "but must be a number"),
    # weights
    "weights of another": (text(f"vae/{DIFFUSERS}", b"<html>"), "not a safetensors file"),
    "a weight that is missing": (without("transformer", DIFFUSERS), "has no weight"),
    "and that would be made up": (without("text_encoder", TRANSFORMERS), "has no weight"),
}
HARMLESS: dict[str, Change] = {
    "code beside": text("pipeline.py", "raise SystemExit"),
    "code in a component": text("transformer/diffusers.py", "raise SystemExit"),
    "code that a config names": config(ENCODER, auto_map={"AutoModel": "org/name--evil.Model"}),
    "a tokenizer's code": config(TOKENIZER, auto_map={"AutoTokenizer": ["e.T", None]}),
    "a model that it was": config(ENCODER, _name_or_path="org/name"),
    "kernels that torch has": config(ENCODER, _attn_implementation="eager"),
    "a variant": text("vae/diffusion_pytorch_model.fp16.safetensors", "not even one"),
    "a pickle beside": text("text_encoder/pytorch_model.bin", "not even one"),
    "a place that it was": config(TOKENIZER, name_or_path="/etc/passwd", tokenizer_file="/not/there.json"),
}


@pytest.mark.parametrize("name", HARMFUL)
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


ADDED = {
    "beside shards": TRANSFORMERS,
    "another name": DIFFUSERS,
    "an adapter": "adapter_model.safetensors",
    "a template": "chat_template.jinja",
    "a shard": "shard-00001-model-00001-of-00001.safetensors",
}


@pytest.mark.parametrize("kind", ADDED)
def test_a_file_that_a_library_would_load_breaks_the_lock(kind: str, folder: Path) -> None:
    encoder = folder / "text_encoder"
    weights = load_file(encoder / TRANSFORMERS)
    if "shard" in kind:
        (encoder / TRANSFORMERS).rename(encoder / "model-00001-of-00001.safetensors")
        shards = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
        (encoder / f"{TRANSFORMERS}.index.json").write_text(json.dumps(shards))
    assert command("model", "lock", folder).exit_code == 0
    assert command("model", "verify", folder).exit_code == 0
    save_file({name: torch.zeros_like(weight) for name, weight in weights.items()}, encoder / ADDED[kind])
    with pytest.raises(ModelError, match=ADDED[kind]):
        framefleet.load_model(folder)
    ended = command("model", "verify", folder)
    assert ended.exit_code == 2 and ADDED[kind] in ended.stderr and "hint:" in ended.stderr


def test_each_scheduler_of_a_model_is_bounded(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("if_sr"), tmp_path / "model")
    config("image_noising_scheduler/scheduler_config.json", num_train_timesteps=10**10)(folder)
    with pytest.raises(ModelError, match="image_noising_scheduler: num_train_timesteps of scheduler is 1000"):
        framefleet.load_model(folder)


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
        ended = command("model", action, folder, exits=2)
        assert "not in the model's folder" in ended.stderr and "cp -rL" in ended.stderr


def test_whatever_a_library_asks_for_while_it_loads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real functions: it is Python that tells of them
    with pytest.raises(ModelError, match="asks for a connection to example"), alone():
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(ModelError, match="asks for permission to run its own code"), alone():
        input("?")
    with socket.create_server(("127.0.0.1", 0)) as server:
        with alone(), pytest.raises(ModelError, match=r"a connection to 127\.0\.0\.1"):
            socket.create_connection(server.getsockname())
        socket.create_connection(server.getsockname()).close()


def test_what_libraries_raise_names_the_users_folder(folder: Path) -> None:
    for error, problem in ((RuntimeError, f"in {folder}"), (RecursionError, "RecursionError")):
        with pytest.raises(ModelError) as caught, sealed(folder, []) as place:
            raise error(*[f"in {place}"] * (error is RuntimeError))
        assert problem in caught.value.problem and caught.value.fix == "fetch the model again"


def test_what_a_library_says_of_any_error_comes_with_that_error(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"unable to load \(ValueError: of this\)"), sealed(folder, []):
        try:
            raise ValueError("of this")
        except ValueError:
            raise OSError("unable to load")  # noqa: B904


def test_memory_that_is_not_there_is_said_to_be_so(folder: Path) -> None:
    with pytest.raises(ModelError) as caught, sealed(folder, []):
        torch.empty(2**60)
    assert "more memory than there is" in caught.value.fix


def test_a_network_without_end_is_not_built(folder: Path) -> None:
    with pytest.raises(ModelError, match="modules"), sealed(folder, []):
        nn.ModuleList(nn.Identity() for _ in range(10**9))
    nn.ModuleList(nn.Identity() for _ in range(3000))  # of a user's own


def test_a_lock_takes_the_place_of_a_link_and_does_not_follow_it(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock = folder / "model.lock.json"
    lock.symlink_to(victim)
    assert command("model", "lock", folder).exit_code == 0
    assert victim.read_text() == "mine"
    assert lock.is_file() and not lock.is_symlink()


def test_a_lock_without_end_or_that_is_a_pipe_is_not_read(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for lock in (folder / "model.lock.json", tmp_path / "lock.json"):
        with lock.open("wb") as file:
            file.truncate(20 << 30)  # of which the disk holds nothing
    for options, problem in (
        ([], "has more than"),
        (["--lock", tmp_path / "lock.json"], "has more than"),
        (["--lock", tmp_path / "pipe.json"], "is not a file"),
    ):
        ended = command("model", "verify", folder, *options)
        assert ended.exit_code == 2 and problem in ended.stderr


WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
VAE = ["diffusers", "AutoencoderKLWan"]
ORG = {"pretrained_model_name_or_path": "org/name"}


@pytest.fixture
def modular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Wan with code beside it, which says so when it is imported."""
    copied = Path(shutil.copytree(tiny("wan_modular"), tmp_path / "wan"))
    for name in ("evil", "block", "pipeline"):
        (copied / f"{name}.py").write_text("raise SystemExit('the code of a model ran')")
    monkeypatch.syspath_prepend(str(copied))
    return copied


def vae(*, loaded: Any = VAE, **said: Any) -> Change:
    """Change what the index says about the autoencoder."""
    entry = ORG | {"subfolder": "vae", "type_hint": VAE, "revision": None, "variant": None}
    return modular_index(vae=[*loaded, entry | said])


def renamed(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


REMOTE = '{"auto_map": {"ModularPipelineBlocks": "org/x--block.Evil"}}'
HARM_OF_MODULAR: dict[str, tuple[Change, str]] = {
    "remote blocks": (text("modular_config.json", REMOTE), "has its own blocks"),
    "no class in particular": (modular_index(_class_name="ModularPipeline"), "has no pipeline"),
    "a pipeline of the other kind": (
        modular_index(_class_name="WanPipeline"),
        "belongs in a model_index.json",
    ),
    "an index of the other kind": (
        renamed(INDEX, "model_index.json"),
        "belongs in a modular",
    ),
    "other blocks": (
        modular_index(_blocks_class_name="FluxAutoBlocks"),
        "is for the blocks 'FluxAutoBlocks'",
    ),
    "a module as hint": (vae(type_hint=["evil", "Vae"]), "'evil' is neither diffusers"),
    "a module as class": (vae(loaded=("evil", "Vae")), "'evil' is neither diffusers"),
    "a hint of two letters": (vae(type_hint="ab"), "names no class"),
    "a module of Python": (vae(type_hint=["os", "system"]), "'os' is neither diffusers"),
    "a module by place": (vae(type_hint=["../models", "Vae"]), "is neither diffusers"),
    "a function": (vae(loaded=("diffusers", "is_torch_available")), "not a component of pipelines"),
    "a class that asks the config": (vae(loaded=("diffusers", "AutoModel")), "not a component of pipelines"),
    "no class at all": (vae(loaded=(None, None), type_hint=[None, None]), "does not name the class"),
    "another repository": (
        lambda folder: shutil.rmtree(folder / "vae"),
        "in another place, which may not be downloaded",
    ),
    "a path": (vae(subfolder="../../elsewhere"), "is in '../../elsewhere'"),
    "another folder": (vae(subfolder="transformer"), "and not in a folder with its name"),
    "a variant": (vae(variant="fp16"), "variant 'fp16'"),
    "a config of it": (vae(config={"base_dim": 1}), "unknown key 'config'"),
    "a component that blocks lack": (modular_index(evil=[*VAE, ORG]), "evil"),
    "a network as scheduler": (
        modular_index(scheduler=[*VAE, ORG | {"subfolder": "scheduler"}]),
        "needs weights|not a noise scheduler",
    ),
    "a pickle": (renamed(WEIGHTS, "vae/diffusion_pytorch_model.bin"), "is a pickle, which can run code"),
    "code in a config": (text("transformer/config.json", '{"trust_remote_code": true}'), "asks to run code"),
    "an index that nests": (text(INDEX, '{"a":' * 200 + "1" + "}" * 200), "nests more than"),
}


@pytest.mark.parametrize("name", HARM_OF_MODULAR)
def test_harm_in_a_modular_index_is_refused_with_a_fix(name: str, modular: Path) -> None:
    change, problem = HARM_OF_MODULAR[name]
    change(modular)
    with pytest.raises(ModelError, match=problem) as caught:
        framefleet.load_model(modular)
    assert caught.value.fix
    assert not {"evil", "block", "pipeline"} & set(sys.modules)
    ended = command("model", "info", modular)
    assert ended.exit_code == 2 and "hint:" in ended.stderr


HARMLESS_TO_MODULAR: dict[str, Change] = {
    "an index of the hub": vae(pretrained_model_name_or_path="somebody/else", revision="main"),
    "the older word for it": modular_index(
        vae=[*VAE, {"repo": "org/name", "subfolder": "vae", "type_hint": VAE}]
    ),
    "nothing loaded when it was saved": vae(loaded=(None, None)),
    "a hint of what a pipeline of diffusers holds": vae(type_hint=["ltx2", "LTX2Vocoder"]),
    "a hint that is wider": vae(type_hint=["diffusers", "AutoModel"]),
    "a list of numbers": modular_index(sample_sigmas=[1.0, 0.5, 0.25]),
    "blocks cut to a workflow": modular_index(_blocks_class_name="SequentialPipelineBlocks"),
}


@pytest.mark.parametrize("name", HARMLESS_TO_MODULAR)
def test_what_changes_nothing_in_a_modular_index_is_let_through(name: str, modular: Path) -> None:
    HARMLESS_TO_MODULAR[name](modular)
    framefleet.load_model(modular)


@pytest.mark.parametrize(
    "config", ['{"guidance_scale": "x"}', '{"guidance_scale": 1' + "0" * 400 + "}", "[]", '{"stop": 7}']
)
def test_a_guiders_config_that_no_guider_can_have_is_refused(config: str, modular: Path) -> None:
    modular_index(guider=["diffusers", "ClassifierFreeGuidance", ORG | {"subfolder": "guider"}])(modular)
    (modular / "guider").mkdir()
    (modular / "guider" / "guider_config.json").write_text(config)
    with pytest.raises(ModelError):
        framefleet.load_model(modular)
