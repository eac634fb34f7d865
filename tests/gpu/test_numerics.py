"""On a GPU a model is computed by its numerics, and a script in another process yields the same frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from framefleet import load_model
from tests.tiny import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_products_are_summed_in_one_piece_and_the_record_says_so() -> None:
    model = load_model(tiny("wan"), dtype="bf16")
    matmul = torch.backends.cuda.matmul
    assert model.environment["matmul"] == "no_split_k"
    assert torch.backends.cuda.preferred_blas_library() == torch._C._BlasBackend.Cublaslt
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_script_in_another_process_renders_the_same_frames(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="a job needs it")
    from framefleet.plugins.keep.replay.script import replay_script
    from tests.rendered import rendered

    output, row_ids = rendered(tmp_path, "wan", device="cuda", dtype="bf16")
    script = tmp_path / "again.py"
    script.write_text(replay_script(output, row_ids[1]))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.stdout.startswith("the same frames: "), run.stderr
