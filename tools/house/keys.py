"""Keys of job files that texts name, as `media.crf`, or give to `--set`: the published schemas have them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from typer.testing import CliRunner

from framefleet.jobs.cli import command_line
from tools.house.house import Finding, House
from tools.house.prose import said_wrongly

_KEY = re.compile(r"(?:`|--set )(?P<section>[a-z_]+)\.(?P<key>[a-z_]+)(?=[`:=\s])")
_FILE_ENDINGS = {"bin", "ckpt", "csv", "json", "jsonl", "parquet", "png", "py", "safetensors", "toml", "yaml"}


def unknown_keys(house: House) -> Iterator[Finding]:
    known = sections()

    def problem(_path: str, match: re.Match[str]) -> str | None:
        section, key = match["section"], match["key"]
        is_known = section not in known or key in known[section] | _FILE_ENDINGS
        return None if is_known else f"a job file has no {section}.{key}"

    return said_wrongly(house, _KEY, problem, in_messages=True)


def sections() -> dict[str, set[str]]:
    """Return the keys of each section of a render job or a training's; not of those that take any name."""
    found: dict[str, set[str]] = {}
    for options in ([], ["train"]):
        schema = json.loads(
            CliRunner().invoke(command_line(), ["schema", *options], catch_exceptions=False).stdout
        )
        for name, value in schema["properties"].items():
            if keys := set(_keys(value, schema["$defs"])):
                found.setdefault(name, set()).update(keys)
    return found


def _keys(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in value:
        value = definitions[value["$ref"].rpartition("/")[2]]
    yield from value.get("properties", {})
    for member in value.get("anyOf", []):
        yield from _keys(member, definitions)
