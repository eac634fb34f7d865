"""Recipes that go wrong for marked rows, for jobs of the tests: `recipe: tests.faults:raises` and so on."""

from __future__ import annotations

import _thread
import errno
import functools
import os
import signal
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import greenlet
import torch
from diffusers import WanTransformer3DModel

import framefleet
from framefleet import Request, RowError
from framefleet.pipeline.recipes.catalog import generate


@framefleet.recipe(batched=True)
def raises(pipe: Any, request: Request) -> Any:
    """Raise for rows whose prompt says poison."""
    if "poison" in request.arguments["prompt"]:
        raise ValueError("this row is poison")
    return generate(pipe, request)


class Wordless(RuntimeError):
    def __str__(self) -> str:
        raise ValueError


class NotAnException(BaseException):
    pass


def _ring() -> Exception:
    first, second = ValueError("ring"), OSError("ring")
    first.__cause__, second.__cause__ = second, first
    return first


ODD_ERRORS: dict[
    str, tuple[Callable[[], BaseException], str]
] = {  # by prompt: what is raised, and what is said of it
    "exits": (lambda: SystemExit(3), "the recipe raised SystemExit: 3"),
    "is interrupted": (KeyboardInterrupt, "the recipe raised KeyboardInterrupt"),
    "leaves its greenlet": (greenlet.GreenletExit, "GreenletExit"),
    "is cancelled": (CancelledError, "the recipe raised CancelledError"),
    "not an exception": (NotAnException, "the recipe raised NotAnException"),
    "wordless": (Wordless, "it has no message: its __str__ raised ValueError"),
    "ring": (_ring, "ring"),
    "long": (lambda: ValueError("x" * 10**7), "x ... x"),
    "half a character": (lambda: ValueError("half \ud800 \x00 \x1b[31m"), r"half \ud800"),
}


@framefleet.recipe(batched=True)
def raises_oddly(pipe: Any, request: Request) -> Any:
    """Raise what libraries and users raise, by prompt."""
    if error := ODD_ERRORS.get(request.arguments["prompt"]):
        raise error[0]()
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def refuses(pipe: Any, request: Request) -> Any:
    """Refuse rows whose prompt says unwanted, as what no other machine could render either."""
    if "unwanted" in request.arguments["prompt"]:
        raise RowError("this row is refused", "leave it out")
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def raises_while(pipe: Any, request: Request, *, broken: str = "") -> Any:
    """Raise while a file is there."""
    if os.path.exists(broken):
        raise ValueError("broken")
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def kills(pipe: Any, request: Request) -> Any:
    """Kill the worker for rows whose prompt says killer, as a crash in native code would."""
    if "killer" in request.arguments["prompt"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(pipe, request)


ENDINGS: dict[str, tuple[Callable[[], object], str]] = {  # by prompt: an end, what is said
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), "its process was sent SIGTERM"),
    "its group": (lambda: os.killpg(0, signal.SIGTERM), "its process was sent SIGTERM"),
    "main thread": (_thread.interrupt_main, "its process was interrupted (SIGINT)"),
    "exit": (lambda: os._exit(0), "its own code ended it (os._exit)"),
    "thread": (lambda: threading.Thread(target=os._exit, args=[0]).start(), "its own code ended it"),
    "connection": (lambda: os.closerange(3, 4096), "or its connection"),
}


@framefleet.recipe(batched=True)
def ends(pipe: Any, request: Request) -> Any:
    """End this process by prompt, as libraries do that clean up, and come no further."""
    if ending := ENDINGS.get(request.arguments["prompt"]):
        ending[0]()
        time.sleep(3)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def hangs(pipe: Any, request: Request) -> Any:
    """Never end for rows whose prompt says hang."""
    while "hang" in request.arguments["prompt"]:
        time.sleep(1)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def sick_gpu(pipe: Any, request: Request) -> Any:
    """Raise as a CUDA context does once a kernel of it has failed: in the first process for all its rows.

    The prompt is a file that all rows share.
    """
    file = Path(request.arguments["prompt"])
    try:
        with open(file, "x") as first:
            first.write(str(os.getpid()))
    except FileExistsError:
        """It is another row, or another process."""
    if file.read_text() == str(os.getpid()):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def full_disk(pipe: Any, request: Request) -> Any:
    """Raise as every row does on a machine whose temporary folder is full."""
    raise OSError(errno.ENOSPC, "No space left on device", "/tmp/some-file")


@framefleet.recipe(batched=True)
def fills_disk(pipe: Any, request: Request) -> Any:
    """Fill a disk of its own for rows whose prompt says full."""
    if "full" in request.arguments["prompt"]:
        raise OSError(errno.ENOSPC, "No space left on device", "/mnt/cache")
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def lingers(pipe: Any, request: Request) -> Any:
    """Take half a second more."""
    time.sleep(0.5)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def never_fits(pipe: Any, request: Request) -> Any:
    """Run out of memory for rows whose prompt says huge, whatever else runs."""
    if "huge" in request.arguments["prompt"]:
        raise torch.OutOfMemoryError("CUDA out of memory: a row that never fits")
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def scaled(pipe: Any, request: Request, *, gain: float = 1.0) -> Any:
    """Multiply the frames by a parameter of the recipe's own."""
    return (generate(pipe, request).frames[0] * gain).clip(0, 1)


@framefleet.recipe(batched=True)
def tells(pipe: Any, request: Request) -> Any:
    """Raise with a text of the environment's, as libraries do that quote what they were given; kill once."""
    if "poison" in request.arguments["prompt"]:
        raise ValueError(os.environ["QUOTED"])
    if "killer" in request.arguments["prompt"] and not os.path.exists(os.environ["KILLED"]):
        open(os.environ["KILLED"], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def slow(pipe: Any, request: Request, *, forwards: str = "", pause_s: float = 0.1) -> Any:
    """Pause before each forward, and add a line to the file `forwards`. For `batching.max_rows: 1`."""
    _faults.update(forwards=forwards, pause_s=pause_s)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def late(
    pipe: Any, request: Request, *, forwards: str = "", first_s: float = 0.0, then_s: float = 0.0
) -> Any:
    """Pause before each forward of a row whose prompt says late: first_s in the first process that has it,
    then_s in others. `forwards` is as for `slow`, of these rows.
    """
    _faults.clear()
    if "late" in request.arguments["prompt"]:
        try:
            open(f"{forwards}.first", "x").close()
            pause_s = first_s
        except FileExistsError:
            pause_s = then_s
        _faults.update(forwards=forwards, pause_s=pause_s)
    return generate(pipe, request)


_faults: dict[str, Any] = {}  # of forwards of this process


def _pause() -> None:
    """Pause before a forward, unless tests have said that they need no more time."""
    file, ends_at = Path(_faults["forwards"]), time.monotonic() + _faults["pause_s"]
    while (left_s := ends_at - time.monotonic()) > 0 and not file.with_name("hurry").exists():
        time.sleep(min(left_s, 0.05))


_forward = WanTransformer3DModel.forward


@functools.wraps(_forward)
def _faulty(*args: Any, **kwargs: Any) -> Any:
    if "forwards" in _faults:
        with open(_faults["forwards"], "a") as lines:
            lines.write(f"{os.getpid()}\n")
        _pause()
    return _forward(*args, **kwargs)


# When the module is imported: what a recipe changes of a class while its row renders is undone.
WanTransformer3DModel.forward = _faulty
