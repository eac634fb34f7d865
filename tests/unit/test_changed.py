"""Which tests are near to a change: by imports, and by the names of files in their texts."""

from __future__ import annotations

import pytest

from tests.changed import EVERYWHERE, module_of, nearest_tests


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("cluster/dispatch/order.py", "framefleet.cluster.dispatch.order"),
        ("cluster/dispatch/__init__.py", "framefleet.cluster.dispatch"),
        ("plugins/pages/gallery/page/clip.js", "framefleet.plugins.pages.gallery.page"),
        ("tests/unit/test_order.py", "tests.unit.test_order"),
    ],
)
def test_a_file_is_of_a_module(path: str, module: str) -> None:
    assert module_of(path) == module


def test_the_test_of_a_file_is_the_nearest() -> None:
    near = nearest_tests(["cluster/dispatch/order.py"])
    assert {"tests/unit/test_order.py", "tests/property/test_dispatcher.py"} <= set(list(near)[:9])
    assert list(near.values()) == sorted(near.values())
    assert near["tests/unit/test_order.py"] == 1


def test_a_changed_test_is_run_itself() -> None:
    assert next(iter(nearest_tests(["tests/unit/test_order.py"]))) == "tests/unit/test_order.py"


@pytest.mark.parametrize(
    ("path", "test", "distance"),
    [
        ("plugins/ports/crafter/unet.py", "tests/periphery/models/test_crafter.py", 3),
        ("tests/crafter.py", "tests/periphery/models/test_crafter.py", 0),
        ("plugins/pages/gallery/page/clip.js", "tests/browser/test_gallery_page.py", 1),
        ("plugins/words/command.py", "tests/cluster/test_judge.py", 1),
        ("examples/tutorial.yaml", "tests/cluster/test_tutorial.py", 1),
        ("constraints.txt", "tests/cluster/test_kills.py", EVERYWHERE),
        (f"{'un'}known.bin", "tests/cluster/test_kills.py", EVERYWHERE),
        ("docs/tables.md", "tests/cluster/test_kills.py", None),
    ],
)
def test_a_test_is_as_near_as_what_it_and_its_helpers_import_or_name(
    path: str, test: str, distance: int | None
) -> None:
    assert nearest_tests([path]).get(test) == distance


def test_all_tests_are_concerned_where_nothing_says_what_changed() -> None:
    assert set(nearest_tests(None).values()) == {EVERYWHERE}
    assert nearest_tests([]) == {}
