"""Write the demo's model: a Wan pipeline folder small enough for a laptop CPU, the same bytes every time.

Its weights are random: clips show coloured clouds, not what the prompt says.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from torch import nn
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 64
LATENT_CHANNELS = 16


def build_demo_model(folder: Path) -> Path:
    """Return `folder`, holding the demo model; a complete one that is already there is left as it is."""
    if (folder / "model_index.json").is_file():  # moved into place whole, so one file vouches for all
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        demo_pipeline().save_pretrained(scratch / "model", safe_serialization=True)
        _move(scratch / "model", folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def demo_pipeline() -> WanPipeline:
    """Return the demo's pipeline, fp32 on the CPU, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that are then overwritten
        text_encoder = byte_text_encoder(TEXT_WIDTH)
        transformer = _transformer()
        vae = _autoencoder()
    fill_weights(text_encoder, seed=0)
    fill_weights(transformer, seed=1)
    fill_weights(vae, seed=1)  # picked by eye among a dozen
    _blur(vae)
    return WanPipeline(
        tokenizer=ByT5Tokenizer(),  # bytes: any language, no vocabulary file
        text_encoder=text_encoder,
        transformer=transformer,
        vae=vae,
        scheduler=flow_scheduler(),
    )


def byte_text_encoder(width: int) -> UMT5EncoderModel:
    """Return an encoder of bytes to (B, tokens, width)."""
    return UMT5EncoderModel(
        UMT5Config(vocab_size=384, d_model=width, d_kv=16, d_ff=2 * width, num_layers=2, num_heads=4)
    )


def flow_scheduler() -> UniPCMultistepScheduler:
    """Return the noise scheduler that Wan 2.1 ships for 480p."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def _transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=256,
        num_layers=4,
    )


def _autoencoder() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )


def fill_weights(module: nn.Module, *, seed: int) -> None:
    """Overwrite every weight from `seed` so that signals keep their size, and leave training mode.

    Norms are 1 and biases 0. Queries and keys are scaled up, so that attention picks out the few
    bytes of a prompt among hundreds of padding rows, and prompts are seen in the frames.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif weight.numel() == max(weight.shape):  # one number per channel: a norm
                weight.fill_(2.0 if "norm_q" in name or "norm_k" in name else 1.0)
            else:
                weight.normal_(std=1 / math.sqrt(_fan_in(name, weight)), generator=generator)
    module.eval()


def _fan_in(name: str, weight: torch.Tensor) -> int:
    return 1 if "embed_tokens" in name or "shared" in name else weight[0].numel()


def _blur(vae: AutoencoderKLWan) -> None:
    """Make every convolution of the decoder an even average of its window: clouds instead of noise."""
    with torch.no_grad():
        for weight in vae.decoder.parameters():
            if weight.ndim > 3 and weight[0].numel() > 1:
                weight.copy_(weight.mean(dim=tuple(range(2, weight.ndim)), keepdim=True))
        vae.decoder.conv_out.weight.mul_(1.5)  # averages are pale


def _move(source: Path, target: Path) -> None:
    """Rename a folder into place; a half-made target gives way, another builder's complete one stays."""
    if target.exists() and not (target / "model_index.json").exists():
        shutil.rmtree(target)
    try:
        source.rename(target)
    except OSError:  # another process was first; both built the same bytes
        if not (target / "model_index.json").is_file():
            raise
