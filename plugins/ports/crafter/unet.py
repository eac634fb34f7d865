"""The denoiser of VideoCrafter and DynamiCrafter: diffusers' UNet3DConditionModel and what they add to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin, UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_ATTENTION_DOWN, _ATTENTION_UP = "CrossAttnDownBlock3D", "CrossAttnUpBlock3D"


# Both hold weights of their own, as diffusers' IP-Adapter processors do: they are saved with the model.
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
    """Self attention over frames with a learned vector for each distance, next to keys and next to values.

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


# ModelMixin by name: diffusers looks for it next to a component's class to know how to load it.
class VideoCrafterUNet3DModel(UNet3DConditionModel, ModelMixin):
    """UNet3DConditionModel with fps conditioning, image cross attention and relative positions.

    sample_size: (height, width) of the latents it was trained on.
    in_channels: 4, or 8 with image latents next to the noise. attention_head_dim: channels of one head.
    default_fps: of a call without `fps`; None for models that are not conditioned on it.
    use_temporal_conv: whether temporal convolutions follow the residual blocks.
    max_relative_position: distance in frames up to which temporal attention knows positions; None for none.
    image_cross_attention: attends to image tokens too. image_tokens_per_frame: each frame attends to
    this many of its own, if there are that many times the frames, and else to all of them.
    learnable_image_scale: see ImageCrossAttnProcessor.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: tuple[int, int] | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*[_ATTENTION_DOWN] * 3, "DownBlock3D"),
        up_block_types: tuple[str, ...] = ("UpBlock3D", *[_ATTENTION_UP] * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        default_fps: int | None = 16,
        use_temporal_conv: bool = True,
        max_relative_position: int | None = None,
        image_cross_attention: bool = False,
        image_tokens_per_frame: int = 16,
        learnable_image_scale: bool = False,
    ) -> None:
        # The undecorated one: the decorated puts arguments that we do not take into the config.
        UNet3DConditionModel.__init__.__wrapped__(
            self,
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
        )
        if default_fps is not None:
            channels = block_out_channels[0]
            self.time_embedding = _SummedTimestepEmbedding(channels, 4 * channels)
            self.fps_embedding = TimestepEmbedding(channels, 4 * channels)
        if not use_temporal_conv:
            for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
                block.temp_convs = nn.ModuleList(_NoTemporalConv() for _ in block.temp_convs)
        if max_relative_position is not None:
            for name, attention in self._attentions():
                if "transformer_in." in name or ".temp_attentions." in name:
                    attention.set_processor(
                        RelativePositionAttnProcessor(attention_head_dim, max_relative_position)
                    )
        for name, attention in self._attentions() if image_cross_attention else ():
            if ".attentions." in name and name.endswith(".attn2"):
                processor = ImageCrossAttnProcessor(
                    attention.inner_dim, cross_attention_dim, learnable_scale=learnable_image_scale
                )
                attention.set_processor(processor)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        fps: Tensor | float | int | None = None,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[Tensor]:
        """Return the prediction for `sample`.

        sample: (B, C, T, H/8, W/8), the sizes multiples of what the levels halve them to.
        encoder_hidden_states: (B, 77, D), text. encoder_hidden_states_image: (B, N, D).
        timestep, fps: for each row, or one for all.
        """
        attention = None
        if encoder_hidden_states_image is not None:
            # The one name that attention without image tokens ignores in silence, in diffusers.
            attention = {"ip_hidden_states": self._by_frame(encoder_hidden_states_image, sample.shape[2])}
        return super().forward(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=self._embed_fps(fps, sample),
            cross_attention_kwargs=attention,
            return_dict=return_dict,
        )

    def enable_gradient_checkpointing(
        self, gradient_checkpointing_func: Callable[..., Any] | None = None
    ) -> None:
        """Keep of each block only what goes in, which diffusers' UNet3DConditionModel cannot."""
        checkpointed = gradient_checkpointing_func or partial(checkpoint, use_reentrant=False)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            block.forward = partial(checkpointed, block.forward)

    def _embed_fps(self, fps: Tensor | float | int | None, sample: Tensor) -> Tensor | None:
        if self.config.default_fps is None:
            return None
        rates = torch.as_tensor(self.config.default_fps if fps is None else fps, device=sample.device)
        sinusoid = self.time_proj(rates.reshape(-1).expand(sample.shape[0]))
        return self.fps_embedding(sinusoid.to(self.dtype))

    def _by_frame(self, tokens: Tensor, num_frames: int) -> Tensor:
        """(B, N, D) -> (B*T, n, D)"""
        each = self.config.image_tokens_per_frame
        if tokens.shape[1] == num_frames * each:
            return tokens.reshape(-1, each, tokens.shape[2])
        return tokens.repeat_interleave(num_frames, dim=0)

    def _attentions(self) -> list[tuple[str, Any]]:
        return [(name, module) for name, module in self.named_modules() if isinstance(module, Attention)]


class _SummedTimestepEmbedding(TimestepEmbedding):
    """Adds what it is conditioned on after its layers, where diffusers' own projects it before them."""

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        embedded: Tensor = super().forward(sample)
        return embedded if condition is None else embedded + condition


class _NoTemporalConv(nn.Module):
    """Stands where diffusers' blocks expect a temporal convolution."""

    def forward(self, hidden_states: Tensor, num_frames: int = 1) -> Tensor:
        return hidden_states


def _heads(tensor: Tensor, heads: int) -> Tensor:
    """(B, N, h*d) -> (B, h, N, d)"""
    return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)


def _project(attn: Attention, output: Tensor) -> Tensor:
    """(B, h, N, d) -> (B, N, C), through the output projection."""
    linear, dropout = attn.to_out
    return dropout(linear(output.transpose(1, 2).flatten(2)))
