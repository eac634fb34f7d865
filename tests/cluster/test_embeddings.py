"""A job that keeps its embeddings, rendered twice: the second run reads what the first one encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import framefleet
from framefleet import Clip, Model, Progress, Renderer, Request, Store, load_model
from framefleet.pipeline.render.embeddings import embedding_bytes, from_bytes
from tests.jobs import job_values, records_of, wait_until, write_table
from tests.tiny import tiny

# Of as many tokens, here bytes: the pipeline cuts what the encoder returned at the prompt's end.
ENGLISH, CHINESE = "a red ball bounces", "一只猫在奔跑"


def _rows(*seeds: int) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "seed": seed} for seed in seeds for prompt in (ENGLISH, CHINESE)]


def _frames(output: Path) -> dict[tuple[str, int], str]:
    return {
        (json.loads(record["arguments"])["prompt"], record["seed"]): record["frames_sha256"]
        for record in records_of(output)
    }


def _render(model: Model, store: Store | None, **arguments: Any) -> str:
    """Render one row in this process."""
    (clip,) = Renderer(model, embeddings=store).render([Request(arguments=arguments, seed=7)])
    assert isinstance(clip, Clip)
    return clip.frames_sha256


def _entry_of(prompt: str, model: Model, folder: Path, arguments: dict[str, Any]) -> str:
    """The path of a prompt's entry. Without guidance there is no negative prompt."""
    store = Store(str(folder / prompt))
    _render(model, store, **arguments, prompt=prompt, guidance_scale=1.0)
    wait_until(lambda: store.list("embeddings"))
    return store.list("embeddings")[0]


def test_more_seeds_of_the_same_prompts_are_rendered_from_what_is_kept(
    tmp_path: Path, ray_cluster: str
) -> None:
    table, output = tmp_path / "prompts.parquet", tmp_path / "out"
    values = job_values(write_table(table, _rows(0, 1)), output, keep_embeddings=True, address=ray_cluster)
    store = Store(str(output))

    def until_kept(progress: Progress) -> None:
        """Wait for entries: they are written in the background, and those left when workers end are lost."""
        wait_until(lambda: progress.done < 4 or len(store.list("embeddings")) >= 3)

    assert framefleet.render(values, on_progress=until_kept).done == 4
    model, arguments = load_model(tiny("wan")), values["defaults"]
    kept = store.list("embeddings")
    english, chinese = (_entry_of(prompt, model, tmp_path, arguments) for prompt in (ENGLISH, CHINESE))
    assert len(kept) == 3 and {english, chinese} < set(kept)  # and the empty negative prompt

    # Only a worker that reads the Chinese prompt's entry renders what this one says, and no audit puts right.
    values["audit"] = {"every": 0}
    values["fleet"] |= {"workers": 1}  # it checks the first entry, and trusts the others
    said = embedding_bytes(Path(chinese).stem, from_bytes(Path(english).stem, store.read(english)))
    assert said is not None
    store.write(chinese, said)
    write_table(table, _rows(0, 1, 7))
    assert framefleet.render(values).done == 2
    frames = _frames(output)
    plain = _render(model, None, **arguments, prompt=ENGLISH)
    assert frames[ENGLISH, 7] == frames[CHINESE, 7] == plain
    assert frames[ENGLISH, 1] != frames[CHINESE, 1]
    assert store.list("embeddings") == kept
