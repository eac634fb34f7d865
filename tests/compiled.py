"""torch.compile up to its kernels: graphs of blocks are taken and run, but no C++ is written of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._dynamo.backends.debugging import aot_eager
from torch.fx import GraphModule


@contextmanager
def without_kernels() -> Iterator[list[GraphModule]]:
    """Yield the graphs that are taken meanwhile. A C++ compiler would take a minute for their kernels."""
    graphs: list[GraphModule] = []

    def run_as_it_is(graph: GraphModule, inputs: list[Any], **settings: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    torch.compiler.reset()  # else what was compiled before would be taken
    try:
        with mock.patch("torch._inductor.compile_fx.compile_fx", run_as_it_is):
            yield graphs
    finally:
        torch.compiler.reset()
