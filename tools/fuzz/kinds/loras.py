"""LoRA files that are damaged, or of something else; and whole ones with weights that have no place."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from safetensors.torch import save

from tests.jobs import prompt_rows, write_table
from tests.loras import DIALECTS
from tools.fuzz import hostile
from tools.fuzz.case import Case, reported
from tools.fuzz.kinds.safetensor import mutated_safetensors
from tools.fuzz.kinds.tables import planned
from tools.fuzz.material import Material

NAMES = (
    "style.safetensors",
    "style.safetensors",
    "style.bin",
    "style.ckpt",
    "style/pytorch_lora_weights.safetensors",
)


def loras(rng: Random, folder: Path, material: Material) -> Case:
    """A job that names such a file, or a call that loads it."""
    name = rng.choice(NAMES)
    (folder / name).parent.mkdir(exist_ok=True)
    contents = (
        mutated_safetensors(rng, material.lora),
        hostile.mutated_bytes(rng, material.lora),
        material.lora,
    )
    (folder / name).write_bytes(rng.choice(contents))
    path, model = name.partition("/")[0], material.model("wan")
    given = rng.choice(
        (path, {"path": path, "allow_pickle": rng.random() < 0.5}, hostile.mutated_tree(rng, {"path": path}))
    )
    if rng.random() < 0.5 and not isinstance(given, str):
        given = path
    if rng.random() < 0.3:

        def load() -> None:
            from framefleet import load_model

            load_model(model, device="cpu", loras={"style": path})

        return Case(told=f"loading {name}", run=reported(load))
    write_table(folder / "t.parquet", prompt_rows(2, lora="style:0.5"))
    return planned(folder, "t.parquet", material, f"{name} as {given!r:.100}", loras={"style": given})


def lora_keys(rng: Random, folder: Path, material: Material) -> Case:
    """A LoRA of some layers, with some weights taken out, and with others that diffusers drops.

    With one of the latter it must be refused.
    """
    dialect = rng.choice(sorted(material.lora_layers))
    layers, others = material.lora_layers[dialect]
    chosen = rng.sample(layers, rng.randint(1, len(layers)))
    keys = {key: weight for layer in chosen for key, weight in layer.items()}
    for key in rng.sample(sorted(keys), rng.choice((0, 0, 1, 3)) % len(keys)):
        del keys[key]
    more = others(chosen[0])
    dropped = rng.sample(sorted(more), rng.choice((0, 1, len(more))))
    keys |= {name: more[name] for name in dropped}
    if rng.random() < 0.2:
        keys |= {f"{hostile.text(rng)}.lora_down.weight": torch.ones(2, 2)}
    (folder / "x.safetensors").write_bytes(save(keys))
    model = material.model(DIALECTS[dialect].model)

    def load() -> None:
        from framefleet import load_model

        load_model(model, device="cpu", loras={"x": "x.safetensors"})

    codes = (2,) if dropped else (0, 2)
    return Case(told=f"{dialect} with {dropped}", run=reported(load), codes=codes)
