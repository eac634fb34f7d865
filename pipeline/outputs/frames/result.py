"""In: whatever a recipe returned. Out: everything in it: frames, sound, and other arrays and values.

Sound has samples, a rate and a digest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import TypeAdapter

from framefleet.pipeline.errors import RenderError, names_text
from framefleet.pipeline.guards.json_text import canonical_json, parse_object
from framefleet.pipeline.outputs.frames.fields import IMAGES, MAPS, PICTURES, SOUND
from framefleet.pipeline.outputs.frames.frames import Pictures, Pixels, to_pixels

Pcm: TypeAlias = npt.NDArray[np.int16]  # (samples, channels), C-contiguous: as the data of a wav file

_MAX_CHANNELS = 2  # layouts with more have names, which outputs do not say
_MAX_RATE = 655_350  # of FLAC


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    samples: npt.NDArray[np.float32]  # (channels, samples), in [-1, 1]
    sample_rate: int  # in Hz

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def duration_s(self) -> float:
        return float(self.samples.shape[1] / self.sample_rate)

    def pcm(self) -> Pcm:
        """Return 16-bit PCM: `(clip(x, -1, 1) * 32767).round()`, little-endian, channels side by side."""
        scaled = (self.samples.T.clip(-1, 1) * np.float32(32767)).round()
        return np.ascontiguousarray(scaled.astype("<i2"))


def to_audio(value: Any, sample_rate: Any) -> Audio:
    """Return the one sound in `value`: floats (channels, samples) or (samples,). Raises RenderError."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if hasattr(value, "detach"):  # a torch tensor; torch itself need not be imported here
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value) if isinstance(value, np.ndarray) else np.empty(0, dtype=object)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    samples = array[None] if array.ndim == 1 else array
    is_sound = samples.ndim == 2 and np.issubdtype(samples.dtype, np.floating)
    if not is_sound or not 1 <= samples.shape[0] <= _MAX_CHANNELS or not samples.shape[1]:
        raise RenderError(
            f"the recipe returned sound of type {type(value).__name__} and shape {array.shape}, "
            "not one of floats (channels, samples)",
            "return one or two channels of one sound; use one row per seed",
        )
    if not np.isfinite(samples).all():
        raise RenderError("the sound contains NaN or infinity", "use dtype bf16 or fp32: fp16 overflows")
    if isinstance(sample_rate, np.integer):
        sample_rate = int(sample_rate)
    if type(sample_rate) is not int or not 1 <= sample_rate <= _MAX_RATE:
        fix = f"return `sample_rate` with it, a whole number of Hz up to {_MAX_RATE}, if no component has one"
        raise RenderError(f"the recipe returned sound with a rate of {sample_rate!r}", fix)
    return Audio(samples=np.ascontiguousarray(samples, dtype=np.float32), sample_rate=sample_rate)


def audio_sha256(audio: Audio) -> str:
    """Return SHA-256 over the ASCII line `int16 SAMPLESxCHANNELS RATE\\n`, then the bytes of `pcm`."""
    num_channels, num_samples = audio.samples.shape
    digest = hashlib.sha256(f"int16 {num_samples}x{num_channels} {audio.sample_rate}\n".encode("ascii"))
    digest.update(audio.pcm().data)
    return digest.hexdigest()


def sample_rate_of(components: Any) -> int | None:
    """Return the sample rate of a pipeline's sound, by its components; None if none of them has one.

    If there is a vocoder, which makes samples from a spectrum, its rate counts: an autoencoder of spectra,
    such as LTX-2's, has another rate.
    """
    order = ("vocoder", "audio_vae", "sound_tokenizer", "vae")
    for name in [*(name for name in order if name in components), *sorted({*components} - {*order})]:
        config = getattr(components[name], "config", None)
        for key in ("output_sampling_rate", "sampling_rate", "sample_rate"):
            rate = getattr(config, key, None)
            if isinstance(rate, int):
                return rate
    return None


