"""Private names of torch's compiler: where they are missing, calls run as they are."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from framefleet.pipeline.hooks import intercept as compiled_calls


@pytest.mark.parametrize("is_renamed", [True, False])
def test_calls_run_with_and_without_the_names(is_renamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = compiled_calls
    if is_renamed:
        monkeypatch.setitem(sys.modules, "torch._C._dynamo.eval_frame", ModuleType("eval_frame"))
        spec = importlib.util.spec_from_file_location("renamed", compiled_calls.__file__)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    assert module.HAS_HOOK is not is_renamed
    assert not module.is_compiled_call()
    added = module.left_to_python(lambda a, b: a + b)
    assert added(1, 2) == 3
