"""Published models without their weights: folders with the configs of real sizes, and tiny tokenizers.

The configs are the defaults of the classes of diffusers where nothing else is written here. Those of text
encoders are what the publishers' config.json say.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.model.sources.selection import is_weights
from tests.decoders import COUNTED
from tests.tiny import tiny

_T5 = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
_T5 |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}
_UMT5 = _T5 | {"vocab_size": 256384}
_LLAMA = {
    **{"vocab_size": 128320, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
}
_CLIP = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"projection_dim": 768, "vocab_size": 49408},
}


@dataclass(frozen=True, slots=True)
class FullSize:
    """pipeline: the tiny one that it is made from. configs: what is not the default of a class of diffusers,
    or of a text encoder not as in the tiny one."""

    pipeline: str
    configs: Mapping[str, Mapping[str, Any]]


_WAN = {"vae": {}, "text_encoder": _UMT5}
_COGVIDEOX = {"text_encoder": _T5, "vae": COUNTED["cogvideox"].config | {"scaling_factor": 0.7}}
FULL_SIZE = {
    "hunyuanvideo": FullSize(
        "hunyuan", {"transformer": {}, "vae": {}, "text_encoder": _LLAMA, "text_encoder_2": _CLIP}
    ),
    "ltx-video": FullSize("ltx", {"transformer": {}, "vae": {}, "text_encoder": _T5}),
    "cogvideox1.5-5b": FullSize(
        "cogvideox_1_5",
        _COGVIDEOX
        | {
            "transformer": {
                **{"num_attention_heads": 48, "num_layers": 42, "patch_size_t": 2, "patch_bias": False},
                **{"use_rotary_positional_embeddings": True, "sample_height": 300, "sample_width": 300},
                **{"sample_frames": 81},
            }
        },
    ),
    "cogvideox-2b": FullSize("cogvideox_2b", _COGVIDEOX | {"transformer": {}}),
    "wan2.1-t2v-1.3b": FullSize(
        "wan", _WAN | {"transformer": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}}
    ),
    "wan2.1-t2v-14b": FullSize("wan", _WAN | {"transformer": {}}),
}


def write_full_size(name: str, folder: Path) -> Path:
    """Write the folder of a model of FULL_SIZE, without weights."""
    model = FULL_SIZE[name]
    origin = tiny(model.pipeline)
    for file in origin.rglob("*"):
        place = file.relative_to(origin)
        if file.is_file() and not is_weights(f"{place}"):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / place)
    for component, values in model.configs.items():
        path = folder / component / "config.json"
        config = json.loads(path.read_text())
        is_of_diffusers = "_class_name" in config
        kept = {"_class_name": config["_class_name"]} if is_of_diffusers else config
        path.write_text(json.dumps(kept | values))
    return folder
