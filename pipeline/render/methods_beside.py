"""A model in, and out what its rows call beside denoisers: decoders and text encoders."""

from __future__ import annotations

from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.fused.methods import Method, Methods, dtype_of


def methods_beside(model: Model) -> Methods:
    """Return them by name, with the seconds of a clip that each counts for."""
    found = {
        f"{name}.decode": Method(network, "decode", "decode_s", dtype_of(network))
        for name, network in model.networks().items()
        if callable(getattr(network, "decode", None))
    }
    for name, network in model.text_encoders().items():
        found[name] = Method(network, seconds="encode_s", dtype=dtype_of(network))
    return found
