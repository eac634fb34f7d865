"""Dataclasses that Python prints in a few lines, and a notebook as a small table."""

from __future__ import annotations

import html
from collections.abc import Mapping


class Overview:
    """A base of dataclasses with `repr=False` that have too many fields to read."""

    __slots__ = ()

    def overview(self) -> Mapping[str, object]:
        """Return what a person wants to know, by title; at most seven lines. Values of None are left out."""
        raise NotImplementedError

    def _lines(self) -> dict[str, str]:
        return {
            title: " ".join(str(value).split())
            for title, value in self.overview().items()
            if value is not None
        }

    def __repr__(self) -> str:
        lines = [f"  {title}: {text}" for title, text in self._lines().items()]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><th>{html.escape(title)}</th><td>{html.escape(text)}</td></tr>"
            for title, text in self._lines().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{''.join(cells)}</table>"
