"""Every tensor of the published checkpoints finds its place, in equal shape: full size, without values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.convert import plan_conversion
from framefleet.plugins.ports.conversion.plan import Conversion, check
from framefleet.plugins.ports.crafter.convert import clip_tokenizer
from tests import goldens
from tests.opensora import FULL, transformer_shapes

pytestmark = goldens.needed

CRAFTER = {
    "videocrafter_inference_t2v_512_v2.0": "videocrafter2-t2v-512",
    "videocrafter_inference_t2v_1024_v1.0": "videocrafter1-t2v-1024",
    "videocrafter_inference_t2v_512_v1.0": "videocrafter1-t2v-512",
    "videocrafter_inference_i2v_512_v1.0": "videocrafter1-i2v-512",
    "dynamicrafter_256": "dynamicrafter-256",
    "dynamicrafter_512": "dynamicrafter-512",
    "dynamicrafter_1024": "dynamicrafter-1024",
}
T5 = T5Config(
    vocab_size=32128,
    d_model=4096,
    d_kv=64,
    d_ff=10240,
    num_layers=24,
    num_heads=64,
    feed_forward_proj="gated-gelu",
)
CLIP = CLIPConfig(
    text_config={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    vision_config={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
    projection_dim=768,
)


def converted(path: Path, shapes: Mapping[str, Tensor], variant: str) -> Conversion:
    """Return the conversion of a checkpoint of these names and shapes, checked as `model convert` does."""
    checkpoint = Checkpoint(path=path, shapes=shapes, read=shapes.__getitem__)
    conversion = plan_conversion(checkpoint, variant=variant)
    check(conversion, checkpoint)
    assert conversion.variant == variant
    return conversion


def num_parameters(conversion: Conversion) -> dict[str, int]:
    networks = conversion.networks.items()
    return {name: sum(p.numel() for p in network.module.parameters()) for name, network in networks}


def num_below(shapes: Mapping[str, Tensor], prefix: str) -> int:
    return sum(tensor.numel() for name, tensor in shapes.items() if name.startswith(prefix))


@pytest.mark.parametrize("name", list(CRAFTER))
def test_every_tensor_of_videocrafter_and_dynamicrafter_finds_its_place(name: str) -> None:
    shapes = goldens.full_keys(name) | goldens.full_keys("openclip_vit_h_14")
    if "i2v" in name:  # whose list leaves the projector out: that of DynamiCrafter, of one frame
        other = goldens.full_keys("dynamicrafter_512")
        shapes |= {key: shape for key, shape in other.items() if key.startswith("image_proj_model.")}
        shapes["image_proj_model.latents"] = shapes["image_proj_model.latents"][:, :16]
    elif "t2v" in name:
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith("embedder.")}
    sizes = num_parameters(converted(Path(name), shapes, CRAFTER[name]))
    assert sizes["unet"] == num_below(shapes, "model.diffusion_model.")
    assert sizes["vae"] == num_below(shapes, "first_stage_model.")
    # of open_clip's 354,032,641 the last block, the projection and the scale are left out
    assert sizes["text_encoder"] == 354_032_641 - 12_596_224 - 1024 * 1024 - 1
    if "t2v" not in name:
        assert sizes["image_encoder"] == 630_766_080  # of 632,076,800 all but the projection


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the configs and tokenizers of T5 and CLIP, without weights."""
    folder = tmp_path_factory.mktemp("texts")
    T5.save_pretrained(folder / "t5")
    words = Tokenizer(WordLevel({str(i): i for i in range(32100)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder / "t5")
    CLIP.save_pretrained(folder / "clip")
    clip_tokenizer().save_pretrained(folder / "clip")
    return folder


@pytest.mark.parametrize("variant", ["open-sora-v2", "open-sora-v2-dc-ae"])
def test_every_tensor_of_open_sora_finds_its_place(variant: str, texts: Path) -> None:
    transformer = goldens.full_keys("opensora2_mmdit")
    assert {name: tuple(tensor.shape) for name, tensor in transformer.items()} == transformer_shapes(FULL)
    is_dc = variant.endswith("dc-ae")
    if is_dc:  # of which there is no list
        drawn = transformer_shapes(dataclasses.replace(FULL, token=128, condition=129))
        transformer = {name: torch.empty(shape, device="meta") for name, shape in drawn.items()}
    with torch.device("meta"):
        t5, clip = T5ForConditionalGeneration(T5).state_dict(), CLIPModel(CLIP).state_dict()
    files = {
        "transformer.safetensors": transformer,
        "vae.safetensors": goldens.full_keys("opensora2_dcae" if is_dc else "opensora2_hunyuan_vae"),
        "t5/model.safetensors": t5,
        "clip/model.safetensors": clip,
    }
    shapes = {f"{file}:{name}": tensor for file, tensors in files.items() for name, tensor in tensors.items()}
    sizes = num_parameters(converted(texts, shapes, variant))
    # The biases of the two layers that became one are summed.
    assert sizes["transformer"] == num_below(shapes, "transformer.safetensors:") - FULL.hidden
    assert sizes["vae"] == num_below(shapes, "vae.safetensors:")
    assert sizes["text_encoder"] == 123_060_480
    assert sizes["text_encoder_2"] == 4_762_310_656
