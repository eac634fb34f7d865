"""What docs/compared.md says of scripts and of framefleet, by the program that writes its table."""

from __future__ import annotations

import pytest

from tools.benchmarks.compared import outcomes

REFUSED, MIXED = "exit 2, 3 of 6 done", "exit 0, 6 of 6 done"


@pytest.mark.timeout(600)
def test_changed_weights_are_mixed_by_scripts_and_refused_by_framefleet() -> None:
    assert dict(outcomes("weights")) == {"Ray Data": MIXED, "accelerate": MIXED, "framefleet": REFUSED}
