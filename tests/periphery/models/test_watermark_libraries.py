"""Adapters of other libraries' watermarks over their own code, with small weights drawn at random.

Such weights mark nothing that could be found: shapes, repeatability and the way of a payload are what shows.
Run where the libraries are installed; none is needed for the other tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.plugins.marks.adapters import _trust_mark_network
from framefleet.plugins.marks.payload import payload_of, row_prefix
from framefleet.plugins.marks.settings import Watermark, WatermarkName, weights_digest
from framefleet.plugins.marks.watermark import mark_frames, mark_sound, watermarks_in

ROW_ID = "0123456789abcdef" * 2
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _drawn() -> None:
    torch.manual_seed(0)


def locked(name: WatermarkName, path: Path) -> Watermark:
    plain = Watermark(name=name, weights=str(path))
    return plain.model_copy(update={"digest": weights_digest(plain)})


def check_frames(watermark: Watermark) -> None:
    """Frames keep their shape and alpha, repeat, and can be read, if only as noise."""
    marked = mark_frames(FRAMES, [watermark], ROW_ID)
    assert marked.shape == FRAMES.shape
    assert marked.dtype == np.uint8
    assert np.array_equal(marked[..., 3], FRAMES[..., 3])
    assert not np.array_equal(marked, FRAMES)
    assert np.array_equal(mark_frames(FRAMES, [watermark], ROW_ID), marked)
    assert not np.array_equal(mark_frames(FRAMES, [watermark], "f" * 32), marked)
    assert mark_frames(FRAMES[:1, ..., :3], [watermark], ROW_ID).shape == (1, 64, 96, 3)
    assert len(list(watermarks_in([one[..., :3] for one in marked], None, [watermark]))) <= 1


def test_video_seal_marks_frames_with_its_own_networks(tmp_path: Path) -> None:
    videoseal = pytest.importorskip("videoseal")
    from omegaconf import OmegaConf
    from videoseal.augmentation.augmenter import get_dummy_augmenter
    from videoseal.models import Videoseal, build_embedder, build_extractor

    card = OmegaConf.load(Path(videoseal.__file__).parent / "cards" / "videoseal_1.0.yaml")
    args, embedder, extractor = card.args, card.embedder, card.extractor
    made = Videoseal(
        build_embedder(embedder.model, embedder.params, args.nbits, args.hidden_size_multiplier),
        build_extractor(extractor.model, extractor.params, args.img_size_proc, args.nbits),
        get_dummy_augmenter(),
    )
    weights = tmp_path / "y_256b_img.pth"
    torch.save({"model": made.state_dict(), "args": {"nbits": 256}}, weights)
    check_frames(locked("videoseal", weights))
    torch.save({"model": {}}, weights)
    with pytest.raises(ModelError, match="it lacks"):
        mark_frames(FRAMES, [locked("videoseal", weights)], ROW_ID)


def test_audio_seal_marks_sound_with_its_own_networks(tmp_path: Path) -> None:
    pytest.importorskip("audioseal")
    from audioseal import builder, loader

    for name, card, config, create in (
        ("generator", "audioseal_wm_16bits", builder.AudioSealWMConfig, builder.create_generator),
        ("detector", "audioseal_detector_16bits", builder.AudioSealDetectorConfig, builder.create_detector),
    ):
        own = dict(loader.load_local_model_config(card))
        network = create(loader.AudioSeal.parse_config(own, config_type=config, nbits=16))
        # As the authors' files call them.
        state = {key.replace(".inner_conv", ""): value for key, value in network.state_dict().items()}
        torch.save({"model": state}, tmp_path / f"{name}_base.pth")
    watermark = locked("audioseal", tmp_path)
    samples = np.random.default_rng(0).uniform(-0.2, 0.2, (2, 24_000)).astype(np.float32)
    audio = Audio(samples=samples, sample_rate=24_000)
    marked = mark_sound(audio, [watermark], ROW_ID)
    assert marked.samples.shape == samples.shape
    assert marked.samples.dtype == np.float32
    assert not np.array_equal(marked.samples, samples)
    assert np.array_equal(mark_sound(audio, [watermark], ROW_ID).samples, marked.samples)
    assert len(list(watermarks_in([], marked, [watermark]))) <= 1


def test_trust_mark_marks_frames_and_its_code_carries_the_payload(tmp_path: Path) -> None:
    pytest.importorskip("trustmark")
    from trustmark.datalayer import DataLayer

    for part in ("encoder", "decoder"):
        state = _trust_mark_network(part, "C").state_dict()
        torch.save({"state_dict": state, "global_step": 0, "epoch": 0}, tmp_path / f"{part}_C.ckpt")
    # Of another, whose targets would be imported and called: nobody reads it.
    config = "model: {target: os.system, params: {command: '${oc.create:{target: os.system}}'}}"
    (tmp_path / "trustmark_C.yaml").write_text(config)
    check_frames(locked("trustmark", tmp_path))
    code = DataLayer(100, False, 1)
    sent = code.encode_binary(["".join(map(str, payload_of(ROW_ID, 61)))])[0]
    sent[[3, 40, 70]] = 1 - sent[[3, 40, 70]]  # which it corrects
    read, is_there, _ = code.decode_bitstream(sent[None], MODE="binary")[0]
    assert is_there
    assert row_prefix(np.array([float(bit) for bit in read]) - 0.5) == ROW_ID[:11]
