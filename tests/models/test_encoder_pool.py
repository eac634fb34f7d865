"""Text that other workers encode than those that denoise: the same bits, and refusals where it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import framefleet
from framefleet import Batching, Clip, Failure, Model, Renderer, Request, Store
from framefleet.pipeline.errors import NotEncoded, NotLoaded, RowError
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import ModelSettings, Stage
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.pipeline.render.embeddings import AwaitedEmbeddings, Embeddings
from framefleet.pipeline.rows.lane_key import ENCODER_POOL, LaneKey
from tests.driven import render_driven
from tests.jobs import digests_by_tag, job_values, prompt_rows, records_of, write_table
from tests.long import long_but
from tests.tiny import SMALLEST, tiny

PROMPTS = ("a red ball", "一只猫在海边奔跑", "a red ball")
# Hunyuan's encoder returns a cache of keys and values, MiniMax-H3 calls a part of its own; some have several.
NAMES = ("wan", "hunyuan", "minimax_h3", "sdxl", "flux", "ltx", "sd3", "cogvideox", "audioldm2")


def loaded(name: str, stage: Stage = "whole") -> Model:
    return load(ModelSettings(path=str(tiny(name)), dtype="fp32"), stage=stage)


def requests(name: str, recipe: str = "generate") -> list[Request]:
    own = {"max_sequence_length": 32} if name == "wan" else {}
    return [
        Request(arguments={**SMALLEST[name], **own, "prompt": prompt}, seed=seed, recipe=recipe)
        for seed, prompt in enumerate(PROMPTS)
    ]


def frames(outcomes: Iterable[Outcome]) -> dict[int, str | None]:
    found = list(outcomes)
    assert all(isinstance(outcome, Clip) for outcome in found), [
        getattr(one, "traceback", "") for one in found
    ]
    return {clip.request.seed: clip.frames_sha256 for clip in found if isinstance(clip, Clip)}


def encoder(name: str, store: Store) -> Renderer:
    return Renderer(loaded(name, "encode"), Batching(max_rows=1), embeddings=store)


def ends(renderer: Renderer, rows: list[Request]) -> list[Exception]:
    """Encode the text of rows; return how each ended, once all of it is in the store."""
    found = []
    for outcome in renderer.render(rows):
        assert isinstance(outcome, Failure)
        is_written = threading.Event()
        errors: list[Exception | None] = []

        def told(error: Exception | None, errors: Any = errors, is_written: Any = is_written) -> None:
            errors.append(error)
            is_written.set()

        renderer.when_written(told)
        assert is_written.wait(10)
        found.append(errors[0] or outcome.error)
    return found


def held_bytes(network: nn.Module) -> int:
    """What its weights take."""
    return sum(weight.untyped_storage().nbytes() for weight in network.parameters())


@pytest.mark.parametrize("name", long_but(NAMES, "hunyuan", in_ci=["minimax_h3"]))
def test_frames_are_equal_though_no_process_has_both_encoder_and_denoiser(name: str, tmp_path: Path) -> None:
    store, rows = Store(str(tmp_path)), requests(name)
    plain = frames(Renderer(loaded(name)).render(rows))
    for _ in range(2):  # the second time, what is in the store is read, and proven by its first entry
        first = encoder(name, store)
        assert all(isinstance(end, NotLoaded) for end in ends(first, rows))
    then = Renderer(loaded(name, "denoise"), embeddings=store)
    assert frames(then.render(rows)) == plain
    assert {audited.verdict for audited in then.take_audits()} == {"equal"}
    left_out = [*first.model.denoisers().values(), *then.model.text_encoders().values()]
    whole = [*first.model.text_encoders().values(), *then.model.denoisers().values()]
    for network in left_out:  # a few bytes for each weight, whatever its size
        assert held_bytes(network) <= 4 * len(list(network.parameters()))
    assert all(held_bytes(network) > 10_000 for network in whole)


def test_an_entry_that_is_not_there_is_named_and_the_same_worker_encodes_it_again(tmp_path: Path) -> None:
    store, rows = Store(str(tmp_path)), requests("wan")[:1]
    first, then = encoder("wan", store), Renderer(loaded("wan", "denoise"), embeddings=store)
    ends(first, rows)
    entries = store.list("embeddings")
    store.delete_many(entries)
    (failure,) = then.render(rows)
    assert isinstance(failure, Failure) and isinstance(failure.error, NotEncoded)
    assert any(entry in failure.error.problem for entry in entries)
    assert "fleet.encoders" in failure.error.fix
    ends(first, rows)
    assert store.list("embeddings") == entries
    assert len(frames(then.render(rows))) == 1


def test_what_cannot_be_written_fails_the_row_that_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "embeddings").symlink_to(tmp_path / "nowhere")
    first = encoder("wan", Store(str(tmp_path)))
    (end,) = ends(first, requests("wan")[:1])
    assert "could not create" in str(end)


def scaled(pipe: Any, request: Request) -> Any:
    with torch.no_grad():
        pipe.text_encoder.shared.weight.mul_(2)
    return pipe(**request.arguments, generator=request.generator(), output_type="np")


@framefleet.recipe(batched=True)
def in_parts(pipe: Any, request: Request) -> Any:
    pipe.text_encoder.shared(pipe.tokenizer("a cat", return_tensors="pt").input_ids)
    return pipe(**request.arguments, generator=request.generator(), output_type="np")


def test_recipes_that_change_an_encoder_or_call_parts_of_it_are_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (end,) = ends(encoder("wan", store), requests("wan", f"{__name__}:scaled")[:1])
    assert isinstance(end, RowError) and "may change text_encoder" in end.problem
    assert store.list("embeddings") == []
    rows = requests("wan", f"{__name__}:in_parts")[:1]
    ends(encoder("wan", store), rows)
    (failure,) = Renderer(loaded("wan", "denoise"), embeddings=store).render(rows)
    assert isinstance(failure, Failure) and "text_encoder is not loaded" in str(failure.error)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("rows") / "t.parquet", prompt_rows(6))


@pytest.fixture(scope="module")
def whole(table: Path) -> dict[str, tuple[str, str]]:
    """What one process renders."""
    output = table.parent / "whole"
    render_driven(job_values(table, output))
    return digests_by_tag(output)


def pool(table: Path, output: Path, **retries: Any) -> dict[str, Any]:
    """A job whose text is encoded apart. Audits would see other threads of this process load models."""
    values = job_values(table, output, audit={"every": 0}, retries=retries)
    values["fleet"] |= {"encoders": 1}
    return values


@pytest.mark.daily(1)
@pytest.mark.parametrize("num_workers", [2, 1])
def test_a_job_has_the_bits_of_one_process_and_one_worker_takes_turns(
    num_workers: int, table: Path, whole: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    lanes: list[LaneKey] = []
    summary = render_driven(pool(table, tmp_path / "out"), num_workers=num_workers, lanes=lanes)
    assert (summary.done, summary.failed) == (6, 0)
    assert digests_by_tag(tmp_path / "out") == whole
    assert lanes[:2] == [ENCODER_POOL, LaneKey()]
    assert {record["worker"] for record in records_of(tmp_path / "out")} <= {
        f"worker-{number}" for number, lane in enumerate(lanes) if lane == LaneKey()
    }


def _lost_once() -> Callable[[Embeddings, str], Any]:
    """Reads entries as `Embeddings` does, but deletes each when a worker that denoises asks for it first."""
    read, asked = Embeddings._read, set[str]()

    def reading(self: Embeddings, key: str) -> Any:
        if isinstance(self, AwaitedEmbeddings) and key not in asked:
            asked.add(key)
            self._store.delete(f"embeddings/{key[:2]}/{key}.safetensors")
        return read(self, key)

    return reading


def test_rows_whose_entries_are_deleted_go_back_to_be_encoded(
    table: Path, whole: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embeddings, "_read", _lost_once())
    summary = render_driven(pool(table, tmp_path / "out", attempts=9), num_workers=2)
    assert (summary.done, summary.failed) == (6, 0)
    assert digests_by_tag(tmp_path / "out") == whole


@pytest.mark.ci
def test_rows_whose_entries_are_never_found_fail_and_say_why(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embeddings, "_key", _key_by_stage(Embeddings._key))
    summary = render_driven(pool(table, tmp_path / "out", attempts=2), num_workers=2)
    assert (summary.done, summary.failed) == (0, 6)
    failures = records_of(tmp_path / "out", "failures")
    assert {(one["error_type"], one["attempts"]) for one in failures} == {("NotEncoded", 2)}
    assert all("another GPU or CPU" in one["message"] for one in failures)


def _key_by_stage(key: Callable[..., str]) -> Callable[..., str]:
    """As on another machine: entries of workers that encode have other names."""
    return lambda self, call: key(self, (*call, type(self)))
