"""Write and check the list of a pack's files with their SHA-256, whose own digest stands for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from framefleet.api.errors import StoreError
from framefleet.api.outputs import RECORDS, Store
from framefleet.plugins.keep.damage import Damage

PACK_LIST = "pack.sha256"  # in the format of `sha256sum --check`
_MAX_BYTES = 1 << 26


def write_list(store: Store, paths: list[str]) -> str:
    """Write the list of these files; return its digest."""
    lines = (f"{store.sha256(path)}  {path}\n" for path in sorted(paths))
    store.write(PACK_LIST, content := "".join(lines).encode())
    return hashlib.sha256(content).hexdigest()


def digest_of_list(store: Store) -> str | None:
    """Return the digest of a pack; None for an output that is not a pack."""
    try:
        return hashlib.sha256(store.read(PACK_LIST, _MAX_BYTES)).hexdigest()
    except FileNotFoundError:
        return None


def damages_of_pack(store: Store) -> Iterator[Damage]:
    """Yield the files of a pack that differ from its list; nothing for an output that is not a pack."""
    try:
        text = store.read(PACK_LIST, _MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    digests = {path: digest for digest, _, path in (line.partition("  ") for line in text.splitlines())}
    for path, digest in digests.items():
        try:
            is_same = store.sha256(path) == digest
        except FileNotFoundError:
            yield Damage(kind="missing", path=path, reason=f"gone, but {PACK_LIST} names it")
        except StoreError as error:
            if error.may_pass:
                raise
            yield Damage(kind="bytes", path=PACK_LIST, reason=error.problem)
        else:
            if not is_same:
                yield Damage(kind="bytes", path=path, reason=f"bytes differ from {PACK_LIST}")
    for path in store.list(RECORDS):
        if path not in digests:  # its rows would be taken for rows of the pack
            yield Damage(kind="part", path=path, reason=f"{PACK_LIST} does not name it")
