"""In: the bytes of a sound or a video. Out: how long its sound is, all of it decoded, within bounds."""

from __future__ import annotations

import io

import av

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.rows.inputs.file_kinds import file_kind
from framefleet.pipeline.rows.inputs.video_frames import CONTAINERS

MAX_SOUND_VALUES = (
    1 << 27
)  # samples of all channels: 23 minutes of stereo at 48 kHz, half a gigabyte as floats
DECODING_BYTES = 64 << 20  # of a few packets: nothing is kept
_OPTIONS = {"format_whitelist": f"{CONTAINERS},wav,mp3,flac,aac", "protocol_whitelist": "none"}


def num_samples(content: bytes) -> int:
    """Return how many samples each channel has; 0 where there is no sound track. Raises InputError."""
    check_is_sound(content)
    found = values = 0
    try:
        with av.open(io.BytesIO(content), "r", options=_OPTIONS, metadata_errors="ignore") as container:
            for frame in container.decode(container.streams.audio[0]) if container.streams.audio else ():
                found += frame.samples
                values += frame.samples * frame.layout.nb_channels
                if values > MAX_SOUND_VALUES:
                    raise InputError(f"its sound has more than {MAX_SOUND_VALUES:,} values", "cut it")
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise InputError("its sound cannot be decoded", "write it again, as wav, or as AAC in mp4") from error
    return found


def check_is_sound(content: bytes) -> None:
    """Raise InputError for what is neither a sound nor a video."""
    found = file_kind(content)
    if found is None or found.kind not in ("audio", "video"):
        raise InputError(f"it is {found}, not a sound" if found else "it is not a sound", "give a sound")
