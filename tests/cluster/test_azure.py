"""Azure Blob Storage, as its emulator has it: what a job needs of it, and an outage."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Store
from tests.creates import losers_of_a_race
from tests.faulty_s3 import Fault, faulty_s3
from tests.jobs import job_values, prompt_rows, write_table
from tests.servers import listening

ACCOUNT = "devstoreaccount1"
# Everybody's: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def why_not() -> str:
    """Return what is missing for it; "" where nothing is."""
    if not find_spec("adlfs"):
        return "adlfs is not installed: pip install 'framefleet[azure]'"
    return "" if shutil.which("azurite-blob") else "there is no azurite-blob: npm install -g azurite"


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Yield its endpoint. folder: of what it stores."""
    command = ["azurite-blob", "--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry"]
    with listening([*command, "--blobPort"], folder) as endpoint:
        yield endpoint


def storage_options(endpoint: str, *, key: str = KEY) -> dict[str, Any]:
    said = f"AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint}/{ACCOUNT};"
    return {"connection_string": f"DefaultEndpointsProtocol=http;{said}"}


def new_container(endpoint: str) -> str:
    """Make a container; return its URL."""
    import adlfs

    name = f"container-{uuid.uuid4().hex[:12]}"
    adlfs.AzureBlobFileSystem(**storage_options(endpoint)).mkdir(name)
    return f"az://{name}"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite")) as endpoint:
        yield endpoint


def test_a_whole_job_with_its_table(
    endpoint: str, ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = new_container(endpoint), storage_options(endpoint)
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    Store(url, options).upload("tables/t.parquet", table)
    values = job_values(
        Path("t"), f"{url}/run", storage_options=options, address=ray_cluster, keep_embeddings=True
    ) | {"table": f"{url}/tables/t.parquet"}
    assert framefleet.render(values).done == 4
    assert framefleet.render(values).done == 0
    output = Store(f"{url}/run", options)
    assert len(output.list("clips")) == 4
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", options["connection_string"])
    assert framefleet.verify(f"{url}/run", files=True).is_well
    output.delete(output.list("clips")[0])
    assert not framefleet.verify(f"{url}/run", files=True).is_well


def test_one_of_several_creators_wins(endpoint: str) -> None:
    store = Store(f"{new_container(endpoint)}/run 7", storage_options(endpoint))
    assert len(losers_of_a_race(store, "job.json", num_creators=8)) == 7


@pytest.mark.parametrize("kind", ["refuse", "hang", "reset", "503"])
def test_a_request_is_made_again_until_there_is_an_answer(kind: str, endpoint: str) -> None:
    with faulty_s3(endpoint) as proxy:
        options = storage_options(proxy.endpoint) | {"read_timeout": 2, "connection_timeout": 2}
        store = Store(f"{new_container(endpoint)}/run 7", options, outage_s=60)
        store.write("there", b"1")
        proxy.goes_wrong(Fault(kind=kind, seconds=1))
        if kind == "hang":
            threading.Timer(1, proxy.goes_wrong, [Fault()]).start()
        store.create("created", b"2")
        assert (store.read("created"), proxy.num_faults < 50) == (b"2", True)
