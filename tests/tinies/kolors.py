"""Tiny Kolors: Stable Diffusion XL's U-Net, and ChatGLM in place of both encoders."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import diffusers
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
from sentencepiece import SentencePieceTrainer

from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.image import NOISE, image_autoencoder, unet
from tests.tinies.table import IMAGE, REDRAWN, Tinies, of

_CHATGLM = {"num_layers": 2, "hidden_size": TEXT_WIDTH, "ffn_hidden_size": 64, "kv_channels": 16}


def _parts() -> dict[str, Any]:
    tokenizer = _tokenizer()
    encoder = ChatGLMConfig(
        **_CHATGLM,
        num_attention_heads=2,
        padded_vocab_size=tokenizer.vocab_size,
        multi_query_attention=True,
        add_qkv_bias=True,
        original_rope=True,
    )
    denoiser = unet(
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,  # six numbers of sizes, and the pooled text
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": ChatGLMModel(encoder),
        "vae": image_autoencoder(),
        "unet": denoiser,
        "scheduler": diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    }


def _tokenizer() -> ChatGLMTokenizer:
    """Return one of single bytes: SentencePiece writes its model, and the tokenizer reads the file."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a red ball in the rain"]),
        model_writer=written,
        vocab_size=280,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = Path(tempfile.mkdtemp(prefix="framefleet-chatglm-")) / "tokenizer.model"
    path.write_bytes(written.getvalue())  # kept for the process: saving the pipeline copies it
    return ChatGLMTokenizer(str(path))


_CALL = IMAGE | {"max_sequence_length": 64}
TINIES: Tinies = {
    "kolors": of("KolorsPipeline", _parts, _CALL),
    "kolors_img2img": of("KolorsImg2ImgPipeline", _parts, REDRAWN | {"max_sequence_length": 64}, "image"),
    "kolors_pag": of("KolorsPAGPipeline", _parts, _CALL),
}
