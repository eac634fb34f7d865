"""Which places that an output names are opened on its word: the output may be somebody else's."""

from __future__ import annotations

import re

# Stores of objects, which answer where the credentials are for. Behind other URLs there may be anything, as a
# web server of this machine's network.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "file", "hf")


def is_opened(place: str) -> bool:
    """Tell whether a place is a folder, a hub model or in an object store."""
    scheme = re.match("([a-z0-9]+)://", place)
    is_plain = scheme[1] in STORES if scheme else "://" not in place
    return is_plain and "::" not in place and not place.startswith("~")
