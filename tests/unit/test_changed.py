"""Which tests are run for a change: the nearest by imports, and of the periphery those that it concerns."""

from __future__ import annotations

import pytest

from tests.changed import module_of, nearest_tests, periphery_is_concerned


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
    assert {"tests/unit/test_order.py", "tests/property/test_dispatcher.py"} <= set(list(near)[:3])
    assert list(near.values()) == sorted(near.values())
    assert near["tests/unit/test_order.py"] == 1


def test_a_changed_test_is_run_itself() -> None:
    assert next(iter(nearest_tests(["tests/unit/test_order.py"]))) == "tests/unit/test_order.py"


@pytest.mark.parametrize(
    ("changed", "is_concerned"),
    [
        (["docs/tables.md", "README.md", "tests/unit/test_order.py"], False),
        (["plugins/pages/report/charts.py", "pipeline/rows/tables/json_lines.py"], False),
        (["plugins/train/run.py"], True),
        (["pipeline/errors.py"], True),
        (["plugins/ports/crafter/unet.py"], True),
        (["tools/fuzz/case.py"], True),
        (["tests/crafter.py"], True),
        (["constraints.txt"], True),
        ([], False),
        (None, True),
    ],
)
def test_the_periphery_is_tested_where_something_that_it_imports_changed(
    changed: list[str] | None, is_concerned: bool
) -> None:
    assert periphery_is_concerned(changed) is is_concerned
