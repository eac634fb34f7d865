"""Pair the records of two outputs that are of the same row.

Rows are the same if arguments, seed, scheduler and recipe are equal. The model and its options may differ.
Arguments that occur in only one of the outputs do not count, since an engine's rows have only those of the
table, and others also the defaults of their pipeline.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from framefleet.api.clips import Request, each_input
from framefleet.api.commands import Checked, Watch
from framefleet.api.outputs import RECORDS, Output, rows_of, told_arguments
from framefleet.api.texts import canonical_json
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.rows.identity import deciding
from framefleet.plugins.keep.replay.machines import MadeBy

AskedRow: TypeAlias = Mapping[str, Any]  # the needed part of a record
RowPair: TypeAlias = tuple[AskedRow, AskedRow | None]  # ours, theirs

_OF_CLIP = ("row_id", "path", "bytes", "media_sha256", "frames_sha256")
_SIZE = ("height", "width", "num_frames", "fps")
_ASKED = ("seed", "recipe", "model_name")  # besides arguments and the scheduler
_OF_MAKER = ("numerics", "environment", "model_digest")
_OF_ENGINES = ("size", "seconds", "fps")  # arguments that no pipeline has
# asked: digest of all arguments of a row. key: digest of those that count, equal for the same rows.
_TABLES = """
CREATE TABLE ours (row_id TEXT PRIMARY KEY, asked TEXT, key TEXT, record TEXT);
CREATE TABLE theirs (row_id TEXT PRIMARY KEY, asked TEXT, key TEXT, record TEXT);
CREATE INDEX ours_by_key ON ours (key);
CREATE INDEX theirs_by_key ON theirs (key);
CREATE VIEW unclear AS
    SELECT key FROM ours GROUP BY key HAVING COUNT(DISTINCT asked) > 1
    UNION SELECT key FROM theirs GROUP BY key HAVING COUNT(DISTINCT asked) > 1;
"""
_PAIRS = """
SELECT ours.record, theirs.record, MIN(theirs.row_id) FROM ours {} JOIN theirs
    ON ours.key = theirs.key AND ours.key NOT IN unclear GROUP BY ours.row_id ORDER BY ours.row_id
"""
_UNCLEAR = "SELECT COUNT(*) FROM {} WHERE key IN unclear"
_ALONE = "SELECT COUNT(*) FROM {} WHERE key NOT IN unclear AND key NOT IN (SELECT key FROM {})"


class RowPairs:
    """The rows of two outputs, "ours" and "theirs", on disk, with some hundred bytes each.

    is_by_question: match rows by their arguments, and yield those on both sides; else match them by a column,
    and yield all of ours.
    """

    def __init__(self, *, is_by_question: bool) -> None:
        self._db, self._is_by_question = temporary_tables(_TABLES), is_by_question
        self._names: dict[str, set[str]] = {"ours": set(), "theirs": set()}  # of arguments
        self.made_by = {side: MadeBy() for side in self._names}

    def add(self, side: str, output: Output, watch: Watch, *, key: str | None = None, more: str = "") -> None:
        """Add the records of an output. key: column to match rows by; None: use `match` later.

        more: an optional column of its records.
        """
        if not output.store.list(RECORDS):  # nothing was rendered
            return
        num_rows, wanted = 0, {*_OF_CLIP, *_SIZE, *_ASKED, *_OF_MAKER, "arguments", "scheduler", key, more}
        columns = [name for name in output.schema().names if name in wanted]
        for table in output.records(columns):
            for record in rows_of(table, output.url):
                arguments = arguments_asked(record)
                self.made_by[side].add(record)
                record = {name: value for name, value in record.items() if name not in _OF_MAKER[1:]}
                self._names[side] |= arguments.keys()
                asked = _digest(arguments, record)
                row = (record["row_id"], asked, key and str(record[key]), json.dumps(record))
                self._db.execute(f"INSERT OR REPLACE INTO {side} VALUES (?, ?, ?, ?)", row)
            num_rows += len(table)
            watch.show(Checked(num_rows=num_rows))

    def match(self) -> None:
        """Match rows by their arguments."""
        both = self._names["ours"] & self._names["theirs"]

        def key_of(text: str) -> str:
            record = json.loads(text)
            arguments = arguments_asked(record)
            return _digest({name: value for name, value in arguments.items() if name in both}, record)

        self._db.create_function("key_of", 1, key_of)
        for side in self._names:
            self._db.execute(f"UPDATE {side} SET key = key_of(record)")

    def both(self) -> Iterator[RowPair]:
        """Yield our rows, each with its row of theirs."""
        for ours, theirs, _ in self._db.execute(_PAIRS.format("" if self._is_by_question else "LEFT")):
            yield json.loads(ours), theirs and json.loads(theirs)

    @property
    def only_one_has(self) -> list[str]:
        """The arguments that were ignored, or that only our rows have."""
        ours, theirs = self._names["ours"], self._names["theirs"]
        return sorted(ours ^ theirs if self._is_by_question else ours - theirs)

    def left_out(self) -> dict[str, int]:
        """Return the number of rows left out of `both`, by reason."""
        reasons = {
            "not in the other output": _ALONE.format("ours", "theirs"),
            "only in the other output": _ALONE.format("theirs", "ours"),
            "ambiguous": _UNCLEAR.format("ours"),
            "ambiguous in the other output": _UNCLEAR.format("theirs"),
        }
        counts = {reason: self._db.execute(query).fetchone()[0] for reason, query in reasons.items()}
        return {reason: num for reason, num in counts.items() if num and self._is_by_question}

    def close(self) -> None:
        self._db.close()


def arguments_asked(row: AskedRow) -> dict[str, Any]:
    """Return a row's arguments and scheduler. An engine's row gets its clip's size, named as in pipelines."""
    arguments = {name: each_input(value, _unfitted) for name, value in told_arguments(row).items()}
    if row["scheduler"] not in (None, "none"):
        arguments["scheduler"] = row["scheduler"]
    if "engine" in told_arguments({"arguments": row["numerics"]}):
        arguments = {name: value for name, value in arguments.items() if name not in _OF_ENGINES}
        size = _SIZE[:3] if row["fps"] else _SIZE[:2]  # an image has no rate
        arguments |= {name: row[name] for name in size}
    return arguments


def _unfitted(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Return a picture without its fit, since an engine gets the whole picture."""
    return {key: value for key, value in picture.items() if key != "fit"}


def kind_in(row: AskedRow) -> str:
    """Return the kind of a row. Its record is not trusted."""
    try:
        model = row.get("model_name") or ""
        return kind_of(Request(arguments=arguments_asked(row), recipe=row["recipe"], model=model))
    except (KeyError, TypeError, ValueError):
        return "unreadable arguments"


def _digest(arguments: Mapping[str, Any], record: AskedRow) -> str:
    asked = [_plain(deciding(arguments)), *(record.get(name) for name in _ASKED)]
    return hashlib.sha256(canonical_json(asked).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """Return a JSON value with 5 instead of 5.0, since engines and pipelines write either."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
