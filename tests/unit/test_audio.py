"""Sound as recipes return it: one shape, one digest, one rate; what is not one sound is refused."""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256, sample_rate_of, to_audio
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

FLOATS = np.random.default_rng(0).uniform(-1, 1, (2, 500)).astype(np.float32)


@pytest.mark.parametrize("wrapped", [lambda samples: [samples], torch.from_numpy, np.asarray])
@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_sound_may_come_in_many_wrappings(
    wrapped: Callable[[np.ndarray], Any], is_batch: bool, num_channels: int
) -> None:
    samples = FLOATS[:num_channels]
    audio = to_audio(wrapped(samples[None] if is_batch else samples), 8000)
    assert np.array_equal(audio.samples, samples)
    assert (audio.num_channels, audio.duration_s) == (num_channels, 500 / 8000)
    assert to_audio(FLOATS[0], 8000).num_channels == 1


@pytest.mark.parametrize(
    ("value", "rate", "said"),
    [
        (np.stack([FLOATS, FLOATS]), 8000, r"\(2, 2, 500\)"),
        (np.zeros((3, 500), np.float32), 8000, r"\(3, 500\)"),
        (FLOATS[:, :0], 8000, r"\(2, 0\)"),
        (np.zeros((2, 500), np.int16), 8000, "not one of floats"),
        ("a.wav", 8000, "type str"),
        (FLOATS * np.nan, 8000, "NaN"),
        (FLOATS, None, "rate of None"),
        (FLOATS, 0, "rate of 0"),
        (FLOATS, 44_100.0, "rate of 44100.0"),
    ],
)
def test_what_is_not_one_sound_is_refused(value: Any, rate: Any, said: str) -> None:
    with pytest.raises(RenderError, match=said) as caught:
        to_audio(value, rate)
    assert caught.value.fix


def test_what_is_louder_than_full_scale_is_cut_to_it() -> None:
    audio = Audio(samples=np.array([[0, 1, 2, -2, 0.5]], np.float32), sample_rate=8000)
    assert audio.pcm()[:, 0].tolist() == [0, 32767, 32767, -32767, 16384]


def test_the_digest_is_over_a_line_and_the_data_of_a_wav_file() -> None:
    audio = to_audio(FLOATS, 8000)
    wav = encode(None, media=Media(format="wav"), fps=1, metadata={}, audio=audio)
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        found = hashlib.sha256(b"int16 500x2 8000\n" + file.readframes(500)).hexdigest()
    assert found == audio_sha256(audio)


def part(**config: Any) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("components", "rate"),
    [
        # LTX-2: spectra of 16 kHz, a vocoder that makes 24 kHz of them
        ({"audio_vae": part(sample_rate=16_000), "vocoder": part(output_sampling_rate=24_000)}, 24_000),
        # Kandinsky 6: its vocoder says nothing
        ({"vae": part(), "audio_vae": part(sample_rate=44_100), "vocoder": part()}, 44_100),
        # AudioLDM2: what listens has a rate too
        ({"feature_extractor": part(sampling_rate=48_000), "vocoder": part(sampling_rate=16_000)}, 16_000),
        ({"vae": part(sampling_rate=44_100), "tokenizer": object()}, 44_100),
        ({"vae": part(), "sound_tokenizer": part(sampling_rate=48_000)}, 48_000),
        ({"vae": part(), "scheduler": part()}, None),
    ],
)
def test_the_rate_is_that_of_what_makes_the_samples(components: dict[str, Any], rate: int | None) -> None:
    assert sample_rate_of(components) == rate
