"""In: the records of two outputs. Out: pairs of records of the same row.

Two rows are the same if they ask for the same: arguments, seed, scheduler and recipe. The model, and how it
computes, may differ. Arguments that occur in one output alone do not count: an engine's rows have only those
of the table, others also the defaults of their pipeline.
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

AskedRow: TypeAlias = Mapping[str, Any]  # the part of a record that is needed here
RowPair: TypeAlias = tuple[AskedRow, AskedRow | None]  # of ours and theirs

_OF_CLIP = ("row_id", "path", "bytes", "media_sha256", "frames_sha256")
_SIZE = ("height", "width", "num_frames", "fps")
_ASKED = ("seed", "recipe", "model_name")  # besides arguments and the scheduler
_OF_MAKER = ("numerics", "environment", "model_digest")
_OF_ENGINES = ("size", "seconds", "fps")  # arguments that no pipeline has
# asked: the digest of all that a row asks for. key: the digest of what counts, equal for the same rows.
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
    """The rows of two outputs, "ours" and "theirs", on disk, some hundred bytes each.

    is_by_question: rows are matched by what they ask for, and `both` yields those that both sides have; else
    they are matched by a column, and it yields all of ours.
    """

    def __init__(self, *, is_by_question: bool) -> None:
        self._db, self._is_by_question = temporary_tables(_TABLES), is_by_question
        self._names: dict[str, set[str]] = {"ours": set(), "theirs": set()}  # of arguments
        self.made_by = {side: MadeBy() for side in self._names}

    def add(self, side: str, output: Output, watch: Watch, *, key: str | None = None, more: str = "") -> None:
        """Take the records of an output. key: the column by which rows are matched; None: `match` does it.

        more: a column that its records may have.
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
        """Match rows by what they ask for."""
        both = self._names["ours"] & self._names["theirs"]

        def key_of(text: str) -> str:
            record = json.loads(text)
            arguments = arguments_asked(record)
            return _digest({name: value for name, value in arguments.items() if name in both}, record)

        self._db.create_function("key_of", 1, key_of)
        for side in self._names:
            self._db.execute(f"UPDATE {side} SET key = key_of(record)")

    def both(self) -> Iterator[RowPair]:
        """Yield each row of ours with its row of theirs."""
        for ours, theirs, _ in self._db.execute(_PAIRS.format("" if self._is_by_question else "LEFT")):
            yield json.loads(ours), theirs and json.loads(theirs)

    @property
    def only_one_has(self) -> list[str]:
        """The arguments that did not count, or that only ours have."""
        ours, theirs = self._names["ours"], self._names["theirs"]
        return sorted(ours ^ theirs if self._is_by_question else ours - theirs)

    def left_out(self) -> dict[str, int]:
        """Return how many rows are not in `both`, by the reason."""
        reasons = {
            "not in the other output": _ALONE.format("ours", "theirs"),
            "only in the other output": _ALONE.format("theirs", "ours"),
            "asked like another row": _UNCLEAR.format("ours"),
            "asked like another row of the other output": _UNCLEAR.format("theirs"),
        }
        counts = {reason: self._db.execute(query).fetchone()[0] for reason, query in reasons.items()}
        return {reason: num for reason, num in counts.items() if num and self._is_by_question}

    def close(self) -> None:
        self._db.close()


def arguments_asked(row: AskedRow) -> dict[str, Any]:
    """Return a row's arguments and scheduler; an engine's row has its clip's size as pipelines name it."""
    arguments = {name: each_input(value, _unfitted) for name, value in told_arguments(row).items()}
    if row["scheduler"] not in (None, "none"):
        arguments["scheduler"] = row["scheduler"]
    if "engine" in told_arguments({"arguments": row["numerics"]}):
        arguments = {name: value for name, value in arguments.items() if name not in _OF_ENGINES}
        size = _SIZE[:3] if row["fps"] else _SIZE[:2]  # an image has no rate
        arguments |= {name: row[name] for name in size}
    return arguments


def _unfitted(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Return a picture as the table names it, of which an engine gets all."""
    return {key: value for key, value in picture.items() if key != "fit"}


def kind_in(row: AskedRow) -> str:
    """Return the kind of a row, whose record may be anybody's."""
    try:
        model = row.get("model_name") or ""
        return kind_of(Request(arguments=arguments_asked(row), recipe=row["recipe"], model=model))
    except (KeyError, TypeError, ValueError):
        return "unreadable arguments"


def _digest(arguments: Mapping[str, Any], record: AskedRow) -> str:
    asked = [_plain(deciding(arguments)), *(record.get(name) for name in _ASKED)]
    return hashlib.sha256(canonical_json(asked).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """Return a JSON value with 5 in place of 5.0: engines and pipelines write either."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
