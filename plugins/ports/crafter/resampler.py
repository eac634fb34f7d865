"""Turns the tokens of a CLIP image encoder into the image tokens that the denoiser attends to."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional


class VideoCrafterImageProjector(ModelMixin, ConfigMixin):
    """A Perceiver resampler (arXiv 2204.14198): learned queries attend to the image's tokens and themselves.

    num_queries: for each frame, or for the whole clip where num_frames is 1. hidden_size: of the queries.
    image_embed_dim: of the tokens that come in. cross_attention_dim: of those that go out.
    """

    @register_to_config
    def __init__(
        self,
        hidden_size: int = 1024,
        num_layers: int = 4,
        attention_head_dim: int = 64,
        num_attention_heads: int = 12,
        num_queries: int = 16,
        num_frames: int = 1,
        image_embed_dim: int = 1280,
        cross_attention_dim: int = 1024,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, num_queries * num_frames, hidden_size) / hidden_size**0.5)
        self.proj_in = nn.Linear(image_embed_dim, hidden_size)
        self.layers = nn.ModuleList(
            _Layer(hidden_size, attention_head_dim, num_attention_heads, ff_mult) for _ in range(num_layers)
        )
        self.proj_out = nn.Linear(hidden_size, cross_attention_dim)
        self.norm_out = nn.LayerNorm(cross_attention_dim)

    def forward(self, image_embeds: Tensor) -> Tensor:
        """(B, 257, image_embed_dim) -> (B, num_queries * num_frames, cross_attention_dim)"""
        tokens = self.proj_in(image_embeds)
        queries = self.latents.expand(image_embeds.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.norm_out(self.proj_out(queries))


class VideoCrafterPooledImageProjector(ModelMixin, ConfigMixin):
    """The projector of VideoCrafter without fine grain: a few tokens from what CLIP makes of a whole image.

    image_embed_dim: of CLIP's embedding. cross_attention_dim: of the tokens that go out.
    """

    @register_to_config
    def __init__(
        self, image_embed_dim: int = 1024, cross_attention_dim: int = 1024, num_queries: int = 4
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(image_embed_dim, num_queries * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, image_embeds: Tensor) -> Tensor:
        """(B, image_embed_dim) -> (B, num_queries, cross_attention_dim)"""
        tokens = self.proj(image_embeds).unflatten(1, (self.config.num_queries, -1))
        return self.norm(tokens)


class _Layer(nn.Module):
    def __init__(self, size: int, head_dim: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_tokens, self.norm_queries = nn.LayerNorm(size), nn.LayerNorm(size)
        self.to_q = nn.Linear(size, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(size, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, size, bias=False)
        self.ff = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, ff_mult * size, bias=False),
            nn.GELU(),
            nn.Linear(ff_mult * size, size, bias=False),
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries: (B, Q, C); tokens: (B, N, C). Queries attend to the tokens and to each other."""
        own = self.norm_queries(queries)
        key, value = self.to_kv(torch.cat([self.norm_tokens(tokens), own], dim=1)).chunk(2, dim=-1)
        query, key, value = (
            tensor.reshape(*tensor.shape[:2], self.heads, -1).transpose(1, 2)
            for tensor in (self.to_q(own), key, value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        queries = queries + self.to_out(attended.transpose(1, 2).flatten(2))
        return queries + self.ff(queries)
