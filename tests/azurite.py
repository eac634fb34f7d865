"""Azure's own emulator of Blob Storage, for tests that are skipped where it is not installed.

npm install -g azurite; pip install 'framefleet[azure]'
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
