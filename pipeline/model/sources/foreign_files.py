"""From the first bytes of a file that should hold weights to what downloads often leave in its place."""

from __future__ import annotations

HEAD_BYTES = 512  # enough for all that is told apart here
_AGAIN = "fetch it again"
_PAGES = (b"<!doctype", b"<html", b"<?xml")


def foreign(head: bytes) -> tuple[str, str] | None:
    """Return (what the file is, what to do) as the end of "model.ckpt ...", or None for what is not known."""
    if not head:
        return "is empty", _AGAIN
    if head.startswith(b"version https://git-lfs."):
        return (
            "is a pointer of Git LFS, not the file that it stands for",
            "run `git lfs pull` where it was cloned, or fetch it with `hf download`",
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return (
            "is a web page, as servers send it for a login or an error",
            "fetch it again, where a login is needed with `hf auth login` and `hf download`",
        )
    return None