WRITTEN_PROMPT = "written_prompt"  # by an enhancer or an upsampler: what the text encoders then read
_FIRST_KEPT = ("latents", "log_probs")
KEPT = "kept"  # what is kept of the steps, as the job asked for it
_MAX_JSON_BYTES = 1 << 18  # of small values: records travel to the driver, and are kept side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSteps:
    """What is kept of a row's steps."""

    # Numbers of steps: 0 is the noise that the first one gets, 1 what it returns, -1 what the last returns.
    latents: tuple[int, ...] | Literal["all"] = ()
    log_probs: bool = False  # of each step
    sigmas: bool = False  # of the noise scheduler
    text_embeddings: bool = False  # what `encode_prompt` of the pipeline returned

    def __bool__(self) -> bool:
        return self != KeptSteps()

    def values(self) -> dict[str, Any]:
        """Return it as records have it; those of version 0.1.0 only have two of the values."""
        return {name: value for name, value in asdict(self).items() if value or name in _FIRST_KEPT}


_KEPT = TypeAdapter(KeptSteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Other outputs of one row, by name."""

    arrays: Mapping[str, Any] = field(default_factory=dict)  # torch tensors on the CPU
    values: Mapping[str, Any] = field(default_factory=dict)  # JSON values

    def json(self) -> str | None:
        """Return the values as canonical JSON; None if there are none."""
        return _escaped(canonical_json(dict(self.values))) if self.values else None

    def file(self) -> bytes | None:
        """Return the arrays as a safetensors file, equal for equal arrays; None if there are none."""
        if not self.arrays:
            return None
        from safetensors.torch import save

        return save({_escaped(name): array for name, array in self.arrays.items()})


def _escaped(text: str) -> str:
    """Return text with its lone surrogates spelled out as in JSON, e.g. `\\ud800`: UTF-8 has none."""
    return text.encode("utf-8", "backslashreplace").decode()


def kept_in(extra_outputs: str | None) -> KeptSteps:
    """Return what is kept of a row's steps, by the text in its record; nothing if that is not ours."""
    try:
        return _KEPT.validate_python(parse_object(extra_outputs or "").get(KEPT, {}))
    except ValueError:
        return KeptSteps()


def to_extras(fields: Mapping[str, Any]) -> Extras:
    """Sort the fields of an output into arrays and JSON values; None is left out.

    Tensors, arrays and images are arrays; in lists and mappings, they are called field.0, field.key. Raises
    RenderError for anything else that is not a JSON value, and for two arrays with one name.
    """
    arrays: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if _is_plain(value):
            values[name] = value
        else:
            arrays = unite_outputs(arrays, _named_arrays(name, value))
    extras = Extras(arrays=arrays, values=values)
    if len((extras.json() or "").encode()) > _MAX_JSON_BYTES:
        raise RenderError(
            f"the other outputs of this row, {', '.join(values)}, have more than {_MAX_JSON_BYTES:,} bytes",
            "return numbers as an array or a tensor, which goes into a file",
        )
    return extras


def unite_outputs(*outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of these outputs. Raises RenderError if two have the same name."""
    counts = Counter(chain.from_iterable(outputs))
    if doubles := [name for name, count in counts.items() if count > 1]:
        problem = f"two outputs of this row have the same name: {names_text(doubles)}"
        raise RenderError(problem, "have the recipe return them under other names")
    return dict(chain.from_iterable(named.items() for named in outputs))


def _is_plain(value: Any) -> bool:
    """Return whether a value is one of JSON, without NaN and infinity."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return bool(np.isfinite(value))
    return value is None or isinstance(value, str | int)


def _named_arrays(name: str, value: Any) -> dict[str, Any]:
    import torch

    if isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        return unite_outputs(*(_named_arrays(f"{name}.{key}", part) for key, part in parts))

    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic | int | float) and np.asarray(value).dtype.kind in "biuf":
        value = torch.from_numpy(np.array(value))
    if isinstance(value, torch.Tensor) and not value.is_complex():
        # A copy: safetensors refuses two names for one memory, and the row's own is not kept alive.
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)}
    problem = f"the recipe returned {name} as {type(value).__name__}, which cannot be stored with the clip"
    raise RenderError(problem, "return arrays, text or numbers; or leave it out in a recipe of your own")


