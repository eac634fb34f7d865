"""Model folders whose configs, weights or files are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save

from tests.jobs import job_values, prompt_rows, write_table
from tests.tiny import SMALLEST
from tools.fuzz import hostile
from tools.fuzz.case import Case, command, reported
from tools.fuzz.kinds.safetensor import mutated_safetensors
from tools.fuzz.material import Material

NAMES = ("wan", "sd", "wan_moe", "flux", "wan_modular")
CODE = "open('was-run', 'w').close()\n"
EXTRA_FILES = (
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/adapter_model.safetensors",
    "text_encoder/adapter_config.json",
    "text_encoder/generation_config.json",
    "text_encoder/model.safetensors.index.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "transformer/diffusion_pytorch_model.bin",
    "tokenizer/tokenizer.json",
    "tokenizer/added_tokens.json",
    "tokenizer/chat_template.jinja",
    "tokenizer/tokenizer.py",
    "modeling.py",
    "pipeline.py",
    "model.lock.json",
    "vae/config.json",
    "scheduler/config.json",
    "guider/guider_config.json",
    "modular_config.json",
    "vae/._diffusion_pytorch_model.safetensors",
    "transformer/config.json~",
    "text_encoder/.ipynb_checkpoints/config-checkpoint.json",
    "modular_model_index.json",
)
CONFIG_KEYS = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "transformers_weights",
    "_class_name",
    "_name_or_path",
    "_use_default_values",
    "_library_name",
    "_diffusers_version",
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "tokenizer_class",
    "extra_special_tokens",
    "custom_pipeline",
    "trust_remote_code",
    "base_model_name_or_path",
    "use_safetensors",
    "variant",
    "subfolder",
    "tp_plan",
    "device_map",
)


def models(rng: Random, folder: Path, material: Material) -> Case:
    """A copy of an honest folder in which something is bad, and what people do with it."""
    name = rng.choice(NAMES)
    shutil.copytree(material.model(name), folder / "model")
    is_locked = rng.random() < 0.3
    if is_locked:
        shutil.copy(material.lock(name), folder / "model" / "model.lock.json")
    told = [rng.choice(CHANGES)(rng, folder / "model") for _ in range(rng.choice((1, 1, 1, 2)))]
    return Case(told=f"{name}: {'; '.join(told)}", run=_use(rng, folder, name))


def _use(rng: Random, folder: Path, name: str) -> Callable[[], None]:
    draw = rng.random()
    if draw < 0.3:
        return command("model", rng.choice(("info", "lock", "verify")), "model")
    if draw < 0.6:
        write_table(folder / "t.parquet", prompt_rows(2))
        values = job_values(folder / "t.parquet", folder / "out", model=name)
        values |= {"model": "model", "defaults": SMALLEST[name]}
        (folder / "job.yaml").write_text(yaml.safe_dump(values))
        return command("plan", "job.yaml")

    def load() -> None:
        from framefleet import load_model

        load_model("model", device="cpu")

    return reported(load)


def _files(folder: Path, ending: str = "") -> list[Path]:
    """Return the files that are still themselves: reading a link or a pipe could take for ever."""
    found = (path for path in folder.rglob(f"*{ending}") if path.is_file() and not path.is_symlink())
    return sorted(found)


def _config(rng: Random, folder: Path) -> str:
    path = rng.choice(_files(folder, ".json"))
    try:
        tree = json.loads(path.read_text())
    except ValueError:  # changed already
        tree = {}
    if rng.random() < 0.5 and isinstance(tree, dict):
        key = rng.choice(CONFIG_KEYS)
        tree[key] = hostile.value(rng)
        changed = f"{key} of "
    else:
        tree, changed = hostile.mutated_tree(rng, tree), ""
    path.write_text(json.dumps(tree))
    return f"{changed}{path.relative_to(folder)}"


def _bytes(rng: Random, folder: Path) -> str:
    path = rng.choice(_files(folder))
    path.write_bytes(hostile.mutated_bytes(rng, path.read_bytes()))
    return f"bytes of {path.relative_to(folder)}"


def _weights(rng: Random, folder: Path) -> str:
    path = rng.choice(_files(folder, ".safetensors"))
    path.write_bytes(mutated_safetensors(rng, path.read_bytes()))
    return f"header of {path.relative_to(folder)}"


def _gone(rng: Random, folder: Path) -> str:
    path = rng.choice(sorted(folder.rglob("*")))
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return f"no {path.relative_to(folder)}"


def _added(rng: Random, folder: Path) -> str:
    name = rng.choice(EXTRA_FILES)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    contents = (CODE.encode(), b"{}", b"", b"[" * 5000, json.dumps(hostile.value(rng)).encode())
    weights = _files(folder, ".safetensors")
    path.write_bytes(rng.choice((*contents, weights[0].read_bytes() if weights else b"")))
    return f"new {name}"


def _linked(rng: Random, folder: Path) -> str:
    path = rng.choice(_files(folder))
    path.unlink()
    target = rng.choice(("/etc/passwd", "/dev/zero", "/proc/self/environ", str(path), "../../../x", "/"))
    os.symlink(target, path)
    return f"{path.relative_to(folder)} -> {target}"


def _piped(rng: Random, folder: Path) -> str:
    path = rng.choice(_files(folder))
    path.unlink()
    os.mkfifo(path) if rng.random() < 0.5 else path.mkdir()
    return f"a pipe or a folder as {path.relative_to(folder)}"


def _leftover(rng: Random, folder: Path) -> str:
    """Weights too many, too few, or packed."""
    path = rng.choice(_files(folder, ".safetensors"))
    try:
        weights = load(path.read_bytes())
        name = rng.choice(sorted(weights))
    except (SafetensorError, IndexError):  # changed already
        return f"nothing of {path.relative_to(folder)}"
    kind = rng.choice(("more", "less", "packed", "twice"))
    if kind == "less":
        del weights[name]
    if kind == "packed":
        weights[name] = weights[name].to(torch.float8_e4m3fn)
    more = {"more": hostile.text(rng) or "x", "packed": f"{name}_scale", "twice": f"{name}.weight"}
    weights |= {more[kind]: torch.ones(1)} if kind in more else {}
    path.write_bytes(save(weights, metadata={"format": "pt"}))
    return f"{kind} weights in {path.relative_to(folder)}"


CHANGES = (
    *(_config, _config, _config, _bytes, _weights, _gone, _added, _added, _linked, _piped),
    *(_leftover, _leftover),
)
