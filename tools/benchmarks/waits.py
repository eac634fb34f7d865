"""Counts where the host waits for a device, on the stand-in for a GPU; for `tools.benchmarks.counts`.

Between the last step of a row and the first of the next, on the thread that renders, beyond what a script has
there that hands its decoded tensors to a thread of its own. Prints JSON: by way, the most of any two rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from tests.standin.install import install


def main(names: list[str]) -> None:
    gpus = install()
    # After CUDA's stand-in is there.
    from tools.benchmarks import counts

    waits = _Waits(gpus)
    with tempfile.TemporaryDirectory() as path:
        folder = counts.with_picture(Path(path))
        print(json.dumps({name: _extra(counts, waits, name, folder) for name in names}))


class _Waits:
    """Waits of this thread, since the last forward of a denoiser."""

    def __init__(self, gpus: Any) -> None:
        self._wait, self._thread = gpus.wait, threading.get_ident()
        self._num = 0
        self.between: list[int] = []  # forwards, one after the other
        gpus.wait = self._count

    @contextmanager
    def stepping(self, network: Any) -> Iterator[None]:
        """See forwards of a network. Before a renderer is made, which finds code that changes later."""
        forward = type(network).forward

        def step(*args: Any, **kwargs: Any) -> Any:
            self.between.append(self._num)
            output = forward(*args, **kwargs)
            self._num = 0
            return output

        with mock.patch.object(type(network), "forward", step):
            yield

    def most(self, render: Callable[[], object], num_rows: int) -> int:
        """Return the most between two rows. Each row has equally many forwards."""
        self.between.clear()
        render()
        per_row, left = divmod(len(self.between), num_rows)
        assert not left and per_row, f"{len(self.between)} forwards of {num_rows} rows"
        return max(self.between[per_row::per_row])

    def _count(self, *args: Any, **kwargs: Any) -> Any:
        self._num += threading.get_ident() == self._thread
        return self._wait(*args, **kwargs)


def _extra(counts: Any, waits: _Waits, name: str, folder: Path) -> int:
    way = counts.WAYS[name]
    model, rows = way.load(), way.rows(folder)
    pipe = model.pipe

    def script() -> None:
        for row in rows:
            arguments = row.arguments | {name: Image.open(row.arguments[name]) for name in way.pictures}
            pipe(**arguments, generator=row.generator(), output_type="pt")

    with waits.stepping(pipe.transformer):
        renderer = way.renderer(model, folder)
        counts.render(renderer, rows)  # of which it learns
        plain = waits.most(script, len(rows))
        return max(0, waits.most(lambda: counts.render(renderer, rows), len(rows)) - plain)


if __name__ == "__main__":
    main(sys.argv[1:])
