"""Train a text encoder on pairs of texts with the same meaning, so that the means of their outputs get close.

InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748), both ways as in CLIP: every other row of
the batch is a negative, unless one of its texts is the same, and so is every row's `contrast`: a text with a
difference that is rare between rows. Without "a blue ball on red" as its contrast, the mean for "a red ball
on blue" need not show which of the two is blue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from framefleet.api.clips import Frames
from framefleet.api.errors import ModelError
from framefleet.plugins.train.task import Prepared, TrainingRow

TEMPERATURE = 0.07  # CLIP's first
_MAX_TOKENS = 512  # tokenizers of bytes know no limit of their own; pipelines give their encoders as many


class TextEncoderTask:
    """`prompt` next to `paraphrase`, and far from `contrast` where there is one; see `Task`."""

    keeps_prepared = False  # ids are made faster than read

    def __init__(self, pipe: Any) -> None:
        self._encoder: Any = getattr(pipe, "text_encoder", None)
        self._tokenizer: Any = getattr(pipe, "tokenizer", None)
        if not isinstance(self._encoder, nn.Module) or self._tokenizer is None:
            raise ModelError(
                f"{type(pipe).__name__} has no text encoder", "train another part, or use another model"
            )

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        return {"text_encoder": self._encoder}

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        """Return the token ids of the row's texts by their columns, (n) each, without padding."""
        limit = min(self._tokenizer.model_max_length, _MAX_TOKENS)
        return {
            name: torch.tensor(self._tokenizer(text, truncation=True, max_length=limit).input_ids)
            for name, text in row.arguments.items()
        }

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        texts = [row[name] for name in ("prompt", "paraphrase") for row in batch]
        contrasts = [row["contrast"] for row in batch if "contrast" in row]
        sizes = [len(batch), len(batch), len(contrasts)]
        encoded = self._encode([*texts, *contrasts])  # one forward: they pad alike
        prompts, paraphrases, others = torch.split(encoded, sizes)
        numbers: dict[tuple[int, ...], int] = {}  # of texts, equal for equal ones
        numbered = [numbers.setdefault(tuple(ids.tolist()), len(numbers)) for ids in (*texts, *contrasts)]
        ids = torch.split(torch.tensor(numbered), sizes)
        pair = torch.stack(ids[:2])  # (2, B)
        # Which texts are no negatives of a row, (B, B + C): its own, and those next to them.
        alike = (pair[:, None, :, None] == pair[None, :, None, :]).any(0).any(0).fill_diagonal_(False)
        excluded = torch.cat([alike, (pair[..., None] == ids[2]).any(0)], dim=1).to(encoded.device)
        own = torch.arange(len(batch), device=encoded.device)

        def contrast_loss(texts: Tensor, pairs: Tensor) -> Tensor:
            likeness = texts @ torch.cat([pairs, others]).T / TEMPERATURE  # (B, B + C)
            return functional.cross_entropy(likeness.masked_fill(excluded, -torch.inf), own)

        # In fp32: the embeddings to distinguish are nearly alike.
        with torch.autocast(encoded.device.type, enabled=False):
            return (contrast_loss(prompts, paraphrases) + contrast_loss(paraphrases, prompts)) / 2

    def _encode(self, texts: Sequence[Tensor]) -> Tensor:
        """Return unit vectors (B, D), fp32: the mean over the outputs of each text's own tokens."""
        device = next(self._encoder.parameters()).device
        lengths = torch.tensor([len(ids) for ids in texts])
        padding = self._tokenizer.pad_token_id or 0
        ids = pad_sequence(list(texts), batch_first=True, padding_value=padding).to(device)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)  # (B, N)
        outputs = self._encoder(input_ids=ids, attention_mask=mask.long())[0].float()  # (B, N, D)
        masked = outputs * mask[..., None]
        return functional.normalize(masked.sum(1) / mask.sum(1, keepdim=True), dim=-1)
