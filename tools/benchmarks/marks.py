"""What watermarks survive, whether rows are found again, and what marks cost.

    python -m tools.benchmarks.marks detect FOLDER [--watermark NAME=WEIGHTS]   # of videos and photos
    python -m tools.benchmarks.marks round-trip [--rows 200] [--cluster ADDRESS]
    python -m tools.benchmarks.marks cost [--rows 16] [--step-s 0.5]

detect: each video, its first 81 frames, and each photo, over which a camera pans, at 480p is marked, changed
in each way, encoded by x264 (crf 23 where nothing else is said) and looked at, as `framefleet trace` does. A
screenshot is the middle frame. round-trip: a job of tiny clips is rendered and signed, each clip is edited by
PyAV, and traced to its row. cost: clips of four steps by the stand-in for a GPU of
tools/benchmarks/pixels.py, without marks and with each. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

import framefleet
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.plugins.marks.file_marks import SPREAD, marks_in
from framefleet.plugins.marks.manifest import open_signing
from framefleet.plugins.marks.settings import ClipMarks, Provider, Signing, Watermark
from framefleet.plugins.marks.step import MarkStep
from framefleet.plugins.marks.watermark import mark_frames
from tests.certificates import issue, time_authority
from tests.jobs import write_table
from tests.tiny import SMALLEST, tiny
from tools.benchmarks.pixels import FULL, SHORT, Clips, measure
from tools.benchmarks.results import Result, Tell, tables
from tools.benchmarks.table import build_model

_FRAMES, _SIZE, _RATE = 81, (480, 832), 16
_ROW_ID = "0123456789abcdef" * 2


def main() -> None:
    found: list[Result] = []
    run(sys.argv[1:], found.append)
    print(tables(found))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.marks", description=__doc__)
    parser.add_argument("what", choices=["detect", "round-trip", "cost"])
    parser.add_argument("folder", nargs="?", type=Path, help="videos and photos to mark")
    parser.add_argument("--watermark", default="spread", help="NAME=WEIGHTS, if not spread")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--step-s", type=float, default=0.5, help="seconds of a step, of cost")
    parser.add_argument("--cluster", help="address of a Ray cluster to join")
    parser.add_argument("--short", action="store_true", help="two small rows; its figures mean nothing")
    options = parser.parse_args(argv)
    name, _, weights = options.watermark.partition("=")
    if options.what == "detect":
        figures = detection(options.folder, Watermark(name=name, weights=weights or None))
    elif options.what == "round-trip":
        figures = round_trip(options.rows, options.cluster)
    else:
        figures = cost(SHORT if options.short else replace(FULL, rows=options.rows, step_s=options.step_s))
    for figure in figures:
        tell(figure)


Edit = Callable[[Frames], bytes]


def encoded(frames: Frames, *, crf: int = 23, rate: int = _RATE) -> bytes:
    """Return an mp4 as anybody's ffmpeg would make it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = (*frames.shape[1:3], "yuv420p")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def resized(frames: Frames, height: int, width: int) -> Frames:
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(image) for image in images])


