"""Images in a bucket: read below the roots with the job's storage_options, and told why where not."""

from __future__ import annotations

from contextlib import closing

import pytest

from framefleet import Inputs, Store
from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.inputs.survey import InputIndex
from tests.media_files import image_file
from tests.servers import S3Server


def test_a_table_reads_below_its_roots_in_a_bucket_and_nowhere_else(s3_server: S3Server) -> None:
    url = s3_server.url
    store = Store(url, s3_server.storage_options)
    for path in ("tables/images/a b?c#d.png", "images/a.png", "images-too/a.png"):
        store.write(path, image_file())
    store.write("images/empty.png", b"")
    store.write("images/page.png", b"<html>")
    inputs = Inputs([f"{url}/tables", f"{url}/images"], s3_server.storage_options)
    with closing(InputIndex(inputs)) as index:
        for uri in ("images/a b?c#d.png", f"{url}/images/a.png", "../images/a.png"):
            assert isinstance(index.find(uri, "image"), Described)
        refused = {
            "none.png": "it does not exist",
            f"{url}/images/empty.png": "it is an empty file",
            f"{url}/images/page.png": "it is a web page, not an image",
            f"{url}/images-too/a.png": "it lies outside of inputs.roots",
            "../images-too/a.png": "it lies outside of inputs.roots",
            "s3://no-such-bucket/a.png": "it lies outside of inputs.roots",
        }
        for uri, reason in refused.items():
            answer = index.find(uri, "image")
            assert isinstance(answer, Refused) and answer.reason == reason and answer.fix
    with pytest.raises(InputError, match="does not exist"):
        Inputs(["s3://no-such-bucket/x"], s3_server.storage_options).read("a.png")
