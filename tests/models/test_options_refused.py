"""Options that a model cannot have: refused when it is loaded, with the fix."""

from __future__ import annotations

from typing import Any

import pytest

from framefleet import ModelError, load_model
from tests.tiny import tiny

TORCHAO = {"backend": "torchao", "type": "int8_weight_only"}
QUANTO = {"backend": "quanto", "type": "int8", "components": ["unet"]}


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("sd", {"cache": "first_block"}, "UNet2DConditionModel does not take the caches"),
        ("wan", {"cache": "taylor_seer"}, "would do nothing"),
        ("wan", {"cache": {"type": "taylor_seer", "cache_identifiers": ["("]}}, "does not fit"),
        ("cogvideox", {"cache": "sea"}, "does not know CogVideoXTransformer3DModel's latents"),
        ("wan_i2v", {"cache": "sea"}, "does not know WanTransformer3DModel's latents"),
        ("wan", {"cache": "text_kv"}, "would do nothing"),
        ("wan", {"cache": "faster"}, "needs both prompts in one forward"),
        ("sd", {"attention": "native"}, "UNet2DConditionModel has no choice of backends"),
        ("wan", {"attention": "flsh"}, "not one of diffusers' backends"),
        ("wan", {"attention": "_native_cudnn"}, "does not work on cpu"),
        ("cogvideox", {"compile": True}, "no regions of CogVideoXTransformer3DModel"),
        ("wan", {"compile": True, "cache": "first_block"}, "compile does not work together with cache"),
        ("wan", {"offload": "model"}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "stream": True}}, "needs a GPU"),
        ("wan", {"offload": {"type": "group", "level": "leaf", "blocks": 2}}, "blocks move one by one"),
        ("wan", {"quantization": {"backend": "torchao", "type": "float8_dynamic"}}, "does not run on cpu"),
        ("wan", {"quantization": QUANTO}, "no weights in this model"),
        ("wan", {"quantization": TORCHAO | {"components": ["vae"]}}, "found nothing in vae"),
        ("wan", {"channels_last": True}, "convolves over time"),
        ("wan", {"matmul": "triton"}, "needs a GPU"),
        ("wan", {"matmul": "triton", "compile": True}, "matmul triton does not work together with compile"),
        ("wan", {"speed": "fastest"}, "does not run on cpu"),
        ("cogvideox", {"speed": "compiled"}, "no regions of (?s:.*)`compile: false` together with `speed`"),
        ("wan", {"vae_tilling": True}, "a model has no option 'vae_tilling'"),
        ("wan", {"dtype": "fp8"}, "fp8"),
        ("wan", {"device": "nowhere"}, "nowhere"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_the_fix(
    model: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(tiny(model), **{"device": "cpu", **options})
    assert caught.value.fix
