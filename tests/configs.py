"""Model folders that hold configs and no weights: all that checks before a render read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
WAN_FLOW = {
    "_class_name": "UniPCMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}
WAN = {
    "vae": {"scale_factor_spatial": 8, "scale_factor_temporal": 4},
    "transformer": {"patch_size": [1, 2, 2]},
    "scheduler": WAN_FLOW,
}
DDIM = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon"}
SD = {"vae": {"block_out_channels": [1, 2, 3, 4]}, "unet": {"sample_size": 64}, "scheduler": DDIM}


def write_model(folder: Path, class_name: str, configs: dict[str, dict[str, Any]], **settings: Any) -> Path:
    """Write a pipeline folder of these component configs; `settings` go into model_index.json."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.42.1", **settings}
    for name, config in configs.items():
        index[name] = ["diffusers", config.get("_class_name", "Unread")]
        (folder / name).mkdir(exist_ok=True)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (folder / name / file).write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
