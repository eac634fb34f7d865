"""Which rows `ulysses` renders with the bits of one process: `python -m tools.placements [NAME ...]`.

Six mixed rows of each tiny pipeline, in fp32 and bf16, by two ranks on the CPU. Without names, writes the
table of docs/several_gpus.md.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from dataclasses import dataclass, replace

from framefleet import Audit, Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.outputs.clips import Outcome
from tests.jobs import ROOT
from tests.tiny import SMALLEST, tiny

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
PROMPTS = ("a red ball", "a blue cube on a table")
LEAST = 64  # pixels of a side; smaller ones leave a rank with so few tokens that products take other kernels
PAGE, BEGIN, END = ROOT / "docs" / "several_gpus.md", "<!-- ulysses: begin -->", "<!-- ulysses: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """num_equal: rows with the bits of one process. others: what the rest were refused for."""

    num_rows: int
    num_equal: int
    others: Counter[str]

    def __str__(self) -> str:
        why = ", ".join(f"{num}: {text}" for text, num in self.others.items())
        return f"{self.num_equal} of {self.num_rows} equal" + (f" ({why})" if why else "")


def rows_of(name: str) -> list[Request]:
    """Return six rows of two sizes, two prompts and two numbers of steps."""
    arguments = dict(SMALLEST.get(name, {}))
    rows = []
    for seed in range(6):
        side = LEAST * (1 + seed % 2)
        sizes = {key: side for key in ("height", "width") if key in arguments}
        more = {"prompt": PROMPTS[seed // 2 % 2], "num_inference_steps": 2 + seed // 4}
        rows.append(Request(arguments={**arguments, **sizes, **more}, seed=seed))
    return rows


def compared(name: str, dtype: str, *, size: int = 2) -> Comparison:
    """Render the rows by one process and by several; compare."""
    rows = rows_of(name)
    alone = rendered(name, dtype, rows)
    together = rendered(name, dtype, rows, {"type": "ulysses", "devices": size})
    others = Counter[str]()
    for mine, theirs in zip(together, alone, strict=True):
        if not isinstance(theirs, Clip):
            others[f"one process fails: {theirs.error}"] += 1
        elif not isinstance(mine, Clip):
            others[_reason(mine.error)] += 1
        elif mine.frames_sha256 != theirs.frames_sha256:
            others["WRONG: other frames than one process"] += 1
    return Comparison(num_rows=len(rows), num_equal=len(rows) - others.total(), others=others)


def rendered(
    name: str, dtype: str, rows: list[Request], placement: dict[str, object] | None = None
) -> list[Outcome]:
    """Return what became of the rows, in their order."""
    model = load_model(tiny(name), dtype=dtype, device="cpu", placement=placement)  # type: ignore[arg-type]
    renderer = Renderer(model, Batching(max_rows=1, remember=False), audit=Audit(every=0))
    outcomes = sorted(renderer.render(rows, progress=False), key=lambda one: one.request.seed)
    if model.placer:
        model.placer.close()
    return [replace(one) for one in outcomes]


def _reason(error: Exception) -> str:
    text = error.problem if isinstance(error, FramefleetError) else f"{type(error).__name__}: {error}"
    if found := re.search(r"first in (\S+)", text):
        return f"differs in `{found[1]}`"
    if "no context parallel plan" in text:
        return "diffusers has no plan for it"
    return re.sub(r"\[[\d, ]+\]", "[...]", re.sub(r"\s+", " ", text)).replace("|", "/")[:110]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.placements", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tiny pipelines of tests/tiny.py")
    names = parser.parse_args().names
    lines = ["| model | fp32 | bf16 |", "|---|---|---|"]
    for name in names or FAMILIES:
        cells = []
        for dtype in ("fp32", "bf16"):
            try:
                cells.append(str(compared(name, dtype)))
            except FramefleetError as error:
                cells.append(_reason(error))
        lines.append(f"| {FAMILIES.get(name, name)} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if not names:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text("\n".join([before + BEGIN, *lines, END + after]))


if __name__ == "__main__":
    main()
