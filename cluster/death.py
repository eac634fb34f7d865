"""In: what Ray says of a call that failed. Out: why the worker is gone, in a sentence or two."""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FIELD = re.compile(r"\t\w+: ")  # class_name, actor_id, pid, ip: known, or nothing to people
_ADDRESS = re.compile(r"^\tip: (\S+)$", re.MULTILINE)
_HEADS = ("The actor died unexpectedly before finishing this task", "The actor died because of an error")
_MEMORY = re.compile(r"Memory on the node \(IP: [^,]*, ID: [^)]*\) was (\S+) used / (\S+) limit")
_DETAIL = re.compile(r"Worker exit detail: (.*?)(?: There are some potential root| Some common causes|$)")
_SUDDEN = "connection error code 2"
_MAX_CHARACTERS = 400

_GONE = ("node has died", "node was terminated")


def cause_of_death(text: str) -> str:
    """Return what killed a worker, from the text of a RayError: its last line may be a link to read."""
    text = _ANSI.sub("", text)
    if memory := _MEMORY.search(text):
        used, limit = memory.groups()
        return f"Ray ended it, as the machine ran out of memory: {used} of {limit} in use"
    lines = [line for line in text.splitlines() if line.strip() and not _FIELD.match(line)]
    said = " ".join(line.strip() for line in lines if not line.startswith(_HEADS))
    said = said or " ".join(text.split())
    if detail := _DETAIL.search(said):
        said = detail.group(1)
    if is_of_its_machine(said):
        return "its machine is gone: Ray has lost touch with it"
    if _SUDDEN in said:
        return "its process ended without a word: killed (as by the kernel, out of memory), or crashed"
    return _shortened(said)


def is_of_its_machine(text: str) -> bool:
    """Tell whether a RayError is of the machine, and not of the worker alone."""
    return any(words in text for words in _GONE)


def address_in(text: str) -> str | None:
    """Return the address of the machine that a RayError names, if it names one."""
    found = _ADDRESS.search(_ANSI.sub("", text))
    return found.group(1) if found else None


def _shortened(text: str) -> str:
    """Keep the beginning and the end: a traceback has its error last."""
    if len(text) <= _MAX_CHARACTERS:
        return text
    half = _MAX_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"
