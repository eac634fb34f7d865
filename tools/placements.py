"""Which rows `ulysses` renders with the bits of one process: `python -m tools.placements [NAME ...]`.

Six mixed rows of each tiny pipeline, and of one whose denoiser is a layer of the published width ("wide"), in
fp32 and bf16, by two and four ranks on the CPU. Writes these lines of the table in docs/several_gpus.md.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from torch import nn

from framefleet import Audit, Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.errors import FramefleetError, ModelError
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.plugins.placement.lockstep import Ranks
from tests.jobs import ROOT
from tests.tiny import SMALLEST, tiny
from tests.warm.process import start

FAMILIES = {
    "wan": "Wan 2.1",
    "wan_moe": "Wan 2.2 A14B",
    "wan_ti2v": "Wan 2.2 TI2V",
    "ltx2": "LTX-2",
    "hunyuan_1_5": "HunyuanVideo 1.5",
    "flux": "Flux",
    "qwen_image": "Qwen-Image",
    "cogvideox": "CogVideoX",
    "minimax_h3": "MiniMax-H3",
}
# What decides a layer's widths. The published models have the defaults of diffusers' classes,
HEADS = re.compile(r"(audio_)?(num_attention_heads|cross_attention_dim)")
WIDTHS = re.compile(
    HEADS.pattern + r"|(audio_)?attention_head_dim|hidden_size|ffn_dim|(axes_dims_|)rope(_freq_dim)?"
)
LAYERS = re.compile(r"num_(single_|refiner_)?layers")
NUM_RANDOM = (1 << 20) + 7  # no power of two, or rows of a matrix would be alike
# but for these.
PUBLISHED = {
    "wan": {"num_attention_heads": 12, "ffn_dim": 8960},
    "wan_ti2v": {"num_attention_heads": 24, "ffn_dim": 14336},
}
PROMPTS = ("a red ball", "a blue cube on a table")
MORE = {"flux": {"max_sequence_length": 64}}
OF_WIDE = {
    "ltx2": {"guidance_scale": 1.0, "num_inference_steps": 2},
    "minimax_h3": {"num_inference_steps": 2},
}
SIDES = (128, 192)  # pixels; smaller ones leave a rank with so few tokens that products take other kernels
WIDE = "wide"
PARTS = ("transformer", "transformer_2", "transformer_ref")
RANKS, DTYPES = (2, 4), ("fp32", "bf16")
PAGE, BEGIN, END = ROOT / "docs" / "several_gpus.md", "<!-- ulysses: begin -->", "<!-- ulysses: end -->"
HEAD = ["model", *(f"{dtype}, {num}" for dtype in DTYPES for num in RANKS), "others differ in"]
MAX_REASONS = 2


def rows_of(name: str, *, is_wide: bool = False) -> list[Request]:
    """Return six rows of two sizes and two prompts. is_wide: of few steps, which take long."""
    arguments = SMALLEST.get(name, {}) | MORE.get(name, {})
    rows = []
    for seed in range(6):
        sizes = {key: SIDES[seed % 2] for key in ("height", "width") if key in arguments}
        steps = OF_WIDE.get(name, {"guidance_scale": 1.0, "num_inference_steps": 1}) if is_wide else {}
        more = {"prompt": PROMPTS[seed // 2 % 2], "num_inference_steps": 2 + seed // 4} | steps
        rows.append(Request(arguments={**arguments, **sizes, **more}, seed=seed))
    return rows


def narrow(name: str, folder: Path) -> Path:
    """Write the tiny pipeline with four heads, of which each of four ranks gets one."""
    return _changed(name, folder, dict.fromkeys(PARTS, _four_heads))


def wide(name: str, folder: Path) -> Path:
    """Write it with one layer of the published width in place of its first denoiser."""

    def change(key: str, value: Any, default: Any) -> Any:
        if WIDTHS.fullmatch(key):
            return PUBLISHED.get(name, {}).get(key, default)
        return 1 if LAYERS.fullmatch(key) else value

    return _changed(name, folder, dict.fromkeys(PARTS, _four_heads) | {PARTS[0]: change})


def _four_heads(key: str, value: Any, default: Any) -> Any:
    return value * 2 if HEADS.fullmatch(key) else value


def _changed(name: str, folder: Path, changes: Mapping[str, Callable[[str, Any, Any], Any]]) -> Path:
    shutil.copytree(tiny(name), folder)
    for part, change in changes.items():
        path = folder / part
        if not path.is_dir():
            continue
        config = json.loads((path / "config.json").read_text())
        kind = getattr(diffusers, config["_class_name"])
        defaults = inspect.signature(kind.__init__).parameters
        config |= {k: change(k, v, defaults[k].default) for k, v in config.items() if k in defaults}
        with init_empty_weights(include_buffers=False):
            network = kind.from_config(config)
        _fill(network)
        shutil.rmtree(path)
        network.save_pretrained(path)
    return folder


def _fill(network: nn.Module) -> None:
    """Give it weights as `fill_weights` does, by repeating some: there are hundreds of millions."""
    numbers = torch.randn(NUM_RANDOM, generator=torch.Generator().manual_seed(7))
    for name, blank in dict(network.named_parameters()).items():
        size = blank.numel()
        if name.endswith("bias"):
            weight = torch.zeros(blank.shape)
        elif size == max(blank.shape, default=1):
            weight = torch.full(blank.shape, 2.0 if "norm_q" in name or "norm_k" in name else 1.0)
        else:
            weight = numbers.repeat(-(-size // NUM_RANDOM))[:size].reshape(blank.shape)
            weight *= blank[0].numel() ** -0.5
        path, _, own = name.rpartition(".")
        setattr(network.get_submodule(path), own, nn.Parameter(weight, requires_grad=False))


def compared(
    rows: list[Request], folder: Path, dtype: str, *, num_ranks: int, alone: list[Outcome]
) -> tuple[int, Counter[str]]:
    """Render rows by several ranks. Returns how many had the bits of one process, and why others had not.

    alone: what one process made of them; added once it is needed.
    """
    together = rendered(folder, dtype, rows, {"type": "ulysses", "devices": num_ranks})
    if not alone and any(isinstance(one, Clip) for one in together):
        alone += rendered(folder, dtype, rows)
    others = Counter(_reason(one.error) for one in together if not isinstance(one, Clip))
    for mine, theirs in zip(together, alone, strict=False):
        if isinstance(mine, Clip) and not (
            isinstance(theirs, Clip) and mine.frames_sha256 == theirs.frames_sha256
        ):
            others["WRONG: other frames than one process"] += 1
    return len(rows) - others.total(), others


def rendered(
    folder: Path, dtype: str, rows: list[Request], placement: dict[str, Any] | None = None
) -> list[Outcome]:
    """Return what became of the rows, in their order."""
    model = load_model(folder, dtype=dtype, device="cpu", placement=placement)  # type: ignore[arg-type]
    renderer = Renderer(model, Batching(max_rows=1, remember=False), audit=Audit(every=0))
    try:
        return sorted(renderer.render(rows, progress=False), key=lambda one: one.request.seed)
    finally:
        if model.placer:
            model.placer.close()


def _warm(connection: Connection) -> subprocess.Popen[str]:
    """Start a rank that has imported its libraries."""
    program = ("-m", "framefleet.plugins.placement.rank", str(os.getpid()))
    return start(*program, stdin=connection.fileno(), stdout=None, stderr=None)


def _reason(error: Exception) -> str:
    text = error.problem if isinstance(error, FramefleetError) else f"{type(error).__name__}: {error}"
    if found := re.search(r"first in (\S+)", text):
        return f"`{found[1]}`"
    if found := re.search(r"fails in (\S+): (.{,60})", text):
        return f"fails in `{found[1]}`"
    if "no context parallel plan" in text:
        return "no plan in diffusers"
    return re.sub(r"\[[\d, ]+\]", "[...]", re.sub(r"\s+", " ", text)).replace("|", "/")[:110]


def measured(name: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return a column of numbers of equal rows, and the modules that made most of the others differ."""
    nums, others = [], Counter[str]()
    for dtype in DTYPES:
        alone: list[Outcome] = []
        rows = rows_of(name, is_wide=folder.name == WIDE)
        for num_ranks in RANKS:
            try:
                num, why = compared(rows, folder, dtype, num_ranks=num_ranks, alone=alone)
            except ModelError as error:  # it cannot be placed so
                num, why = 0, Counter({_reason(error): len(rows)})
            nums.append(str(num))
            others += why
    return nums, [text for text, _ in others.most_common(MAX_REASONS)]


