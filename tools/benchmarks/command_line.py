"""Where a benchmark computes, as its command line says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with `device`. doc: of the program, whose first line says what it does."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument("--device", default=default_device())
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, of which `device` is one; end with 2 where it is a GPU that is not there."""
    options = parser.parse_args(argv)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, and torch finds none")
    return options
