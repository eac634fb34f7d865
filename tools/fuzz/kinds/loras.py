"""LoRA files that are damaged, or of something else."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.jobs import prompt_rows, write_table
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
