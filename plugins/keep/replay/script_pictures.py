"""Write the code with which a script opens, checks and crops a row's pictures, as workers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.api.clips import inputs_in
from framefleet.api.engines import open_image
from framefleet.api.errors import JobError
from framefleet.pipeline.model.specs.signature import PictureMode
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.arguments import checked_content
from framefleet.pipeline.rows.inputs.fit import fit_opened
from framefleet.plugins.keep.replay.recorded_row import Recorded

IMPORTS = "import io\n", "from PIL import Image, ImageOps\n"
FUNCTION = """
def picture(path, sha256, box=None):  # box: left, top, right, bottom; what it has beyond the picture is black
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        sys.exit(f"{{path}} is not the picture of the row")
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert({mode!r})
    return image.crop(box) if box else image

"""


class _Canvas:
    """Stands in for a picture in `fit_opened`, and remembers how it was cropped."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, (self.width, self.height) = size, size
        self.box: tuple[int, int, int, int] | None = None

    def crop(self, box: tuple[int, int, int, int]) -> _Canvas:
        self.box = box
        return self


def has_others(value: Any) -> bool:
    """Whether an argument has videos, sound or references."""
    return any({"kind", "num_frames"} & one.keys() for one in inputs_in(value))


def picture_calls(recorded: Recorded, mode: PictureMode) -> dict[str, str]:
    """Return the code of each argument that has pictures.

    Raises InputError for a picture that has changed, and JobError for one that is not in a folder.
    """
    arguments = recorded.request.arguments

    def canvas(name: str, one: Mapping[str, Any]) -> _Canvas:
        with naming(name, one["uri"]):
            return _Canvas(open_image(checked_content(one, recorded.inputs.read), mode=mode).size)

    def code(one: Mapping[str, Any], canvas: _Canvas) -> str:
        if "://" in (path := recorded.inputs.locate(one["uri"])):
            problem = f"a picture of row {recorded.record.row_id} is at {path}, and a script opens no URLs"
            raise JobError(problem, "use `framefleet replay` without --script")
        return f"picture({path!r}, {one['sha256']!r}" + (f", {canvas.box})" if canvas.box else ")")

    pictures = {name: inputs for name, value in arguments.items() if (inputs := inputs_in(value))}
    canvases = {name: [canvas(name, one) for one in inputs] for name, inputs in pictures.items()}
    are_lists = {name: isinstance(arguments[name], list) for name in pictures}
    opened = {name: some if are_lists[name] else some[0] for name, some in canvases.items()}
    fit_opened(arguments, {**arguments, **opened})
    codes = {name: [*map(code, inputs, canvases[name])] for name, inputs in pictures.items()}
    return {name: f"[{', '.join(some)}]" if are_lists[name] else some[0] for name, some in codes.items()}
