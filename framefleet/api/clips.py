"""A clip: what was asked for, its frames and sound, its file, and what a plugin does while it is stored."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip as Clip, Outcome as Outcome
    from framefleet.pipeline.outputs.columns import ClipColumn as ClipColumn
    from framefleet.pipeline.outputs.file_step import FileStep as FileStep, StepInput as StepInput
    from framefleet.pipeline.outputs.frames.frames import (
        Frames as Frames,
        Pictures as Pictures,
        plain_frames as plain_frames,
    )
    from framefleet.pipeline.outputs.frames.result import Audio as Audio
    from framefleet.pipeline.outputs.media.av_file import open_media as open_media
    from framefleet.pipeline.outputs.media.media import (
        decode as decode,
        decode_audio as decode_audio,
        encode as encode,
        read_metadata as read_metadata,
    )
    from framefleet.pipeline.outputs.media.media_settings import Media as Media, MediaFormat as MediaFormat
    from framefleet.pipeline.request import (
        Request as Request,
        clip_fps as clip_fps,
        each_input as each_input,
        inputs_in as inputs_in,
        is_model as is_model,
    )
    from framefleet.pipeline.rows.inputs.access import Inputs as Inputs
    from framefleet.pipeline.rows.inputs.arguments import (
        ReadAhead as ReadAhead,
        open_arguments as open_arguments,
    )
    from framefleet.pipeline.rows.inputs.video_parts import input_cell as input_cell
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
