"""Modular indexes packed to do harm: nothing that they name is imported, fetched or opened."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.errors import ModelError
from tests.commands import command
from tests.no_network import refuse_network
from tests.tiny import tiny

INDEX = "modular_model_index.json"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
VAE = ["diffusers", "AutoencoderKLWan"]
ORG = {"pretrained_model_name_or_path": "org/name"}
Change = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Wan with code beside it, which says so when it is imported."""
    copied = Path(shutil.copytree(tiny("wan_modular"), tmp_path / "wan"))
    for name in ("evil", "block", "pipeline"):
        (copied / f"{name}.py").write_text("raise SystemExit('the code of a model ran')")
    monkeypatch.syspath_prepend(str(copied))
    return copied


def index(**entries: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / INDEX).write_text(json.dumps(json.loads((folder / INDEX).read_text()) | entries))

    return change


def vae(*, loaded: Any = VAE, **said: Any) -> Change:
    """Change what the index says about the autoencoder."""
    entry = ORG | {"subfolder": "vae", "type_hint": VAE, "revision": None, "variant": None}
    return index(vae=[*loaded, entry | said])


def renamed(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def text(file: str, content: str) -> Change:
    return lambda folder: (folder / file).write_text(content)


REMOTE = '{"auto_map": {"ModularPipelineBlocks": "org/x--block.Evil"}}'
HARMFUL: dict[str, tuple[Change, str]] = {
    "remote blocks": (text("modular_config.json", REMOTE), "has its own blocks"),
    "no class in particular": (index(_class_name="ModularPipeline"), "has no pipeline"),
    "a pipeline of the other kind": (index(_class_name="WanPipeline"), "belongs in a model_index.json"),
    "an index of the other kind": (
        renamed(INDEX, "model_index.json"),
        "belongs in a modular",
    ),
    "other blocks": (index(_blocks_class_name="FluxAutoBlocks"), "is for the blocks 'FluxAutoBlocks'"),
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
    "a component that blocks lack": (index(evil=[*VAE, ORG]), "evil"),
    "a network as scheduler": (
        index(scheduler=[*VAE, ORG | {"subfolder": "scheduler"}]),
        "needs weights|not a noise scheduler",
    ),
    "a pickle": (renamed(WEIGHTS, "vae/diffusion_pytorch_model.bin"), "is a pickle, which can run code"),
    "code in a config": (text("transformer/config.json", '{"trust_remote_code": true}'), "asks to run code"),
    "an index that nests": (text(INDEX, '{"a":' * 200 + "1" + "}" * 200), "nests more than"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harm_is_refused_with_a_fix(name: str, folder: Path) -> None:
    change, problem = HARMFUL[name]
    change(folder)
    with pytest.raises(ModelError, match=problem) as caught:
        framefleet.load_model(folder)
    assert caught.value.fix
    assert not {"evil", "block", "pipeline"} & set(sys.modules)
    ended = command("model", "info", folder)
    assert ended.exit_code == 2 and "hint:" in ended.stderr


HARMLESS: dict[str, Change] = {
    "an index of the hub": vae(pretrained_model_name_or_path="somebody/else", revision="main"),
    "the older word for it": index(vae=[*VAE, {"repo": "org/name", "subfolder": "vae", "type_hint": VAE}]),
    "nothing loaded when it was saved": vae(loaded=(None, None)),
    "a hint of what a pipeline of diffusers holds": vae(type_hint=["ltx2", "LTX2Vocoder"]),
    "a hint that is wider": vae(type_hint=["diffusers", "AutoModel"]),
    "a list of numbers": index(sample_sigmas=[1.0, 0.5, 0.25]),
    "blocks cut to a workflow": index(_blocks_class_name="SequentialPipelineBlocks"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_let_through(name: str, folder: Path) -> None:
    HARMLESS[name](folder)
    framefleet.load_model(folder)


@pytest.mark.parametrize(
    "config", ['{"guidance_scale": "x"}', '{"guidance_scale": 1' + "0" * 400 + "}", "[]", '{"stop": 7}']
)
def test_a_guiders_config_that_no_guider_can_have_is_refused(config: str, folder: Path) -> None:
    index(guider=["diffusers", "ClassifierFreeGuidance", ORG | {"subfolder": "guider"}])(folder)
    (folder / "guider").mkdir()
    (folder / "guider" / "guider_config.json").write_text(config)
    with pytest.raises(ModelError):
        framefleet.load_model(folder)