def write(name: str, nums: list[str], reasons: list[str], *, is_wide: bool) -> str:
    """Put what was measured into the page's table; return the line."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    lines = {cells[0]: cells for cells in map(_cells, old.splitlines()) if len(cells) == len(HEAD)}
    cells = lines.get(FAMILIES[name], [FAMILIES[name], *["-/-"] * len(nums), ""])
    for column, num in enumerate(nums, 1):
        pair = cells[column].split("/")
        pair[is_wide] = num
        cells[column] = "/".join(pair)
    cells[-1] = ", ".join(dict.fromkeys([*filter(None, cells[-1].split(", ")), *reasons]))
    lines[FAMILIES[name]] = cells
    table = [HEAD, ["---"] * len(HEAD), *(lines[title] for title in FAMILIES.values() if title in lines)]
    texts = [f"| {' | '.join(cells)} |" for cells in table]
    PAGE.write_text("\n".join([before + BEGIN, *texts, END + after]))
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.placements", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="tiny pipelines of tests/tiny.py, or NAME/wide"
    )
    torch.set_num_threads(1)
    Ranks.start_process = staticmethod(_warm)  # type: ignore[method-assign]
    for one in parser.parse_args().names or [*FAMILIES, *(f"{name}/{WIDE}" for name in FAMILIES)]:
        name, _, kind = one.partition("/")
        with tempfile.TemporaryDirectory() as place:
            make = wide if kind == WIDE else narrow
            nums, reasons = measured(name, make(name, Path(place, kind or "narrow")))
        print(time.strftime("%X"), write(name, nums, reasons, is_wide=kind == WIDE), flush=True)


if __name__ == "__main__":
    main()
