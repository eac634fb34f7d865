"""What the driver checks of a worker before it gets rows; no Ray is started."""

from __future__ import annotations

import dataclasses

import pytest

import framefleet
from framefleet.cluster.connection import connect
from framefleet.cluster.fleet import check_hello
from framefleet.cluster.messages import Hello
from framefleet.cluster.ship import modules_to_ship
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.recipes.recipe import BUILT_IN, find_recipe
from tests.jobs import ROOT

HELLO = Hello(
    version=framefleet.__version__,
    fingerprint=source_fingerprint(),
    model_digest="",
    environment={},
    node="elsewhere",
    pid=1,
)


def test_a_worker_of_the_same_build_is_welcome() -> None:
    check_hello("worker-0", HELLO)


@pytest.mark.parametrize("change", [{"version": "0.0.1"}, {"fingerprint": "another"}])
def test_a_worker_of_another_build_is_refused_with_the_fix(change: dict[str, str]) -> None:
    with pytest.raises(FleetError, match="worker-0 on elsewhere runs framefleet") as refusal:
        check_hello("worker-0", dataclasses.replace(HELLO, **change))  # type: ignore[arg-type]
    assert "install the same version" in refusal.value.fix


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with pytest.raises(FleetError, match="no Ray cluster answers"), connect("127.0.0.1:1", num_cpus=1):
        pass


def test_the_users_own_module_is_brought_to_the_workers_and_ours_is_not() -> None:
    own = find_recipe("tests.faults:raises")
    assert modules_to_ship([own, BUILT_IN["generate"]]) == [str(ROOT / "tests")]
