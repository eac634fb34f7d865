"""From a job's sizes and a model's rules to the shapes of batches, and which one a video goes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.check import check_argument, check_frames
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.shape import SHAPE_ORDER, shape_text
from framefleet.pipeline.training.task import Bucket


def buckets_of(sizes: Sequence[Sequence[int]], spec: PipelineSpec) -> tuple[Bucket, ...]:
    """Return the buckets of `train.sizes`, or the one of the model's native size.

    Raises JobError for what the model does not render.
    """
    given = [Bucket(num_frames=t, height=h, width=w) for t, h, w in sizes] or [_native(spec)]
    for bucket in given:
        for name, refused in _problems(bucket, spec):
            raise JobError(
                f"train.sizes has [{bucket.num_frames}, {bucket.height}, {bucket.width}], "
                f"but {name} {getattr(bucket, name)} will not do: {refused.reason}",
                refused.fix,
            )
    return tuple(dict.fromkeys(given))


def choose_bucket(buckets: Sequence[Bucket], video: Described) -> Bucket | Refused:
    """Return the bucket that keeps most of a video which fills it, or why it fills none.

    Most: pixels of the bucket times the share of the picture that is left when its sides are cut off.
    """
    filled = [bucket for bucket in buckets if _fills(video, bucket)]
    if filled:
        return max(filled, key=lambda bucket: (_kept(bucket, video), bucket))
    return Refused(
        reason=f"it is {shape_text(video.num_frames, video.height, video.width)} ({SHAPE_ORDER}), and "
        f"{' or '.join(map(str, sorted(buckets)))} are trained on",
        fix=f"give a longer or larger one, or set train.sizes to [[{video.num_frames}, {video.height}, "
        f"{video.width}]] or less",
    )


def _native(spec: PipelineSpec) -> Bucket:
    arguments = spec.defaults()
    frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    height, width = arguments.get("height"), arguments.get("width")
    if spec.kind == "image":
        frames = 1
    if not (isinstance(frames, int) and isinstance(height, int) and isinstance(width, int)):
        raise JobError(
            f"{spec.class_name} of this model has no native size",
            "set `train: {sizes: [[num_frames, height, width]]}`",
        )
    return Bucket(num_frames=frames, height=height, width=width)


def _problems(bucket: Bucket, spec: PipelineSpec) -> Iterator[tuple[str, Refused]]:
    if spec.kind == "image" and bucket.num_frames != 1:
        yield "num_frames", Refused(reason=f"{spec.class_name} renders images", fix="use 1")
    asked = {"height": bucket.height, "width": bucket.width}
    for name, pixels in asked.items():
        found = check_argument(name, pixels, "int", spec)
        if isinstance(found, Refused):
            yield name, found
    frames = check_frames(bucket.num_frames, spec)
    if isinstance(frames, Refused):
        yield "num_frames", frames
    yield from ((name, refused) for name, refused in limits(spec, asked) if name in asked)


def _fills(video: Described, bucket: Bucket) -> bool:
    is_long = video.num_frames >= bucket.num_frames
    return is_long and video.height >= bucket.height and video.width >= bucket.width


def _kept(bucket: Bucket, video: Described) -> float:
    ratio = (video.width * bucket.height) / (video.height * bucket.width)
    return bucket.num_frames * bucket.height * bucket.width * min(ratio, 1 / ratio)
