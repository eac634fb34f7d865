"""Numbers that the original networks computed: where they lie, and their weights as converted checkpoints."""

from __future__ import annotations

import atexit
import functools
import gzip
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.commands import command
from tests.crafter_originals import weight
from tests.opensora import Size, transformer_shapes, weights_of, write_texts

ROOT = Path(os.environ.get("FRAMEFLEET_GOLDENS") or Path(__file__).parents[2] / "shared" / "goldens")
needed = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no golden files at {ROOT}; FRAMEFLEET_GOLDENS names their folder"
)


def config(name: str) -> Any:
    return json.loads((ROOT / name / "config.json").read_text())


def io(name: str) -> dict[str, Tensor]:
    """Return what went into the original and what came out."""
    return load_file(ROOT / name / "io.safetensors")


def tensors(name: str) -> dict[str, Tensor]:
    """Return the original's weights: stored where the rule of names does not give them."""
    extra = ROOT / name / "extra.safetensors"
    stored = load_file(extra) if extra.is_file() else {}
    keys = json.loads((ROOT / name / "keys.json").read_text())
    drawn = {key: weight(key, tuple(shape)) for key, shape in keys.items()}
    return {key.removeprefix("model."): tensor.float() for key, tensor in (drawn | stored).items()}


def options(**given: Any) -> list[str]:
    """Return `--set` options of `model convert`; two underscores stand for the dot."""
    return [part for name, value in given.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def converted(original: Path, *given: str) -> Path:
    """Return the folder that `framefleet model convert` makes of a checkpoint, beside it."""
    out = original.with_name("converted")
    command("model", "convert", original, out, *given, exits=0)
    return out


@functools.cache
def crafter(unet: str, *, scale: float = 0.7, pooled: bool = False) -> Path:
    """Return the pipeline folder of a whole checkpoint: a golden denoiser, with the other golden networks.

    scale: where `scale_arr` ends. pooled: with the projector of four tokens.
    """
    parts = {
        "model.diffusion_model": unet,
        "first_stage_model": "videocrafter_autoencoderkl",
        "cond_stage_model.model": "openclip_text",
    }
    told: dict[str, float] = {"text_encoder__num_attention_heads": 4}
    if scale != 0.7:  # no released model of these denoisers scales latents so
        told["scheduler__latent_scale"] = scale
    if unet != "videocrafter2_unet":
        projector = "lvdm_imageproj" if pooled else "dynamicrafter_resampler"
        parts |= {"embedder.model": "openclip_image_v2", "image_proj_model": projector}
        told["image_encoder__num_attention_heads"] = 4
        if not pooled:
            told |= {"image_projector__attention_head_dim": 16, "image_projector__num_attention_heads": 3}
    found = {f"{stem}.{key}": tensor for stem, name in parts.items() for key, tensor in tensors(name).items()}
    found["betas"] = io("videocrafter2_ddim")["betas"]
    found["scale_arr"] = torch.cat([torch.linspace(1, scale, 400), torch.full((1000,), scale)])
    if pooled:  # the golden tower's is of another width than the projector takes
        found["embedder.model.visual.proj"] = weight("visual.proj", (64, 64))
    path = _place() / "model.ckpt"
    torch.save({"state_dict": found}, path)
    variant = ["--variant", "dynamicrafter-512"] if unet == "dynamicrafter512_unet" else []
    return converted(path, *variant, *options(**told))


@functools.cache
def opensora(vae: str, transformer: str | None) -> Path:
    """Return the pipeline folder of the golden networks with tiny text encoders.

    transformer: None for one of random weights that takes the DC-AE's latents.
    """
    original = _place() / "original"
    write_texts(original)
    save_file(tensors(vae), original / "vae.safetensors")
    size = Size(token=16, condition=17)
    drawn = tensors(transformer) if transformer else weights_of(transformer_shapes(size))
    save_file(drawn, original / "transformer.safetensors")
    groups = options(vae__norm_num_groups=8) if "hunyuan" in vae else []  # which no tensor tells
    return converted(original, *groups)


def _place() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="framefleet-goldens-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def full_keys(name: str) -> dict[str, Tensor]:
    """Return the tensors of a full-size original, on the meta device."""
    with gzip.open(ROOT / "fullkeys" / f"{name}.json.gz") as file:
        keys = json.load(file)
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}


def close(mine: Tensor, theirs: Tensor) -> None:
    """Tolerance of one forward: another order of sums."""
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def close_after_steps(mine: Tensor, theirs: Tensor) -> None:
    """Tolerance of a trajectory, relative to its largest value: random weights amplify."""
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 5e-5
