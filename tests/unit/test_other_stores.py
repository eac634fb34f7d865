"""What is set of the libraries for Google Cloud Storage and Azure; played, as they need not be installed."""

from __future__ import annotations

import pytest
from fsspec.registry import known_implementations

from framefleet import Store, UserError
from framefleet.pipeline.outputs.stores import object_store
from framefleet.pipeline.outputs.stores.object_store import ObjectStore
from framefleet.pipeline.outputs.stores.retries import DamagedUpload, Patience
from framefleet.pipeline.rows.tables.table import open_table


def test_a_store_whose_package_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, extra in {
        "gs": "gcs",
        "gcs": "gcs",
        "az": "azure",
        "abfs": "azure",
        "abfss": "azure",
    }.items():
        fix = known_implementations[scheme]["err"]
        monkeypatch.setitem(known_implementations, f"{scheme}x", {"class": "no_such.Files", "err": fix})
        for read, place in ((Store, "run"), (open_table, "t.csv")):
            with pytest.raises(UserError, match="its package is not installed") as refusal:
                read(f"{scheme}x://bucket/{place}")
            assert refusal.value.fix == f"pip install 'framefleet[{extra}]'"


class ChecksumError(Exception):
    """As gcsfs has it."""


class Files:
    """As a file system of gcsfs: what is put arrives damaged, as often as it says."""

    num_damaged = 1

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def pipe_file(self, place: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create" and place in self.objects:
            raise FileExistsError(place)
        self.objects[place] = content if not self.num_damaged else content[:-1]
        if self.num_damaged:
            self.num_damaged -= 1
            raise ChecksumError

    def info(self, place: str) -> dict[str, int]:
        return {"size": len(self.objects[place])}

    def rm_file(self, place: str) -> None:
        del self.objects[place]


def test_what_arrives_damaged_is_not_there_and_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files()
    monkeypatch.setattr(object_store, "_open", lambda *_: (files, "bucket/run"))
    store = ObjectStore("gs://bucket/run", {})
    with pytest.raises(DamagedUpload):
        store.create("job.json", b"every byte")
    assert files.objects == {}
    files.num_damaged = 1
    Patience("gs://bucket/run", 60).ride_out(lambda: store.create("job.json", b"every byte"))
    assert files.objects == {"bucket/run/job.json": b"every byte"}
