"""An output of three rows rendered without Ray, as a worker and a driver would have written it."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST, build

KINDS: dict[str, dict[str, Any]] = {
    "wan": {"scheduler": "flow_euler", "guidance_scale": 3.5},
    "cogvideox": {"scheduler": "cogvideox_dpm", "guidance_scale": 6.0},
    "sd": {"scheduler": "ddim", "eta": 0.5},
}


def rendered(folder: Path, model: str, *, build_as: str = "", **settings: Any) -> tuple[str, list[str]]:
    """Render three rows in one batch, without Ray; return the output and the row_ids. The second has a rate.

    build_as: the model to build, if not `model`. settings: of it, as a job file has them.
    """
    shared = {"prompt": "一只猫", "num_inference_steps": 3} | KINDS[model]
    rows = [{"seed": seed, "fps": 12.5 if seed == 1 else None} | shared for seed in range(3)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", model=model)
    path = str(build(build_as or model, folder / "model"))
    values |= {"model": {"path": path, **settings}, "defaults": SMALLEST[model]}
    return render_here(values)


def run_script(script: str) -> str:
    """Run a replay script in this process, which has imported diffusers; return what it prints."""
    with redirect_stdout(StringIO()) as printed:
        exec(compile(script, "again.py", "exec"), {})
    return printed.getvalue()
