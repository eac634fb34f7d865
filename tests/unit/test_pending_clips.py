"""What a driver leaves: a finished clip is adopted, what no record names is swept, all else stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from framefleet import Request, Store
from framefleet.cluster.driver.earlier_runs import Adoption, find_adoptable, note_apart
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.outputs.encode_clip import EncodedClip, store_clip
from framefleet.pipeline.outputs.layout import clip_path, extras_path
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.pending_clips import (
    announce,
    disown,
    intent_path,
    intents_in,
    path_of_intent,
    sweep,
)
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, Record, values_of
from framefleet.pipeline.render.audit.verdict import kind_of
from tests.outputs import write_part
from tests.rows import RECORD, record

ROW_ID = RECORD.row_id
REQUEST = Request(arguments={"prompt": "一只猫"}, seed=RECORD.seed)


def attempt(content: bytes, extras: bytes | None = None, row_id: str = ROW_ID) -> EncodedClip:
    return EncodedClip(
        suffix=".mp4",
        content=content,
        extras=extras,
        record=replace(
            RECORD,
            row_id=row_id,
            bytes=len(content),
            media_sha256=hashlib.sha256(content).hexdigest(),
            extra_outputs_sha256=extras and hashlib.sha256(extras).hexdigest(),
        ),
    )


def worked(store: Store, encoded: EncodedClip, *, was_batched: bool = False) -> Record:
    """Do what a worker does with a clip; return its record, which nobody has committed."""
    announce(store, encoded.record, was_batched=was_batched)
    return store_clip(store, encoded)


def adoption(store: Store) -> Adoption:
    run: Any = type("Run", (), {"store": store, "media": Media(), "steps": {}})
    return find_adoptable(run, intents_in(store), {"": ("m", RECORD.model_digest)})


def commit(store: Store, *records: Record) -> None:
    write_part(store, "records", RECORD_FIELDS, (values_of(one) for one in records), "r1")


def swept(store: Store) -> None:
    with DriverLock(store) as lock:
        sweep(store, intents_in(store), lock)


@pytest.mark.parametrize("extras", [None, b"arrays"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "beside another"])
def test_a_whole_clip_is_adopted_with_its_record(extras: bytes | None, is_second: bool, store: Store) -> None:
    if is_second:
        store_clip(store, attempt(b"before", b"others"))
    stored = worked(store, attempt(b"clip", extras))
    found = adoption(store)
    taken = found.take(ROW_ID, REQUEST)
    assert taken is not None
    as_stored: dict[str, Any] = {name: getattr(stored, name) for name in ("finished_at", "write_s")}
    assert replace(taken.record, **as_stored) == replace(stored, model="m")
    assert found.take(ROW_ID, REQUEST) is None


DAMAGES: dict[str, Callable[[Store], None]] = {
    "truncated": lambda store: store.write(clip_path(ROW_ID, ".mp4"), b"cli"),
    "flipped": lambda store: store.write(clip_path(ROW_ID, ".mp4"), b"clop"),
    "removed": lambda store: store.delete(clip_path(ROW_ID, ".mp4")),
    "without arrays": lambda store: store.delete(extras_path(ROW_ID)),
    "taken back": lambda store: disown(store, [intent.path for intent in intents_in(store)]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_clip_damaged_or_taken_back_is_not_adopted(damage: Callable[[Store], None], store: Store) -> None:
    worked(store, attempt(b"clip", b"arrays"))
    damage(store)
    assert adoption(store).take(ROW_ID, REQUEST) is None


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another row": lambda said: said["record"].update(row_id="1" * 32),
    "a row_id that is none": lambda said: said["record"].update(row_id="../../x"),
    "another digest": lambda said: said["record"].update(media_sha256="0" * 64),
    "a digest that is none": lambda said: said["record"].update(frames_sha256="x"),
    "no frames nor sound": lambda said: said["record"].update(frames_sha256=None),
    "another model": lambda said: said["record"].update(model_digest="0" * 64),
    "a number that no column holds": lambda said: said["record"].update(num_frames=2**64),
    "text that no column holds": lambda said: said["record"].update(node="\ud800"),
    "a time beyond all": lambda said: said["record"].update(started_at="99999-01-01T00:00:00Z"),
    "a text as number": lambda said: said["record"].update(seed="7"),
    "no record": lambda said: said.update(record=None),
    "nothing": lambda said: said.clear(),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_an_intent_of_others_is_not_adopted(change: Callable[[dict[str, Any]], Any], store: Store) -> None:
    path = path_of_intent(worked(store, attempt(b"clip")))
    said = json.loads(store.read(path))
    change(said)
    for content in (json.dumps(said).encode(), b"", b"[" * 100_000, b"\xff", b'{"record": {}}', b"1" * 5_000):
        store.write(path, content)
        assert adoption(store).take(ROW_ID, REQUEST) is None


def test_what_the_table_says_is_not_taken_from_an_intent(store: Store) -> None:
    worked(store, attempt(b"clip"))
    taken = adoption(store).take(ROW_ID, replace(REQUEST, seed=3))
    assert taken is not None
    assert (taken.record.seed, taken.record.arguments) == (3, '{"prompt":"一只猫"}')


@pytest.mark.parametrize("was_batched", [False, True])
@pytest.mark.parametrize("is_noted", [False, True], ids=["of this run", "of an earlier run"])
def test_rows_of_an_inexact_kind_are_not_adopted(was_batched: bool, is_noted: bool, store: Store) -> None:
    worked(store, attempt(b"clip"), was_batched=was_batched)
    if is_noted:
        note_apart(store, kind_of(REQUEST))
    found = adoption(store)
    if not is_noted:
        found.refuse(kind_of(REQUEST))
    assert (found.take(ROW_ID, REQUEST) is None) == was_batched


def test_what_other_attempts_left_at_a_row_with_a_record_is_swept(store: Store) -> None:
    first, second, third = (worked(store, attempt(content, content)) for content in (b"1", b"2", b"3"))
    commit(store, second)
    swept(store)
    assert (store.list("clips"), store.list("extras")) == ([second.path], [second.extra_outputs_path])
    assert store.list("pending") == []
    assert None not in (first.path, third.path)


def test_what_rows_without_a_record_have_is_left_alone(store: Store) -> None:
    mine, other = worked(store, attempt(b"1")), worked(store, attempt(b"2", row_id="1" * 32))
    commit(store, mine)
    swept(store)
    assert store.list("clips") == sorted(str(one.path) for one in (mine, other))
    assert store.list("pending") == [path_of_intent(other)]


def test_a_clip_that_lost_its_record_is_swept_only_when_another_is_in_its_place(store: Store) -> None:
    wrong = worked(store, attempt(b"wrong"))
    disown(store, [intent_path(ROW_ID, wrong.media_sha256, None)])
    swept(store)
    assert store.list("clips") == [wrong.path]
    right = worked(store, attempt(b"right"))
    commit(store, right)
    swept(store)
    assert store.list("clips") == [right.path]


def test_other_files_among_intents_are_left_alone(store: Store) -> None:
    store.write("pending/README", b"")
    store.write(f"pending/{ROW_ID}.json", b"{}")
    assert intents_in(store) == []
    assert record(1).path is None


def test_an_adopted_clip_keeps_its_scores(store: Store) -> None:
    encoded, scores = attempt(b"a clip"), {"sharpness": 0.5, "is_black": False, "motion": None}
    announce(store, encoded.record, was_batched=False, values=scores)
    store_clip(store, encoded)
    adopted = adoption(store).take(ROW_ID, REQUEST)
    assert adopted is not None
    assert adopted.added.values == scores
