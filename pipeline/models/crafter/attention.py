"""Attention processors that VideoCrafter adds to diffusers': image tokens, and relative positions of frames.

Both hold weights of their own, as diffusers' IP-Adapter processors do, so that they are saved with the model.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional


class ImageCrossAttnProcessor(nn.Module):
    """Cross attention to text and, with a softmax of its own, to image tokens; both are summed.

    learnable_scale: the image part is scaled by `tanh(alpha) + 1` (DynamiCrafter 256) instead of 1.
    """

    def __init__(self, hidden_size: int, cross_attention_dim: int, *, learnable_scale: bool = False) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)
        self.to_v_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)
        self.alpha = nn.Parameter(torch.zeros(())) if learnable_scale else None

    # diffusers reads the parameters of `__call__` itself to know what a processor takes.
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        ip_hidden_states: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: (B*T, HW, C); encoder_hidden_states: (B*T, 77, D); ip_hidden_states: (B*T, N, D)."""
        query = _heads(attn.to_q(hidden_states), attn.heads)
        key, value = (_heads(part(encoder_hidden_states), attn.heads) for part in (attn.to_k, attn.to_v))
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        if ip_hidden_states is not None:
            key, value = (_heads(part(ip_hidden_states), attn.heads) for part in (self.to_k_ip, self.to_v_ip))
            image = functional.scaled_dot_product_attention(query, key, value)
            output = output + (image if self.alpha is None else image * (self.alpha.tanh() + 1))
        return _project(attn, output)


class RelativePositionAttnProcessor(nn.Module):
    """Self attention over frames with a learned vector for each distance, beside keys and beside values.

    Shaw et al., arXiv 1803.02155, equations 3 and 4. Distances beyond `max_distance` count as that.
    """

    def __init__(self, head_dim: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.relative_position_k = nn.Embedding(2 * max_distance + 1, head_dim)
        self.relative_position_v = nn.Embedding(2 * max_distance + 1, head_dim)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: (B*H*W, T, C)."""
        projections = (attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (_heads(part(hidden_states), attn.heads) for part in projections)  # (B, h, T, d)
        frames = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        distance = (frames[None, :] - frames[:, None]).clamp(-self.max_distance, self.max_distance)
        near_key = self.relative_position_k(distance + self.max_distance)  # (T, T, d)
        near_value = self.relative_position_v(distance + self.max_distance)
        scores = query @ key.transpose(-1, -2) + torch.einsum("bhid,ijd->bhij", query, near_key)
        weights = (scores * attn.scale).softmax(dim=-1)
        return _project(attn, weights @ value + torch.einsum("bhij,ijd->bhid", weights, near_value))


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """(B, N, h*d) -> (B, h, N, d)"""
    return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)


def _project(attn: Attention, output: Tensor) -> Tensor:
    """(B, h, N, d) -> (B, N, C), through the output projection."""
    linear, dropout = attn.to_out
    projected: Tensor = dropout(linear(output.transpose(1, 2).flatten(2)))
    return projected
