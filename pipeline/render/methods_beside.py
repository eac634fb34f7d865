"""A model in, and out what its rows call beside denoisers: decoders and text encoders."""

from __future__ import annotations

from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.fused.methods import Method, Methods


def methods_beside(model: Model) -> Methods:
    decoders = {
        f"{name}.decode": Method(network, "decode", "decode_s")
        for name, network in model.networks().items()
        if callable(getattr(network, "decode", None))
    }
    encoders = {name: Method(network, seconds="encode_s") for name, network in model.text_encoders().items()}
    return decoders | encoders