def half(frames: Frames) -> Frames:
    return resized(frames, frames.shape[1] // 4 * 2, frames.shape[2] // 4 * 2)


def cropped(frames: Frames) -> Frames:
    """Return nine tenths of the height and of the width, of even sides."""
    _, height, width, _ = frames.shape
    top, left = height // 20, width // 20
    return frames[:, top : top + height * 9 // 20 * 2, left : left + width * 9 // 20 * 2]


def third(frames: Frames) -> Frames:
    return frames[len(frames) // 3 : max(len(frames) * 2 // 3, len(frames) // 3 + 1)]


def at_24_fps(frames: Frames) -> Frames:
    """Return the frames that are seen at 24 a second where there were 16."""
    return frames[np.arange(len(frames) * 3 // 2) * 2 // 3]


def screenshot(frames: Frames) -> bytes:
    shown = decode(encoded(frames))
    buffer = io.BytesIO()
    Image.fromarray(shown[len(shown) // 2]).save(buffer, "PNG")
    return buffer.getvalue()


EDITS: dict[str, Edit] = {
    "crf 23": encoded,
    "crf 28": partial(encoded, crf=28),
    "crf 35": partial(encoded, crf=35),
    "half size": lambda frames: encoded(half(frames)),
    "crop of 10 %": lambda frames: encoded(cropped(frames)),
    "a third of the length": lambda frames: encoded(third(frames)),
    "24 instead of 16 fps": lambda frames: encoded(at_24_fps(frames), rate=24),
    "screenshot of a frame": screenshot,
    "all: half, crop, third, crf 28": lambda frames: encoded(half(third(cropped(frames))), crf=28),
}


def detection(folder: Path, watermark: Watermark) -> Iterator[Result]:
    """Yield, for each way to change a file, how many clips are found, and which are not."""
    sources = dict(scenes(folder))
    marked: dict[str, Frames] = {}
    for name, frames in sources.items():
        before = time.process_time()
        marked[name] = mark_frames(frames, [watermark], _ROW_ID).astype(np.uint8, copy=False)
        loss = np.mean((marked[name].astype(np.float32) - frames) ** 2)
        larger = len(encoded(marked[name], crf=18)) / len(encoded(frames, crf=18)) - 1
        yield {
            "clip": name,
            "PSNR": f"{10 * np.log10(255**2 / loss):.1f} dB",
            "larger at crf 18": f"{larger:.0%}",
            "s CPU": f"{time.process_time() - before:.2f}",
        }
    for edit, change in EDITS.items():
        lost = [name for name, frames in marked.items() if not _is_found(change(frames), watermark)]
        yield _line(watermark, edit, len(marked), lost)
    lost = [name for name, frames in sources.items() if _is_found(encoded(frames), watermark, any_row=True)]
    yield _line(watermark, "found where there is none", len(marked), list(set(sources) - set(lost)))


def _line(watermark: Watermark, edit: str, count: int, lost: Sequence[str]) -> Result:
    return {
        "watermark": watermark.name,
        "file": edit,
        "found": f"{count - len(lost)} of {count}",
        "not": ", ".join(lost),
    }


def _is_found(content: bytes, watermark: Watermark, *, any_row: bool = False) -> bool:
    found = marks_in(content, (watermark,)).watermarks
    return bool(found) and (any_row or _ROW_ID.startswith(found[0].prefix))


def scenes(folder: Path) -> Iterator[tuple[str, Frames]]:
    """Yield the first frames of each video, and a pan over each photo."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".mp4", ".mkv", ".webm"):
            with av.open(str(path)) as container:
                shown = islice(container.decode(video=0), _FRAMES)
                images = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in shown]
            yield path.stem, np.stack([np.asarray(_filled(image)) for image in images])
        elif path.suffix in (".png", ".jpg"):
            yield path.stem, _pan(Image.open(path).convert("RGB"))


def _filled(image: Image.Image, zoom: float = 1.0) -> Image.Image:
    """Return the middle of a picture at the size of clips, or at `zoom` times that, whole."""
    height, width = _SIZE
    scale = max(width / image.width, height / image.height) * zoom
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if zoom > 1 else image.crop((left, top, left + width, top + height))


def _pan(photo: Image.Image) -> Frames:
    height, width = _SIZE
    wide = _filled(photo, 1.25)
    frames = []
    for number in range(_FRAMES):
        part = number / (_FRAMES - 1)
        left, top = (wide.width - width) * 0.8 * part, (wide.height - height) * (0.2 + 0.5 * part)
        seen = (left, top, left + width * (1 - 0.12 * part), top + height * (1 - 0.12 * part))
        frames.append(
            np.asarray(
                wide.transform((width, height), Image.Transform.EXTENT, seen, Image.Resampling.BICUBIC)
            )
        )
    return np.stack(frames)


def round_trip(rows: int, cluster: str | None) -> Iterator[Result]:
    """Render rows, edit each clip in one of the ways, and yield how many are traced to their row."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for inner in ("authority", "found"):
            (folder / inner).mkdir()
        with time_authority(folder / "authority") as authority:
            summary = framefleet.render(round_trip_job(folder, rows, cluster, authority.url))
        output = framefleet.open_output(str(folder / "out"))
        wanted, edits = {}, {}
        for record in (one for table in output.records() for one in table.to_pylist()):
            edit = draw.choice(list(EDITS))
            suffix = ".png" if "screenshot" in edit else ".mp4"
            path = folder / "found" / f"{record['row_indices'][0]}{suffix}"
            path.write_bytes(EDITS[edit](decode((folder / "out" / record["path"]).read_bytes())))
            wanted[str(path)], edits[str(path)] = record["row_id"], edit
        begun = time.monotonic()
        found = framefleet.trace(folder / "found", outputs=folder / "out")
        took_s = time.monotonic() - begun
        right = Counter(edits[one.file] for one in found if one.row_id == wanted[one.file])
        wrong = sum(one.row_id not in (None, wanted[one.file]) for one in found)
        for edit, count in sorted(Counter(edits.values()).items()):
            yield {"edit": edit, "clips": count, "found": right[edit]}
        stored = framefleet.trace(folder / "out" / "clips", outputs=folder / "out")
        yield {
            "rows": summary.done,
            "found": right.total(),
            "wrong": wrong,
            "s each": f"{took_s / rows:.2f}",
            "stored ones signed and stamped": sum(map(_is_stamped, stored)),
        }


def _is_stamped(found: framefleet.Traced) -> bool:
    manifest = found.marks.manifest if found.marks else None
    return bool(found.signer == "own" and manifest and manifest.state == "intact" and manifest.has_time)


def round_trip_job(folder: Path, rows: int, cluster: str | None, authority: str) -> dict[str, object]:
    """Return a job of clips of a tiny model, with every mark."""
    certificate, key = issue(folder)
    table = write_table(folder / "t.parquet", [{"prompt": f"row {row}", "seed": row} for row in range(rows)])
    size = {"height": 256, "width": 384, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 1.0}
    return {
        "table": str(table),
        "output": str(folder / "out"),
        "model": str(tiny("wan")),
        "defaults": SMALLEST["wan"] | size,
        "fleet": {"workers": 1, "gpus_per_worker": 0, "address": cluster},
        "marks": {
            "sign": {
                "certificate": str(certificate),
                "private_key": str(key),
                "time_authority": authority,
            },
            "provider": {"name": "Example"},
            "watermark": "spread",
            "label": True,
        },
    }


def cost(clips: Clips) -> Iterator[Result]:
    """Yield what clips of four steps take, without marks and with each."""
    rows = clips.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate, key = issue(folder)
        signing = open_signing(Signing(certificate=str(certificate), private_key=str(key)))
        provider = Provider(name="Example")
        ways = {
            "none": ClipMarks(),
            "label": ClipMarks(provider=provider, label=True),
            "sign": ClipMarks(provider=provider, sign=signing),
            "watermark": ClipMarks(watermarks=(SPREAD,)),
            "all": ClipMarks(provider=provider, sign=signing, label=True, watermarks=(SPREAD,)),
        }
        model = build_model(folder / "model")
        for way, marks in ways.items():
            steps = {"marks": MarkStep(marks=marks)} if marks else {}
            spent = measure(clips, model, folder / way, None, device="cpu", media=Media(), steps=steps)
            waits = {cause: seconds / rows for cause, seconds in spent.idle.items()}
            yield {
                "marks": way,
                "s a row": f"{spent.busy_s / rows:.3f}",
                "CPU s a row": f"{spent.cpu_s / rows:.3f}",
                "idle s a row": f"{sum(waits.values()):.3f}",
                "for writers": f"{waits.get('writers', 0.0):.3f}",
                "for pixels and pipeline": f"{waits.get('pixels', 0.0) + waits.get('pipeline', 0.0):.3f}",
            }


if __name__ == "__main__":
    main()
