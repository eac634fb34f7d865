"""Calls of text encoders: each distinct one made once, with the row's LoRAs, and kept if the job says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from framefleet.pipeline.hooks.adapters import of_one_row
from framefleet.pipeline.model.loras.lora import adapter_name
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.encoders.embeddings import Embeddings
from framefleet.pipeline.render.encoders.host_memory import Parked, is_on_gpu
from framefleet.pipeline.render.encoders.memo import Memo
from framefleet.pipeline.render.lora_layers import LoraLayers


class Encoders:
    """Put around the `forward` of a model's text encoders by `intercept`."""

    def __init__(self, model: Model, loras: LoraLayers, *, mode: str, kept_in: Store | None) -> None:
        """kept_in: where outputs are kept; the encoders are then on the GPU only while they are called."""
        self._loras = loras
        # Asked with an encoder's name, whether it and its code are as they were loaded.
        self.is_untouched: Callable[[str], bool] = lambda name: True
        self._digests = {adapter_name(name): lora.sha256 for name, lora in model.settings.loras.items()}
        encoders = model.text_encoders() if kept_in else {}
        kept = Embeddings(kept_in, model, model.settings.numerics(mode)) if kept_in else None
        self._memo = Memo(kept)
        parked = {name: encoder for name, encoder in encoders.items() if is_on_gpu(encoder)}
        self._parked = Parked(parked, model.environment["device"])
        self.parked = parked.keys()

    def __call__(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        row, encode = of_one_row(), partial(self._parked.run, name, forward)
        if not (self._loras.is_as_asked(name, row) and self.is_untouched(name)):
            return encode(*args, **kwargs)  # another encoder, of which nothing is known
        # An encoder with a LoRA is another one too, which is known by the LoRA.
        loras = self._loras.used_in(name, row.asked)
        place = (name, *((self._digests[adapter], weight) for adapter, weight in loras))
        return self._memo(place, encode, *args, **kwargs)

    def leave(self) -> None:
        """Free the GPU of encoders whose outputs are kept."""
        self._parked.leave()

    def bring(self) -> None:
        """Put all encoders where they were."""
        self._parked.bring()
