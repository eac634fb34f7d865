"""What must hold of an output when all is over, read as anybody would: every part, every clip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from framefleet.pipeline.outputs.stores.store import Store
from tests.jobs import all_columns

# What only those who write leave on their way, and nobody finds after them.
PASSING = ("pending", "checkpoints", "failures")


def frames_by_seed(store: Store) -> dict[int, str]:
    """Return the digest of each row's frames. AssertionError where a row has two records."""
    rows = all_columns(store, "records").to_pylist()
    seeds = [row["seed"] for row in rows]
    assert len(set(seeds)) == len(seeds), f"{len(seeds)} records of {len(set(seeds))} rows"
    return {row["seed"]: row["frames_sha256"] for row in rows}


def check(store: Store, undisturbed: Mapping[int, str]) -> None:
    """Raise AssertionError unless each row has one record, with its frames, and no object is astray."""
    found = frames_by_seed(store)
    assert found.keys() == undisturbed.keys(), f"no records of {undisturbed.keys() - found.keys()}"
    changed = [seed for seed in found if found[seed] != undisturbed[seed]]
    assert not changed, f"other frames of the rows {changed}"
    records = all_columns(store, "records").to_pylist()
    named = {row["path"]: row["media_sha256"] for row in records}
    there = set(store.list("clips"))
    assert there == named.keys(), f"astray {there - named.keys()}, missing {named.keys() - there}"
    for path, digest in named.items():
        assert hashlib.sha256(store.read(path)).hexdigest() == digest, f"{path} is not what its record says"
    for folder in PASSING:
        assert not store.list(folder), f"left in {folder}/: {store.list(folder)}"
