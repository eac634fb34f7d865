"""A row equals a plain call, fails with a reason, or follows one of its recipe that left something behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest

from tests.long import long_but
from tests.warm.process import start
from tools.odd_recipes.cases import CASES

# One recipe of each kind.
SHORT = (
    *("adapters.loaded_and_unloaded", "patches.class_left_patched", "networks.copied"),
    *("adapters.scaled_by_row", "adapters.weight_changed_on_the_way", "patches.scheduler_class"),
    *("hooks.on_a_layer_of_the_encoder", "hooks.on_the_second_encoder"),
    *("weights.encoder_whose_outputs_are_kept", "weights.submodule_replaced", "modes.autocast"),
    *("calls.early_stop", "loops.all_timesteps_at_once", "loops.other_weights_for_a_forward"),
    *("processes.event_loop", "processes.operations_counted", "processes.classes_changed"),
    "keeps.generators_of_the_module",
)


@pytest.mark.parametrize("name", long_but(CASES, *SHORT))
def test_rows_of_an_odd_recipe_equal_plain_calls_or_say_why_not(name: str) -> None:
    process = start("-m", "tools.odd_recipes", "--json", name, stderr=subprocess.PIPE)
    try:
        printed, errors = process.communicate(timeout=280)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # forks that are still rendering, after a timeout
    assert printed, errors
    assert json.loads(printed)["complaints"] == [], printed
