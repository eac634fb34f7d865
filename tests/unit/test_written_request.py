"""Requests written by hand, resolved by the same checks as a table's rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from framefleet import Request, TableError
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.request_checks import checked
from tests.configs import SD, WAN, write_model


class Anything:
    """A finder of whatever it is asked for."""

    uri, sha256, num_frames, first_frame, height, width = "a.png", "aa", 1, None, 8, 8

    def prefetch(self, wanted: Iterable[Any]) -> None:
        pass

    def locate(self, uri: str) -> str:
        return uri

    def find(self, uri: str, kind: str) -> Anything:
        return self


@pytest.mark.parametrize(
    ("class_name", "configs", "arguments", "fps"),
    [
        ("WanPipeline", WAN, {"prompt": "a"}, "none"),
        ("StableVideoDiffusionPipeline", SD, {"image": "a.png", "fps": 6}, 6),  # which it has for itself
    ],
)
def test_the_rate_of_a_request_is_that_of_its_clip(
    tmp_path: Path, class_name: str, configs: Any, arguments: dict[str, Any], fps: object
) -> None:
    spec = inspect_model(write_model(tmp_path, class_name, configs))
    found = checked(Request(arguments=arguments, fps=12), spec, BUILT_IN["generate"], finder=Anything())
    assert (found.arguments.get("fps", "none"), found.fps) == (fps, 12)


def test_a_path_object_is_a_path_and_other_objects_are_refused(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "WanImageToVideoPipeline", WAN))
    arguments = {"prompt": "a", "image": Path("a.png")}
    found = checked(Request(arguments=arguments), spec, BUILT_IN["generate"], finder=Anything())
    assert found.arguments["image"]["uri"] == "a.png"
    with pytest.raises(TableError, match="request 3: image is of type object") as caught:
        opened = Request(arguments=arguments | {"image": object()})
        checked(opened, spec, BUILT_IN["generate"], finder=Anything(), index=3)
    assert "path or URL" in caught.value.fix
