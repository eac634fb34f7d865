"""Time and peak host memory of loading a 2 GB random model in bf16: framefleet compared with plain diffusers.

    python -m tools.benchmarks.load [--device cuda] [--short]

Each load runs in a process of its own, with all libraries imported before. Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from tools.benchmarks.command_line import parsed

POLL_S = 0.003
LOADERS = ("diffusers", "framefleet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--short", action="store_true", help="a toy; its figures mean nothing")
    options = parsed(parser)
    print("| files in | loaded by | files GB | weights GB | seconds | peak private GB | peak resident GB |")
    print("|---|---|---|---|---|---|---|")
    for dtype in ("bfloat16", "float32"):
        with tempfile.TemporaryDirectory() as folder:
            _build(Path(folder), getattr(torch, dtype), layers=1 if options.short else 18)
            for loader in LOADERS:
                one = measure if options.short else _measured_alone
                numbers = one(loader, folder, options.device)
                print(f"| {dtype} | {loader} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |", flush=True)


def _measured_alone(loader: str, folder: str, device: str) -> list[float]:
    command = [sys.executable, "-m", "tools.benchmarks.load", "--one", loader, folder, device]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def measure(loader: str, folder: str, device: str) -> list[float]:
    """Load and touch every weight; return GB of files and weights, seconds, and GB over what imports take."""
    load = _loader(loader)
    before, peak_private, is_over = _memory(), [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            peak_private[0] = max(peak_private[0], _memory()["RssAnon"])

    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    pipe = load(folder, device)
    seconds = time.monotonic() - started
    parameters = [
        p for c in pipe.components.values() if isinstance(c, torch.nn.Module) for p in c.parameters()
    ]
    with torch.no_grad():
        sum(parameter.sum().item() for parameter in parameters)
    is_over.set()
    watcher.join()
    files = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    weights = sum(parameter.nbytes for parameter in parameters)
    private = max(peak_private[0], _memory()["RssAnon"]) - before["RssAnon"]
    resident = _memory()["VmHWM"] - before["VmRSS"]
    return [files / 1e9, weights / 1e9, seconds, private / 1e9, resident / 1e9]


def _loader(name: str) -> Any:
    """Return a function that loads a folder, with everything imported that a load imports."""
    from diffusers import WanPipeline

    from framefleet.pipeline.model.load_model import load_model
    from tests.tiny import tiny

    WanPipeline.from_pretrained(tiny("wan"))
    if name == "framefleet":
        return lambda folder, device: load_model(folder, dtype="bf16", device=device).pipe
    return lambda folder, device: WanPipeline.from_pretrained(folder, dtype=torch.bfloat16).to(device)


def _build(folder: Path, dtype: torch.dtype, *, layers: int) -> None:
    """Save a Wan pipeline of random weights; of one billion with 18 layers."""
    from diffusers import WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from tests.tinies.wan import wan

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    sizes = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": layers}
    transformer = WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=1024, freq_dim=256, **sizes)
    text = UMT5Config(
        vocab_size=384, d_model=1024, d_kv=64, d_ff=2816, num_layers=min(layers, 12), num_heads=16
    )
    text_encoder = UMT5EncoderModel(text)
    torch.set_default_dtype(default)
    parts = wan().components | {"text_encoder": text_encoder, "transformer": transformer}
    WanPipeline(**parts).to(dtype).save_pretrained(folder, max_shard_size="1GB")


def _memory() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[0][:3] in ("VmH", "VmR", "Rss")
    }


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(json.dumps(measure(*sys.argv[2:5])))
    else:
        main()
