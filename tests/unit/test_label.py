"""The label in a file's metadata: where the guides want it, once, and found again in anybody's file."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from framefleet import JobError, Store
from framefleet.api.clips import Audio, decode, decode_audio, read_metadata
from framefleet.pipeline.outputs.encode_clip import encode_clip, store_clip
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.media.media_settings import SOUNDS, Media
from framefleet.pipeline.outputs.parts.records import values_of
from framefleet.plugins.keep.damage import ClipIndex, damaged_records, strays
from framefleet.plugins.marks.label import aigc_label, label_in, xmp_packet
from framefleet.plugins.marks.settings import LABELLED, ClipMarks, Provider
from framefleet.plugins.marks.step import MarkStep
from tests.unit.test_encode_clip import CLIP, FRAMES

PROVIDER = Provider(name="Example Ltd", code="001191110102MACQD9K64010000", system="Painter <1>")
MARKS = ClipMarks(provider=PROVIDER, label=True)
STEP = MarkStep(marks=MARKS)
STILL = replace(CLIP, pixels=to_pixels(FRAMES[:1]))
SOUND = replace(CLIP, pixels=None, audio=Audio(samples=np.zeros((1, 801), np.float32), sample_rate=8000))


def labelled(format: str, step: MarkStep = STEP) -> bytes:
    clip = SOUND if format in SOUNDS else STILL
    media = Media(format=format)  # type: ignore[arg-type]
    content = encode_clip(clip, media, [step]).content
    assert content == encode_clip(clip, media, [step]).content
    return content


@pytest.mark.parametrize("format", LABELLED)
def test_a_file_says_once_that_it_was_generated_and_by_whom(format: str) -> None:
    content = labelled(format)
    found = label_in(content)
    assert found is not None
    fields = dict(found.aigc)
    said = fields["Label"], fields["ContentProducer"], fields["ProduceID"]
    assert said == ("1", PROVIDER.code, CLIP.row_id)
    assert content.count(b"ProduceID") == 1
    assert found.source_type == (None if format == "flac" else "trainedAlgorithmicMedia")
    if format in SOUNDS:
        assert decode_audio(content) is not None
    else:
        decode(content)
    assert read_metadata(content)["row_id"] == CLIP.row_id


@pytest.mark.parametrize("code", ["Acme}", "{Acme}{", "x&lt", "A&quot;B", "A'<B>&amp;"])
@pytest.mark.parametrize("format", ["mp4", "png", "wav"])
def test_any_code_of_a_provider_is_read_back(format: str, code: str) -> None:
    marks = ClipMarks(provider=Provider(name="Example Ltd", code=code), label=True)
    found = label_in(labelled(format, MarkStep(marks=marks)))
    assert found is not None and dict(found.aigc)["ContentProducer"] == code


def test_labels_lie_where_the_guides_have_them() -> None:
    with av.open(io.BytesIO(labelled("mp4"))) as container:  # moov.udta.meta.keys, PG-20257A
        assert json.loads(container.metadata["AIGC"])["Label"] == "1"
    mp4 = labelled("mp4")
    assert mp4.index(b"udta") < mp4.index(b"keys") < mp4.index(b"AIGC") < mp4.index(b"ilst")
    with av.open(io.BytesIO(labelled("flac"))) as container:  # a Vorbis comment, PG-202510A
        assert "AIGC" in container.metadata
    wav = labelled("wav")
    at = wav.index(b"AIGC")  # a chunk of its own
    assert json.loads(wav[at + 8 : at + 8 + int.from_bytes(wav[at + 4 : at + 8], "little")])["Label"] == "1"
    assert int.from_bytes(wav[4:8], "little") == len(wav) - 8
    for format in ("png", "webp"):  # an XMP packet, PG-20259A
        with Image.open(io.BytesIO(labelled(format))) as image:
            packet = image.info["xmp"]
        text = packet if isinstance(packet, str) else packet.decode()
        said = {one.tag.partition("}")[2]: one.text or "" for one in ElementTree.fromstring(text).iter()}
        assert json.loads(said["AIGC"])["ProduceID"] == CLIP.row_id
        assert said["AISystemUsed"] == "Painter <1>"


def test_formats_without_a_place_have_a_file_next_to_them(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    encoded = encode_clip(replace(CLIP, model_digest="0" * 64), Media(format="mkv"), [STEP])
    record = store_clip(store, encoded)
    assert label_in(encoded.content) is None
    beside = label_in(store.read(f"{record.path}.xmp"))
    assert beside is not None
    assert dict(beside.aigc)["ProduceID"] == CLIP.row_id
    index = ClipIndex()
    index.add("part", [(values_of(record), True)])
    assert list(strays(store, index)) == list(damaged_records(store, index, lambda _: None)) == []


def test_a_label_needs_a_provider_that_it_can_name() -> None:
    ClipMarks(label=True, provider=Provider(name="Example"))
    for given, problem in (
        ({}, r"set marks\.provider\.name"),
        (
            {"provider": Provider(name="Example Ltd")},
            r"cannot contain 'Example Ltd'(.|\n)*marks\.provider\.code",
        ),
    ):
        with pytest.raises(JobError, match=problem):
            ClipMarks(label=True, **given)


def test_labels_of_others_are_read_and_nothing_is_made_of_noise() -> None:
    ours = xmp_packet(PROVIDER, CLIP.row_id)
    bare = aigc_label(PROVIDER, CLIP.row_id).encode()
    wrapped = b'\xff\xe1Exif{"AIGC":' + bare + b"}"
    attribute = b'<rdf:Description TC260:AIGC="' + bare.replace(b'"', b"&quot;") + b'" a="&quot;}"/>'
    in_xml = [ours.replace(b"&quot;", b"&#34;"), ours.replace(b"&quot;", b'"'), attribute]
    for content in (b"\0" * 99 + ours, bare, bare + b"\xff}", wrapped, *in_xml):
        found = label_in(content)
        assert found is not None
        assert dict(found.aigc)["Label"] == "1"
    noise = (
        b"",
        b"ContentProducer",
        b'{"ContentProducer": 1}',
        b"{" * 9000 + b"ContentProducer}",
        b'{"ContentProducer":' + b"[" * 9000,
        b'>{"ContentProducer":"\xff"}<',
        ours[:300],
    )
    for content in noise:
        assert not (found := label_in(content)) or not found.aigc
