"""Outputs of text encoders in the output: the same frames without, with an empty and with a full store."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from framefleet import Model, Request, Store
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.render import embeddings
from framefleet.pipeline.render.embeddings import MAX_WAITING_BYTES, Embeddings
from tests.driven import render_driven
from tests.jobs import job_values, prompt_rows, wait_until, write_table
from tests.tiny import SMALLEST
from tests.unaudited import calls_of, clips_in_order, loaded, unaudited

PROMPTS = ("a red ball", "一只猫在海边奔跑", "a red ball")  # and an empty negative one
CALL = (("text_encoder",), None, (b"ids",))
OUTPUT = ([torch.ones(2, 3)], None)


@pytest.fixture(scope="module")
def wan() -> Model:
    return loaded("wan")


def _requests(name: str) -> list[Request]:
    arguments = [{**SMALLEST[name], "prompt": prompt} for prompt in PROMPTS]
    return [Request(arguments=given, seed=seed) for seed, given in enumerate(arguments)]


def _render(model: Model, store: Store | None, name: str = "wan") -> list[str | None]:
    """Return the digests of frames, row by row."""
    clips = clips_in_order(unaudited(model, embeddings=store), _requests(name))
    return [clip.frames_sha256 for clip in clips]


def _entries(store: Store, count: int) -> list[str]:
    """The paths of all entries, once the thread that writes them is done."""
    wait_until(lambda: len(store.list("embeddings")) >= count)
    entries = store.list("embeddings")
    assert len(entries) == count
    return entries


@pytest.mark.parametrize("name", ["wan", "flux"])
def test_frames_are_equal_off_cold_and_warm_and_a_warm_store_calls_each_encoder_once_to_prove_it(
    name: str, tmp_path: Path
) -> None:
    model, store = loaded(name), Store(str(tmp_path))
    off = _render(model, None, name)
    with calls_of(model.text_encoders()) as cold_calls:
        cold = _render(model, store, name)
    entries = _entries(store, len(cold_calls))
    with calls_of(model.text_encoders()) as warm_calls:
        warm = _render(model, store, name)
    assert off == cold == warm
    assert len(cold_calls) == (4 if name == "flux" else 3)  # two encoders, no negative prompt
    assert len(warm_calls) == len(set(warm_calls)) == (2 if name == "flux" else 1)
    assert all(entry.startswith("embeddings/") and entry.endswith(".safetensors") for entry in entries)


def test_a_job_keeps_them_and_its_next_run_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    are_found, find = list[bool](), Embeddings.find

    def noted(self: Embeddings, call: Any) -> Any:
        output = find(self, call)
        are_found.append(output is not None)
        return output

    monkeypatch.setattr(Embeddings, "find", noted)
    rows = prompt_rows(2, guidance_scale=3.0)
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", keep_embeddings=True)
    render_driven(values)
    _entries(Store(str(tmp_path / "out")), 3)
    assert are_found and not any(are_found)
    are_found.clear()
    write_table(table, rows + [row | {"seed": 9} for row in rows])
    assert render_driven(values).done == 2
    assert are_found and all(are_found)


def test_models_that_share_an_encoder_share_entries(wan: Model, tmp_path: Path) -> None:
    store, other = Store(str(tmp_path)), loaded("wan_moe")
    assert other.digest != wan.digest
    Embeddings(store, wan, {}).keep(CALL, OUTPUT)
    _entries(store, 1)
    assert Embeddings(store, other, {}).find(CALL)


def test_what_may_decide_bits_is_part_of_the_key(wan: Model, tmp_path: Path) -> None:
    store, numerics = Store(str(tmp_path)), {"dtype": "fp32"}
    Embeddings(store, wan, numerics).keep(CALL, OUTPUT)
    _entries(store, 1)
    found = Embeddings(store, wan, numerics).find(CALL)
    assert found is not None and torch.equal(found[0][0], OUTPUT[0][0])
    others = [
        replace(wan, digests=wan.digests | {"text_encoder/config.json": "0" * 64}),
        *(replace(wan, environment=wan.environment | {key: "another"}) for key in ("threads", "torch")),
    ]
    assert all(Embeddings(store, other, numerics).find(CALL) is None for other in others)
    for other in ({"dtype": "bf16"}, numerics | {"quantization": "int8"}):
        assert Embeddings(store, wan, other).find(CALL) is None
    assert Embeddings(store, wan, numerics).find((("text_encoder",), None, (b"more ids",))) is None


def test_a_damaged_entry_is_encoded_again_and_replaced(
    wan: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path))
    cold = _render(wan, store)
    first, *_ = _entries(store, 3)
    whole = store.read(first)
    store.write(first, whole[:-1] + bytes([whole[-1] ^ 1]))
    with caplog.at_level(logging.WARNING), calls_of(wan.text_encoders()) as calls:
        assert _render(wan, store) == cold
    assert len(calls) == 2  # and one to prove the others
    assert "is encoded again" in caplog.text and first in caplog.text
    _entries(store, 3)
    assert store.read(first) == whole


def test_entries_that_are_whole_and_wrong_are_found_at_their_first_use_and_replaced(
    wan: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def off(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        output.last_hidden_state += 0.5
        return output

    store = Store(str(tmp_path))
    right = _render(wan, None)
    with intercept(wan.text_encoders(), off):
        assert _render(wan, store) != right
    entries = _entries(store, 3)
    wrong = [store.read(entry) for entry in entries]
    with caplog.at_level(logging.WARNING), calls_of(wan.text_encoders()) as calls:
        assert _render(wan, store) == right
        wait_until(lambda: _are_replaced(store, entries, wrong))
    assert len(calls) == 3 and caplog.text.count("differs from a new encoding; replaced") == 3
    assert _entries(store, 3) == entries
    assert _are_replaced(store, entries, wrong)


def _are_replaced(store: Store, entries: list[str], wrong: list[bytes]) -> bool:
    try:
        return all(store.read(entry) != before for entry, before in zip(entries, wrong, strict=True))
    except FileNotFoundError:  # between its deletion and the new one
        return False


def test_a_lost_race_is_no_error(wan: Model, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    mine, theirs = (Embeddings(store, wan, {}) for _ in range(2))
    mine.keep(CALL, OUTPUT)
    before = store.read(_entries(store, 1)[0])
    for _ in range(2):  # the second call raises what became of the first
        theirs.keep(CALL, ([torch.zeros(2, 3)], None))
        theirs._writer.submit(int).result()
    assert store.read(_entries(store, 1)[0]) == before


def _folder_as_entry(entry: Path) -> None:
    entry.unlink()
    entry.mkdir()


def _file_as_folder(entry: Path) -> None:
    entry.parents[1].rename(entry.parents[2] / "before")
    entry.parents[1].touch()


def _damaged_behind_a_link(entry: Path) -> None:
    entry.write_bytes(b"damaged")
    elsewhere = entry.parents[1].rename(entry.parents[3] / "elsewhere")
    entry.parents[1].symlink_to(elsewhere)


def _link_to_nowhere(entry: Path) -> None:
    entry.parents[1].rename(entry.parents[2] / "before")
    entry.parents[1].symlink_to(entry.parents[2] / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_folder_as_entry, "encoded again: .* is not a file"),
        (_file_as_folder, "encoded again: .* is not a file"),
        (_damaged_behind_a_link, "is encoded again: it is not an entry"),
        (_link_to_nowhere, "not kept: could not create"),
    ],
)
def test_an_entry_that_cannot_be_read_or_written_is_encoded_again_and_a_line_in_the_log(
    spoil: Callable[[Path], None],
    message: str,
    wan: Model,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(str(tmp_path / "out"))
    kept = Embeddings(store, wan, {})
    kept.keep(CALL, OUTPUT)
    (entry,) = _entries(store, 1)
    spoil(tmp_path / "out" / entry)
    for _ in range(2):  # the second call learns what became of the first
        assert kept.find(CALL) is None
        kept.keep(CALL, OUTPUT)
        kept._writer.submit(int).result()
    assert re.search(message, caplog.text)


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError])
def test_an_output_for_which_there_is_no_memory_does_not_fail_the_next_row(
    kind: type[Exception],
    wan: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(embeddings, "tensor_file", Mock(side_effect=kind("no room")))
    kept = Embeddings(Store(str(tmp_path)), wan, {})
    for _ in range(2):  # the second call raises what became of the first
        kept.keep(CALL, OUTPUT)
        kept._writer.submit(int).result()
    assert "not kept: no room" in caplog.text


def test_an_entry_larger_than_any_is_neither_written_nor_used(
    wan: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    kept = Embeddings(store, wan, {})
    kept.keep(CALL, OUTPUT)
    (entry,) = _entries(store, 1)
    monkeypatch.setattr(embeddings, "_MAX_BYTES", len(store.read(entry)) - 1)
    assert kept.find(CALL) is None
    kept.keep(CALL, OUTPUT)
    kept._writer.submit(int).result()
    assert not store.list("embeddings")


class SlowStore(Store):
    """Writes nothing until it may."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.may_write = threading.Event()

    def create(self, path: str, content: bytes) -> None:
        self.may_write.wait()
        super().create(path, content)


def test_rendering_does_not_wait_for_a_slow_store(wan: Model, tmp_path: Path) -> None:
    store = SlowStore(str(tmp_path))
    with ExitStack() as stack:
        stack.callback(store.may_write.set)
        assert _render(wan, store) == _render(wan, None)
        assert store.list("embeddings") == []
    _entries(store, 3)


def test_what_a_slow_store_leaves_waiting_is_bounded(wan: Model, tmp_path: Path) -> None:
    store = SlowStore(str(tmp_path))
    kept = Embeddings(store, wan, {})
    large = [torch.ones(1).expand(MAX_WAITING_BYTES // 4)], (object, None, ())  # which no file can hold
    for number, output in enumerate((OUTPUT, large, OUTPUT, OUTPUT)):
        kept.keep((("text_encoder",), None, (number,)), output)
    store.may_write.set()
    kept._writer.submit(int).result()
    assert len(store.list("embeddings")) == 1
