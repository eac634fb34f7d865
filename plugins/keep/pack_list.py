"""In: a pack. Out: the SHA-256 of each of its files, in one list whose digest stands for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from framefleet.api.outputs import Store
from framefleet.plugins.keep.damage import Damage

PACK_LIST = "pack.sha256"  # as `sha256sum --check` takes it
_MAX_BYTES = 1 << 26


def write_list(store: Store, paths: list[str]) -> str:
    """Write the list of these files; return its digest."""
    lines = (f"{_sha256(store.read(path))}  {path}\n" for path in sorted(paths))
    store.write(PACK_LIST, content := "".join(lines).encode())
    return _sha256(content)


def digest_of_list(store: Store) -> str | None:
    """Return the digest of a pack; None for an output that is none."""
    try:
        return _sha256(store.read(PACK_LIST, _MAX_BYTES))
    except FileNotFoundError:
        return None


def damages_of_pack(store: Store) -> Iterator[Damage]:
    """Yield the files of a pack that are not as its list says; nothing for an output that is none."""
    try:
        text = store.read(PACK_LIST, _MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    for digest, _, path in (line.partition("  ") for line in text.splitlines()):
        if path.startswith("/") or ".." in path.split("/"):
            yield Damage(kind="foreign", path=PACK_LIST, reason=f"it names {path!r}, outside of the pack")
            continue
        try:
            is_same = _sha256(store.read(path)) == digest
        except FileNotFoundError:
            yield Damage(kind="missing", path=path, reason=f"gone, but {PACK_LIST} names it")
        else:
            if not is_same:
                yield Damage(kind="bytes", path=path, reason=f"of other bytes than {PACK_LIST} says")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
