"""Outputs of text encoders in the output: the same frames without, with an empty and with a full store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ModularPipeline

from framefleet import Clip, Failure, Model, Request, Store, load_model
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.model import TEXT_ENCODERS
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.render import embeddings
from framefleet.pipeline.render.embeddings import Embeddings
from tests.long import long_but
from tests.tiny import BUILDERS, SMALLEST, TYPICAL, tiny
from tests.unaudited import unaudited

PROMPTS = ("a red ball", "一只猫在海边奔跑", "a red ball")  # and an empty negative one
CALL = (("text_encoder",), None, (b"ids",))
OUTPUT = ([torch.ones(2, 3)], None)


def _model(name: str, **settings: Any) -> Model:
    return load_model(tiny(name), dtype="fp32", **settings)


@pytest.fixture(scope="module")
def wan() -> Model:
    return _model("wan")


def _requests(name: str) -> list[Request]:
    own = {"max_sequence_length": 32} if name.startswith("wan") else {}
    return [
        Request(arguments={**SMALLEST[name], **own, "prompt": prompt}, seed=seed)
        for seed, prompt in enumerate(PROMPTS)
    ]


def _render(model: Model, store: Store | None, name: str = "wan") -> dict[int, str]:
    """Frames by seed."""
    digests = {}
    renderer = unaudited(model, embeddings=store)
    for outcome in renderer.render(_requests(name)):
        assert isinstance(outcome, Clip), outcome.traceback
        digests[outcome.request.seed] = outcome.frames_sha256
    return digests


@contextmanager
def _counted(model: Model) -> Iterator[list[str]]:
    """The names of the encoders that are really called."""
    calls: list[str] = []

    def count(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    with intercept(model.text_encoders(), count):
        yield calls


def _entries(store: Store, count: int) -> list[str]:
    """The paths of all entries, once the thread that writes them is done."""
    ends = time.monotonic() + 60
    while len(found := store.list("embeddings")) < count and time.monotonic() < ends:
        time.sleep(0.01)
    assert len(found) == count
    return found


@pytest.mark.parametrize("name", ["wan", "flux"])
def test_frames_are_equal_off_cold_and_warm_and_a_warm_store_calls_each_encoder_once_to_prove_it(
    name: str, tmp_path: Path
) -> None:
    model, store = _model(name), Store(str(tmp_path))
    off = _render(model, None, name)
    with _counted(model) as cold_calls:
        cold = _render(model, store, name)
    entries = _entries(store, len(cold_calls))
    with _counted(model) as warm_calls:
        warm = _render(model, store, name)
    assert off == cold == warm
    assert len(cold_calls) == (4 if name == "flux" else 3)  # two encoders, no negative prompt
    assert len(warm_calls) == len(set(warm_calls)) == (2 if name == "flux" else 1)
    assert all(entry.startswith("embeddings/") and entry.endswith(".safetensors") for entry in entries)


def test_bf16_and_fp32_do_not_share_entries(wan: Model, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _render(wan, store)
    _entries(store, 3)
    half = load_model(tiny("wan"), dtype="bf16")
    plain = _render(half, None)
    assert _render(half, store) == plain
    _entries(store, 6)
    with _counted(half) as calls:
        assert _render(half, store) == plain
    assert len(calls) == 1


def test_models_that_share_an_encoder_share_entries(wan: Model, tmp_path: Path) -> None:
    store, other = Store(str(tmp_path)), _model("wan_moe")
    assert other.digest != wan.digest
    plain = _render(other, None, "wan_moe")
    _render(wan, store)
    _entries(store, 3)
    with _counted(other) as calls:
        assert _render(other, store, "wan_moe") == plain
    assert len(calls) == 1


@pytest.mark.parametrize("where", ["files", "threads", "torch", "numerics"])
def test_what_may_decide_bits_is_part_of_the_key(wan: Model, tmp_path: Path, where: str) -> None:
    store, numerics = Store(str(tmp_path)), {"dtype": "fp32"}
    Embeddings(store, wan, numerics).keep(CALL, OUTPUT)
    _entries(store, 1)
    found = Embeddings(store, wan, numerics).find(CALL)
    assert found is not None and torch.equal(found[0][0], OUTPUT[0][0])
    digests = wan.digests | ({"text_encoder/config.json": "0" * 64} if where == "files" else {})
    environment = wan.environment | ({where: "another"} if where in wan.environment else {})
    other = replace(wan, digests=digests, environment=environment)
    if where == "numerics":
        numerics = {"dtype": "fp32", "quantization": "int8"}
    assert Embeddings(store, other, numerics).find(CALL) is None
    assert Embeddings(store, wan, numerics).find((("text_encoder",), None, (b"more ids",))) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "of another", "empty"])
def test_a_damaged_entry_is_encoded_again_and_replaced(
    wan: Model, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path))
    cold = _render(wan, store)
    first, second, _ = _entries(store, 3)
    whole = store.read(first)
    spoiled = {
        "cut": whole[:-4],
        "changed": whole[:-1] + bytes([whole[-1] ^ 1]),
        "of another": store.read(second),
        "empty": b"",
    }
    store.write(first, spoiled[damage])
    with caplog.at_level(logging.WARNING), _counted(wan) as calls:
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
    with caplog.at_level(logging.WARNING), _counted(wan) as calls:
        assert _render(wan, store) == right
        ends = time.monotonic() + 60
        while not _are_replaced(store, entries, wrong) and time.monotonic() < ends:
            time.sleep(0.01)
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


def test_a_store_that_cannot_be_read_fails_the_row_as_the_stores_error(wan: Model, tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file where the folder should be")
    outcomes = list(unaudited(wan, embeddings=Store(str(tmp_path))).render(_requests("wan")[:1]))
    assert isinstance(outcomes[0], Failure) and isinstance(outcomes[0].error, StoreError)
    assert "embeddings" in outcomes[0].error.problem


def test_a_store_that_cannot_be_written_is_told_in_the_log_and_by_the_next_call(
    wan: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "embeddings").symlink_to(tmp_path / "nowhere")
    kept = Embeddings(Store(str(tmp_path)), wan, {})
    kept.keep(CALL, OUTPUT)
    kept._writer.submit(int).result()
    with pytest.raises(StoreError, match="could not create"):
        kept.keep(CALL, OUTPUT)
    assert "not kept: could not create" in caplog.text


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


def test_what_a_slow_store_leaves_waiting_is_bounded(
    wan: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "MAX_WAITING_BYTES", 2 * OUTPUT[0][0].nbytes)
    store = SlowStore(str(tmp_path))
    kept = Embeddings(store, wan, {})
    for number in range(5):
        kept.keep((("text_encoder",), None, (number,)), OUTPUT)
    store.may_write.set()
    kept._writer.submit(int).result()
    assert len(store.list("embeddings")) == 2


def test_a_record_shows_that_nothing_was_encoded(wan: Model, tmp_path: Path) -> None:
    def slow(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        time.sleep(1)
        return original(*args, **kwargs)

    store = Store(str(tmp_path))
    with intercept(wan.text_encoders(), slow):
        (cold,) = unaudited(wan, embeddings=store).render(_requests("wan")[:1])
        _entries(store, 2)
        (warm,) = unaudited(wan, embeddings=store).render(_requests("wan")[:1])
    assert isinstance(cold, Clip) and isinstance(warm, Clip)
    assert cold.seconds["encode_s"] > 2 > warm.seconds["encode_s"]


@pytest.mark.parametrize("name", long_but(sorted(SMALLEST), *TYPICAL))
def test_a_pipeline_computes_where_its_denoiser_is_though_the_encoder_is_on_the_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        pipe: Any = BUILDERS[name]()
    if isinstance(pipe, ModularPipeline):  # whose components are in it once it is loaded
        pipe = _model(name).pipe
    (denoiser, *_) = modules_of(pipe, DENOISERS).values()
    monkeypatch.setattr(type(denoiser), "device", property(lambda self: torch.device("cuda:0")))
    assert all(encoder.device.type == "cpu" for encoder in modules_of(pipe, TEXT_ENCODERS).values())
    assert pipe._execution_device == torch.device("cuda:0")
