"""Training jobs with bad values, tables or videos, up to the point where Ray would start."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

from tools.fuzz import hostile
from tools.fuzz.case import Case, reported
from tools.fuzz.kinds.tables import as_file
from tools.fuzz.material import Material

TRAIN: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "sizes": [[5, 16, 16]],
    "ema": 0.9,
}


def trainings(rng: Random, folder: Path, material: Material) -> Case:
    """A training's job, checked with its table."""
    rows = []
    for number in range(4):
        ending, content = rng.choice(list(material.videos.items()))
        name = f"{number}.{ending}"
        (folder / name).write_bytes(hostile.mutated_bytes(rng, content) if rng.random() < 0.3 else content)
        rows.append({"video": name, "prompt": f"square {number}"})
    kind, table = as_file(rng, rows)
    (folder / f"t.{kind}").write_bytes(hostile.mutated_bytes(rng, table) if rng.random() < 0.3 else table)
    values: Any = {
        "table": f"t.{kind}",
        "output": "out",
        "model": str(material.model("wan")),
        "defaults": {"max_sequence_length": 32},
        "train": TRAIN,
        "on_invalid": rng.choice(("fail", "skip")),
    }
    if rng.random() < 0.6:
        values = hostile.mutated_tree(rng, values)
    try:
        (folder / "job.yaml").write_text(yaml.safe_dump(values), encoding="utf-8", errors="surrogatepass")
    except (RecursionError, ValueError, yaml.YAMLError):
        (folder / "job.yaml").write_text("train: []")
    return Case(told=f"a training on t.{kind}", run=reported(_check))


def _check() -> None:
    from framefleet.jobs.job.file import load_job
    from framefleet.jobs.show.watch import Callback
    from framefleet.plugins.train.job import TrainJob
    from framefleet.plugins.train.resolve import resolve_training, survey_training

    watch = Callback()
    survey_training(resolve_training(load_job("job.yaml", kind=TrainJob), watch), watch)