RATES = ("sample_rate", "sampling_rate")  # a recipe, or a pipeline, may return one with sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    pixels: Pixels | None = None  # None: sound alone
    audio: Audio | None = None  # None: there is none
    extras: Extras = field(default_factory=Extras)

    @property
    def frames(self) -> Pictures | None:
        """Wait for the frames. Raises RenderError for those that cannot be kept."""
        return self.pixels.frames if self.pixels else None


def to_rendered(output: Any, pipe: Any) -> Rendered:
    """Return everything in `output`; nothing is dropped.

    output: an output of diffusers, or a mapping with fields of the same names, or the frames themselves.
    pipe: the pipeline that made it, whose components have the rate of its sound. Raises RenderError for what
    cannot be stored.
    """
    if isinstance(output, Rendered):
        return output
    fields = {name: value for name, value in _fields(output).items() if value is not None}
    pictures, sound, map_name = _one_of(PICTURES, fields), _one_of(SOUND, fields), _one_of(MAPS, fields)
    pixels = None
    if pictures is not None:
        # Text2Video-Zero calls its frames images.
        are_images = pictures in IMAGES and "Video" not in type(output).__name__
        pixels = to_pixels(fields[pictures], are_images=are_images)
    elif map_name is not None:
        pixels = map_pixels(map_name, fields[map_name], output)
    elif sound is None:
        raise RenderError(
            f"the recipe returned {', '.join(fields) or 'nothing'}: neither frames nor sound",
            f"return frames as one of {', '.join(PICTURES)}, or sound as one of {', '.join(SOUND)}",
        )
    audio = None
    if sound is not None:
        rates = [fields.pop(name, None) for name in RATES]
        rate = next(filter(None, rates), None) or sample_rate_of(pipe.components)
        audio = to_audio(fields[sound], rate)
    others = {name: value for name, value in fields.items() if name not in (pictures, sound)}
    return Rendered(pixels=pixels, audio=audio, extras=to_extras(others))


def has_sound(output: Any) -> bool:
    fields = _fields(output)
    return any(fields.get(name) is not None for name in SOUND)


def _fields(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):  # as diffusers' outputs are
        return dict(output)
    if any(hasattr(output, name) for name in (*PICTURES, *SOUND, *MAPS)):
        return dict(vars(output))
    return {"frames": output}


def _one_of(names: tuple[str, ...], fields: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in fields), None)


def map_pixels(name: str, value: Any, output: object) -> Pixels:
    """Return a picture of the first map in `value`: one channel is grey, normals are (x + 1) / 2.

    name: of its field. output: its class says what a `prediction` is. Values outside [0, 1] stay as they are,
    as in frames. The map itself is stored next to the clip (`Extras`). Raises RenderError if there is no
    picture of it.
    """
    array = _first(value)
    if np.issubdtype(array.dtype, np.integer):
        array = array / np.float32(np.iinfo(array.dtype).max)
    if "normals" in f"{name} {type(output).__name__}".lower():
        array = (array + 1) / 2  # vectors of length one, as diffusers' visualize_normals shows them
    return to_pixels(array)


def _first(value: Any) -> npt.NDArray[Any]:
    """Return one map of any nesting as (H, W, 3)."""
    if isinstance(value, list | tuple) and value:
        return _first(value[0])
    if hasattr(value, "detach"):  # a torch tensor, channels first
        value = np.moveaxis(value.detach().float().cpu().numpy(), -3, -1)
    array = np.asarray(value)
    while array.ndim > 3:
        array = array[0]
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[-1] not in (1, 3):
        array = array[0]  # (1, H, W), a batch of one without channels
    array = array[..., None] if array.ndim == 2 else array
    return np.repeat(array, 3, axis=-1) if array.shape[-1:] == (1,) else array
