"""Single files and GGUF files whose headers or weights are not what they should be."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.jobs import prompt_rows, write_table
from tests.tiny import SMALLEST
from tools.fuzz import hostile
from tools.fuzz.case import Case, reported
from tools.fuzz.kinds.safetensor import mutated_safetensors
from tools.fuzz.kinds.tables import planned
from tools.fuzz.material import Material

_MAGIC = b"GGUF"


def single_files(rng: Random, folder: Path, material: Material) -> Case:
    """A job whose model has such a file as a part, or as the checkpoint of a base; or a call of it."""
    is_gguf = rng.random() < 0.5
    content = material.gguf if is_gguf else material.single_file
    mutated = _mutated_gguf if is_gguf else mutated_safetensors
    name = "wan.gguf" if is_gguf else "wan.safetensors"
    (folder / name).write_bytes(rng.choice((mutated, mutated, _unchanged))(rng, content))
    base = str(material.model("wan"))
    part = rng.choice((name, {"path": name}, {"path": name, "sha256": "0" * 64}))
    component = rng.choice(("transformer", "transformer", "vae", "text_encoder", "checkpoint", "unet"))
    if rng.random() < 0.3:

        def load() -> None:
            from framefleet import load_model

            load_model(base, parts={component: part}, device="cpu")

        return Case(told=f"loading {name} as {component}", run=reported(load))
    model = rng.choice(({"path": base, "parts": {component: part}}, {"path": name, "base": base}))
    write_table(folder / "t.parquet", prompt_rows(2))
    told = f"{name} as {component} of {model!r:.100}"
    return planned(folder, "t.parquet", material, told, model=model, defaults=SMALLEST["wan"])


def _unchanged(_: Random, content: bytes) -> bytes:
    return content


def _mutated_gguf(rng: Random, content: bytes) -> bytes:
    """Return the file with other bytes; mostly in its header, which is a tenth of a tiny one."""
    if rng.random() < 0.3:
        return hostile.mutated_bytes(rng, content)
    end = rng.randrange(len(_MAGIC), min(len(content), 4096))
    return content[: len(_MAGIC)] + hostile.mutated_bytes(rng, content[len(_MAGIC) : end]) + content[end:]
