"""An export goes from bucket to bucket."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO

import pytest

import framefleet
from framefleet import Store
from tests.commands import command
from tests.servers import S3Server, s3_process, s3_server
from tests.small_output import rendered

__all__ = ["s3_process", "s3_server"]


def test_bucket_to_bucket(s3_server: S3Server) -> None:
    options = s3_server.storage_options
    source = f"{s3_server.url}/out"
    records = rendered(Store(source, options), 5)
    arguments = ["export", source, f"{s3_server.url}/to", "--format", "webdataset", "--shard-rows", "2"]
    sets = [f"--set=storage_options.{name}={value}" for name, value in options.items()]

    result = command(*arguments, *sets, exits=0)
    assert result.stdout.strip() == f"{s3_server.url}/to"
    assert options["secret"] not in result.output

    place = Store(f"{s3_server.url}/to", options)
    assert place.list("") == [".framefleet/export.json", *(f"shard-00000{number}.tar" for number in range(3))]
    found = []
    for path in place.list("")[1:]:
        with tarfile.open(fileobj=BytesIO(place.read(path))) as tar:
            names = tar.getnames()
            found += [json.load(tar.extractfile(name))["row_id"] for name in names if name.endswith("json")]  # type: ignore[arg-type]
    assert found == [record["row_id"] for record in records]


@pytest.mark.parametrize("format", ["parquet", "hf"])
def test_a_folder_and_a_bucket_get_the_same_bytes(s3_server: S3Server, tmp_path, format) -> None:  # type: ignore[no-untyped-def]
    rendered(Store(str(tmp_path / "out")), 5)
    for place in (str(tmp_path / "to"), f"{s3_server.url}/{format}"):
        framefleet.export(
            str(tmp_path / "out"), place, format=format, to_options=s3_server.storage_options, shard_rows=3
        )
    bucket = Store(f"{s3_server.url}/{format}", s3_server.storage_options)
    folder = Store(str(tmp_path / "to"))
    assert bucket.list("") == folder.list("")
    assert all(bucket.read(path) == folder.read(path) for path in folder.list(""))
