"""`python -m pytest -p tests.standin.plugin tests/gpu`: tests of the GPU over the stand-in."""

from __future__ import annotations

import pytest

from tests.standin.install import install

# Tests that say nothing here, and why.
NOT_HERE = {
    "test_a_gpu_that_still_works_is_not_idle": "it computes for a second of a real GPU",
    "test_the_decoders_memory_may_be_used_again_at_once": "it copies for long on a real GPU",
    "test_a_script_in_another_process_renders_the_same_frames": "Ray finds no GPU to give to workers",
    "test_components_take_turns_on_the_gpu": "a parameter cannot change its device here",
    "test_groups_of_blocks_come_and_go": "a parameter cannot change its device here",
}

install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for test in items:
        if why := NOT_HERE.get(test.originalname if isinstance(test, pytest.Function) else test.name):
            test.add_marker(pytest.mark.skip(reason=why))
