"""From options with names of their own (`--prompt`, `--sweep`, `--steps`) to what `--set` would say."""

from __future__ import annotations

import json
from collections.abc import Sequence

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.public import public_text


def sweep_sets(prompts: Sequence[str], seeds: str | None, sweeps: Sequence[str]) -> list[str]:
    """Return them as "sweep.seed=[0-63]". Raises JobError."""
    of_prompts = [f"sweep.prompt={json.dumps([*prompts], ensure_ascii=False)}"] if prompts else []
    of_seeds = [] if seeds is None else [_set_of(f"seed={seeds}")]
    return [*of_prompts, *of_seeds, *map(_set_of, sweeps)]


def short_sets(workers: int | None, steps: int | None) -> list[str]:
    """Return `--workers` and `--steps` as `--set` has them."""
    given = {"fleet.workers": workers, "overrides.num_inference_steps": steps}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _set_of(sweep: str) -> str:
    """Return one of `name=1,3,5`, `name=@prompts.txt`, or `name=` with a list or a mapping of YAML."""
    name, _, values = (part.strip() for part in sweep.partition("="))
    if not (name and values):
        raise JobError(
            f"--sweep {public_text(sweep)}: not name=values", "write it as --sweep guidance_scale=1,3,5"
        )
    if values[0] == "@":
        return f"sweep.{name}.file={json.dumps(values[1:], ensure_ascii=False)}"
    is_one = values[0] in "[{" or name in ("sample.num", "sample.method", "sample.seed")
    return f"sweep.{name}={values if is_one else f'[{values}]'}"
