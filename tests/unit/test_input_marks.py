"""What a row starts from keeps its marks: they are read while its clip is stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from queue import Queue

import numpy as np

from framefleet import Batching, Inputs, Request, Store
from framefleet.cluster.worker.messages import Failed, StoredRow, WorkerSetup
from framefleet.cluster.worker.queues import Writers
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.plugins.marks.manifest import open_signing
from framefleet.plugins.marks.manifest_reader import read_manifest
from framefleet.plugins.marks.settings import ClipMarks, Provider, Signing, Watermark
from framefleet.plugins.marks.step import MarkStep
from tests.certificates import issue
from tests.unit.test_encode_clip import CLIP
from tests.unit.test_watermark import scene

PARENT = "cd" * 16


def marked_picture(folder: Path) -> bytes:
    """Return a picture that another job made, with every mark."""
    certificate, key = issue(folder, name="parent")
    signing = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
    marks = ClipMarks(
        sign=signing, provider=Provider(name="Parents"), watermarks=(Watermark(name="spread"),), label=True
    )
    clip = replace(CLIP, row_id=PARENT, pixels=to_pixels(scene(1)))
    return encode_clip(clip, Media(format="png"), [MarkStep(marks=marks)]).content


def stored(folder: Path, marks: ClipMarks, *, sha256: str, uri: str) -> StoredRow | Failed:
    setup = WorkerSetup(
        model=ModelSettings(path="none"),
        batching=Batching(),
        media=Media(format="png"),
        steps={"marks": MarkStep(marks=marks)} if marks else {},
        store=Store(str(folder / "out")),
        recipes={},
        inputs=Inputs([str(folder)]),
    )
    news: Queue[StoredRow | Failed] = Queue()
    writers = Writers(setup, news.put)
    writers.start()
    request = Request(arguments={"prompt": "x", "image": {"uri": uri, "sha256": sha256}})
    pixels = to_pixels(np.zeros((1, 16, 16, 3), np.uint8))
    writers.put(replace(CLIP, model_digest="0" * 64, request=request, pixels=pixels), attempt=1)
    return news.get(timeout=60)


def test_marks_of_a_picture_are_in_the_record_and_its_manifest_in_the_clip(tmp_path: Path) -> None:
    (picture := tmp_path / "start.png").write_bytes(content := marked_picture(tmp_path))
    certificate, key = issue(tmp_path)
    signing = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
    sha256 = hashlib.sha256(content).hexdigest()
    news = stored(tmp_path, ClipMarks(sign=signing), sha256=sha256, uri=str(picture))
    assert isinstance(news, StoredRow), news
    [said] = json.loads(str(news.added.values["marks"]))["inputs"]
    assert (said["argument"], said["sha256"], said["c2pa"]["state"]) == ("image", sha256, "intact")
    assert said["c2pa"]["source_type"].endswith("trainedAlgorithmicMedia")
    assert said["label"]["aigc"]["ContentProducer"] == "Parents"
    assert said["watermarks"] == [{"name": "spread", "row_id": PARENT[:12]}]
    found = read_manifest((tmp_path / "out" / (news.record.path or "")).read_bytes())
    assert found is not None
    assert (found.state, found.ingredients) == ("intact", ("start.png",))
    assert found.clip["inputs"] == [said]
    # A file that has changed fails the row, unless its marks are not read.
    plain = stored(tmp_path, ClipMarks(), sha256="0" * 64, uri=str(picture))
    assert isinstance(plain, StoredRow) and plain.added.values == {}
    labelled = ClipMarks(label=True, provider=Provider(name="Example"))
    failed = stored(tmp_path, labelled, sha256="0" * 64, uri=str(picture))
    assert isinstance(failed, Failed) and "the file has changed since the row was checked" in failed.message
