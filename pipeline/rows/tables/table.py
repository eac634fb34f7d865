"""From a path, folder, glob or URL to record batches in table order, never the whole table in memory.

A folder of images or videos is a table too, with one row per file. Its columns are `image` or `video`, the
path below the folder; `file`, the same path, which is carried; and `prompt` if there are text files with the
same names, as in datasets for training.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat, takewhile
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from framefleet.pipeline.errors import FramefleetError, PluginError, TableError, names_text
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.guards.redaction import (
    check_url,
    keep_secrets,
    public_text,
    public_url,
    without_query,
)
from framefleet.pipeline.guards.regular_file import check_regular
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.stores.object_store import CHECKSUMS_REFUSED, stamp_of, without_checksums
from framefleet.pipeline.outputs.stores.retries import OUTAGE_S, Patience, trouble_of, why_unread
from framefleet.pipeline.rows.tables import table_files
from framefleet.pipeline.rows.tables.file_reading import may_lack_columns
from framefleet.pipeline.rows.tables.formats import ENDINGS, TO_UTF_8, file_format, raw_bytes
from framefleet.pipeline.rows.tables.table_files import TableFile, find_rows, open_batches, read_schema
from framefleet.pipeline.rows.tables.table_source import table_source

log = logging.getLogger(__name__)

# Extensions of files that rows can name; next to videos, .gif is a video.
_IMAGES = ".png .jpg .jpeg .jpe .jfif .jif .webp .bmp .dib .tif .tiff .gif .apng"
_VIDEOS = ".mp4 .m4v .mov .qt .3gp .3g2 .mkv .webm .avi .divx .flv .f4v .wmv .asf .ogv .ogm .mpg .mpeg .mpe"
_VIDEOS += " .m2v .vob .ts .mts .m2ts .mxf .dv .nut .ivf .y4m"
_COLUMNS = dict.fromkeys(_IMAGES.split(), "image") | dict.fromkeys(_VIDEOS.split(), "video")
_PROMPTS = (".txt", ".caption")  # extensions of prompts next to images
HIDDEN_PREFIXES = (".", "~$")
_OF_SYSTEMS = {"@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
_OF_SYSTEMS |= {"system volume information", "thumbs.db", "desktop.ini", "__macosx"}
_ABOUT = {"readme", "license"}  # files in most data sets of the hub
_MOST_ENDINGS = 8  # in a message
_MAX_PROMPT = 65_536  # bytes, the same as for a cell
_NUM_READERS, _AT_ONCE = 16, 256  # threads, and files that wait for them
_MAX_TEXT = 256 << 20  # bytes of all prompts, which are in memory


@dataclass(frozen=True, slots=True)
class ListedFolder:
    """A minimal file system for readers of a table: its only file is the table of a folder's files."""

    content: bytes

    def open(self, path: str, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.content)

    def info(self, path: str) -> dict[str, Any]:
        return {"size": len(self.content), "etag": hashlib.sha256(self.content).hexdigest()}


def media_column(path: str) -> str | None:
    """Return the column that names a file: image or video; None for other files."""
    return _COLUMNS.get(PurePosixPath(path).suffix.lower())


def list_media(
    filesystem: Any,
    files: Sequence[str],
    below: Collection[str],
    *,
    folder: str,
    location: str,
    patience: Patience,
) -> ListedFolder:
    """Return the table of these images or videos. below: all files of the folder. Raises TableError."""
    columns = {media_column(path): path for path in files if not path.lower().endswith(".gif")}
    columns = columns or {"image": files[0]}
    if len(columns) > 1:
        both = " and ".join(str(path) for path in columns.values())
        problem = f"{location} has images and videos: {both}"
        raise TableError(problem, "use a folder with only images or only videos")
    names = [path[len(folder.rstrip("/")) + 1 :] for path in files]
    # Cells are stripped, and may be lists.
    places = [f"./{name}" if name[0].isspace() or name[0] == "[" else name for name in names]
    rows: dict[Any, Any] = {next(iter(columns)): places, "file": names}
    texts = prompt_files(files, below)
    size, prompts = 0, dict[str, str]()
    for text, content in _read_each(filesystem, sorted(texts.values()), patience):
        size += len(content)
        if len(content) > _MAX_PROMPT or size > _MAX_TEXT:
            of = f"{text} is" if len(content) > _MAX_PROMPT else f"the prompts in {location} are"
            most = _MAX_PROMPT if len(content) > _MAX_PROMPT else _MAX_TEXT
            raise TableError(f"{of} longer than {most:,} bytes", "shorten it, or write a table of the files")
        try:
            prompts[text] = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise TableError(f"the prompt {text} is not UTF-8", TO_UTF_8) from None
    if texts:
        rows["prompt"] = [prompts.get(texts.get(path, "")) for path in files]
    return ListedFolder(
        _as_parquet(pa.table({name: pa.array(cells, pa.string()) for name, cells in rows.items()}))
    )


def _read_each(filesystem: Any, paths: Sequence[str], patience: Patience) -> Iterator[tuple[str, bytes]]:
    """Yield each path with its bytes, up to one more than a prompt may have."""

    def read(path: str) -> bytes:
        if isinstance(filesystem, LocalFileSystem):
            check_regular(path)
        return patience.ride_out(lambda: filesystem.cat_file(path, 0, _MAX_PROMPT + 1))

    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            yield from zip(some, readers.map(read, some), strict=True)


def _as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def prompt_files(files: Sequence[str], below: Iterable[str]) -> dict[str, str]:
    """Return by file the text file with the same name; if there are several, the one that ends in .txt."""
    texts = {
        PurePosixPath(path).with_suffix(""): path
        for path in sorted(below)
        if PurePosixPath(path).suffix.lower() in _PROMPTS
    }
    stems = ((path, PurePosixPath(path).with_suffix("")) for path in files)
    return {path: texts[stem] for path, stem in stems if stem in texts}


def read_parquet(content: bytes, name: str) -> pa.Table:
    """Return the rows of a Parquet file, which a sandbox reads. name: for messages. Raises TableError."""
    file = TableFile(
        filesystem=ListedFolder(content),
        path=name,
        format="parquet",
        arguments={},
        patience=Patience(name, 0),
    )
    schema, _ = read_schema(file)
    batches, size = list[pa.RecordBatch](), 0
    for batch in open_batches(file, schema, batch_rows=1024, first_row=0):
        batches.append(batch)
        size += batch.nbytes
        if size > _MAX_TABLE:
            raise TableError(f"{name} takes more than {_MAX_TABLE:,} bytes of memory", "split it")
    return pa.Table.from_batches(batches, schema)


MAX_LISTED = 100_000  # files below a local folder
_MAX_TABLE = 1 << 30  # of a table that is read whole: several times what LeRobot writes
MAX_ROWS = 100_000_000  # a kilobyte may hold this many, and each takes 24 bytes of disk while a job runs
_ALIKE = 0.75  # for names of files, whose extensions are mostly the same
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads it
_TEXT_COLUMNS: dict[str, ArgumentKind] = dict.fromkeys(
    ("prompt", "negative_prompt", "scheduler", "recipe"), "str"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that can be read as often as needed. Rows are numbered from 0, file by file in sorted order.

    location: for messages; a URL without credentials.
    lengths: number of rows of each file; only for Parquet, where it costs nothing.
    """

    location: str
    sources: tuple[TableFile, ...]
    schema: pa.Schema
    lengths: tuple[int, ...] | None

    @property
    def media(self) -> str | None:
        """The column that names files (image or video) if the table is a folder; else None."""
        if not isinstance(self.sources[0].filesystem, ListedFolder):
            return None
        return next((name for name in ("image", "video") if name in self.schema.names), None)

    @property
    def num_rows(self) -> int | None:
        return None if self.lengths is None else sum(self.lengths)

    def batches(self, batch_rows: int = 1024, *, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (index of the first row, up to `batch_rows` rows) in order, without rows before `start`."""
        first = 0
        for source, length in zip(self.sources, self.lengths or repeat(0), strict=False):
            skip = min(length, max(0, start - first))
            in_file = pa.schema([field for field in self.schema if field.name not in source.own_columns])
            batches = open_batches(source, in_file, batch_rows=batch_rows, first_row=first, skip=skip)
            first += skip
            for batch in batches if not length or skip < length else ():
                if source.partition:
                    batch = table_files.with_own_columns(batch, source)
                for offset in range(0, batch.num_rows, batch_rows):
                    part = batch.slice(offset, batch_rows)
                    yield first, part
                    first += part.num_rows
                    self._check_length(first)
        if first == 0:
            raise TableError(f"table {self.location} has no rows", "add rows, or use another table")

    def joined(self, others: Sequence[Table]) -> Table:
        """Return this table followed by the rows of others. Raises TableError if their columns differ."""
        for other in others:
            own, names = self.schema.names, other.schema.names
            if missing := [name for name in names if name not in own]:
                columns = "no column" if len(missing) == 1 else "no columns"
                problem = f"has {columns} {names_text(missing)}, but rows that were added to it do"
                fix = "add what is missing, empty where its rows have no value"
            elif more := [name for name in own if name not in names]:
                columns = "the column" if len(more) == 1 else "the columns"
                problem = f"has {columns} {names_text(more)}, but rows that were added to it do not"
                fix = "use the table that they were added to, with its columns, or another output"
            else:
                problem = "has its columns in another order than rows that were added to it"
                fix = f"write them in this order: {', '.join(map(repr, names))}"
            if names != own:
                raise TableError(f"table {self.location} {problem}: {other.location}", fix)
        every = [self.lengths, *(other.lengths for other in others)]
        sources = [source for table in (self, *others) for source in table.sources]
        lengths = None if None in every else tuple(length for some in every for length in some or ())
        table = replace(self, sources=tuple(sources), lengths=lengths)
        table._check_length(table.num_rows or 0)
        return table

    def stamps(self) -> list[tuple[str, str, str]] | None:
        """Return (path, size, stamp) of each file, which differ after any change; None without stamps."""
        infos = [(source.path, source.filesystem.info(source.path)) for source in self.sources]
        stamps = [(path, str(info.get("size")), stamp_of(info)) for path, info in infos]
        return stamps if all(stamp for *_, stamp in stamps) else None

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return where rows are, e.g. "line 19", or "b.csv line 4" if there are several files."""
        places: dict[int, str] = {}
        first, is_one = 0, len(self.sources) == 1
        for source in self.sources:
            waiting = sorted(row - first for row in rows if row not in places)
            if not waiting or (is_one and source.format == "parquet"):
                break
            lines, num_rows = find_rows(source, waiting)
            parts = PurePosixPath(source.path).parts[-1 - len(source.partition) :]  # with its partition
            file = "" if is_one else f"{'/'.join(parts)} "
            places |= {first + row: f"{file}{place}" for row, place in lines.items()}
            first += num_rows
        return places

    def _check_length(self, num_rows: int) -> None:
        if num_rows > MAX_ROWS:
            problem = f"table {self.location} has more than {MAX_ROWS:,} rows"
            raise TableError(problem, "split it into several jobs")


def folder_of(location: str) -> str:
    """Return the folder of a table, or the table itself if it is a folder: paths in cells start there."""
    location = table_source(location)[1]
    plain = without_query(location) if "://" in location else os.path.abspath(os.path.expanduser(location))
    parts = plain.split("/")
    is_there = "://" not in location and os.path.lexists(plain)  # its name may look like a pattern
    fixed = next((i for i, part in enumerate(parts) if not is_there and has_magic(part)), len(parts))
    is_file = fixed == len(parts) and file_format(plain) is not None and not os.path.isdir(plain)
    return "/".join(parts[: fixed - 1] if is_file else parts[:fixed]) or "/"


def open_table(
    location: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    arguments: Mapping[str, ArgumentKind] | None = None,
    outage_s: float = OUTAGE_S,
    has_answered: bool = False,
    is_made: bool = False,
) -> Table:
    """Return the table at `location`: Parquet, CSV, TSV or JSONL (the latter three also as .gz, .bz2, .xz).

    Also a folder with only images or only videos: each is a row.

    arguments: columns whose cells are checked later, see `row_plan.argument_columns`. In CSV and JSONL they
    are text, so that one odd cell means one refused row and not a refused file. Other columns in these
    formats get the type that fits the first megabyte; a later cell that does not fit is an error that names
    the row. outage_s: how long its store may be unreachable while it is read. has_answered: the store
    answered before, so it may be unreachable at the start too. is_made: as in `FileToRead`.
    """
    shown, place, options = public_url(location), location, dict(storage_options or {})
    source, location = table_source(location)
    check_url(location)
    keep_secrets([storage_options, location])
    if location.startswith("hf://") and os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        raise TableError(
            f"table {shown} cannot be read: HF_HUB_OFFLINE is set, and its store is the hub",
            "unset HF_HUB_OFFLINE; or download the table with `hf download`, and name the file",
        )
    try:
        filesystem, path = fsspec.core.url_to_fs(location, **options)
        filesystem.invalidate_cache()  # of listings, from an earlier look
        patience = Patience(shown, outage_s)
        patience.has_answered = has_answered
        if source is None:
            listed = partial(_paths, filesystem, path, shown)
            paths, root, folder = patience.ride_out(listed) if has_answered else listed()
        else:
            made = partial(source.rows, filesystem, path, shown)
            rows = patience.ride_out(made) if has_answered else made()
            if not isinstance(rows, pa.Table):
                problem = f"{shown}: `rows` of {type(source).__name__} returned {type(rows).__name__}"
                raise PluginError(problem, "have it return a pyarrow.Table")
            filesystem = ListedFolder(_as_parquet(rows))
            paths, root, folder = [f"{path.rstrip('/')}/rows.parquet"], path, path
        if media_column(paths[0]):
            below = _below(filesystem, folder, shown)
            filesystem = list_media(
                filesystem, paths, below, folder=folder, location=shown, patience=patience
            )
            paths, root = [f"{folder.rstrip('/')}/files.parquet"], folder
        kinds = _TEXT_COLUMNS | dict(arguments or {})
        same = {"filesystem": filesystem, "arguments": kinds, "patience": patience, "is_made": is_made}
        files = [TableFile(path=name, format=file_format(name), **same) for name in paths]
        sources = table_files.with_partitions(files, root)
        schema, lengths = _one_schema(sources)
        own = [pa.field(name, value.type) for name, value in sources[0].partition.items()]
        own = [field for field in own if field.name not in schema.names]
        schema = pa.schema([*schema, *own])
        own_columns = frozenset(field.name for field in own)
        sources = tuple(replace(source, own_columns=own_columns) for source in sources)
    except Exception as error:  # stores have their own errors: botocore's and aiohttp's are not OSErrors
        is_ours = isinstance(error, FramefleetError)
        of_store = error.__cause__ if is_ours and error.__cause__ else error
        if (plain := without_checksums(location, options, of_store)) is not None:
            table = open_table(
                place,
                plain,
                arguments=arguments,
                outage_s=outage_s,
                has_answered=has_answered,
                is_made=is_made,
            )
            log.warning(CHECKSUMS_REFUSED, shown)
            return table
        if is_ours:
            raise
        message, fix = why_unread(error)
        raise TableError(f"table {shown} cannot be read: {message}", fix) from (
            error if public_text(str(error)) == str(error) else None  # a traceback would show its secrets
        )
    if lengths is not None and not sum(lengths):
        raise TableError(f"table {shown} has no rows", "add rows, or use another table")
    table = Table(location=shown, sources=sources, schema=schema, lengths=lengths)
    table._check_length(sum(lengths or ()))
    return table


def _paths(filesystem: Any, path: str, location: str) -> tuple[list[str], str, str]:
    """Return the table's files in sorted order, the table's folder, and the folder that was named."""
    folder, below = path, list[str]()
    if has_magic(path) and not filesystem.exists(path):
        parts = PurePosixPath(path).parts
        folder = str(PurePosixPath(*takewhile(lambda part: not has_magic(part), parts)))
        matches = filesystem.glob(path, detail=True).items()
        below = [name for name, details in matches if details["type"] != "directory"]
        if not below:
            _raise_refusal(filesystem, folder)
        files, root = visible(below, folder) or visible(below, folder, media_column), _table_folder(folder)
        below_root = (PurePosixPath(file).relative_to(root).parents for file in files)
        # Without folders of partitions, because there are many.
        folders = {
            str(PurePosixPath(root, folder))
            for parents in below_root
            for folder in parents
            if "=" not in folder.name
        }
        table_files.check_lake_folders(filesystem, sorted({root, *folders}), location)
    elif file_format(path) and filesystem.isfile(path):  # http has no folders, and isdir() reads the page
        files, root = [path], _table_folder(filesystem._parent(path))
        if isinstance(filesystem, LocalFileSystem):
            table_files.check_lake_folders(filesystem, [root], location)
    elif filesystem.isdir(path):
        below, root = _below(filesystem, path, location), _table_folder(path)
        table_files.check_lake_files(filesystem, below, location)
        table_files.check_lake_folders(filesystem, [root], location)
        files = visible(below, path) or visible(below, path, media_column)
    else:
        if isinstance(filesystem, LocalFileSystem) and filesystem.exists(path):
            check_regular(path)
        _raise_refusal(filesystem, path)
        raise _no_table(filesystem, path, location)
    for file in files:
        try:
            file.encode()
        except UnicodeEncodeError:
            problem = f"{location} has a file whose name is not UTF-8: {raw_bytes(file)!r}"
            raise TableError(problem, "rename it") from None
        if isinstance(filesystem, LocalFileSystem):
            check_regular(file)
    others = _other_files(below, files, folder)
    if not files:
        problem = f"no table files in {location}" + (f", which contains {others}" if others else "")
        kinds = "; png, jpeg, webp, bmp, tiff and gif images, and videos, are rows too"
        raise TableError(problem, ENDINGS + kinds)
    formats = {file_format(name): name for name in files}
    if len(formats) > 1:
        both = " and ".join(list(formats.values())[:2])
        problem = f"files of several formats in {location}: {both}"
        raise TableError(problem, "use a glob, e.g. folder/*.parquet")
    if others:
        log.warning("table %s: not read: %s", location, others)
    return files, root, folder


def _raise_refusal(filesystem: Any, path: str) -> None:
    """Raise the store's error for a path: isfile(), isdir() and exists() return False for every error."""
    try:
        filesystem.info(path)
    except Exception as error:  # see `trouble_of`
        if trouble_of(error) != "other":
            raise


def _other_files(below: Collection[str], files: Sequence[str], folder: str) -> str:
    """Return how many other files a folder has, besides rows and their prompts: "3 .heic, 1 .avif"."""
    is_media = bool(files) and media_column(files[0]) is not None
    used = {*files, *(prompt_files(files, below).values() if is_media else ())}
    others = {
        *visible(below, folder, str, hidden=HIDDEN_PREFIXES if is_media else (*HIDDEN_PREFIXES, "_"))
    } - used
    return endings_of(others)


def endings_of(paths: Collection[str]) -> str:
    """Return how many files there are of each kind, "3 .heic, 1 .avif", without those about a data set."""
    others = [path for path in paths if PurePosixPath(path).stem.lower() not in _ABOUT]
    endings = Counter(PurePosixPath(path).suffix.lower() or "without an extension" for path in others)
    most = endings.most_common(_MOST_ENDINGS)
    texts = [f"{num:,} {ending}" for ending, num in most]
    if more := endings.total() - sum(num for _, num in most):
        texts.append(f"{more:,} others")
    return ", ".join(texts)


def _below(filesystem: Any, path: str, location: str) -> list[str]:
    """Return all files below a folder. Raises TableError for too many in a local one, e.g. in `/`."""
    if not isinstance(filesystem, LocalFileSystem):
        return filesystem.find(path)
    paths: list[str] = []
    for folder, _, files in filesystem.walk(path):
        paths += [f"{folder.rstrip('/')}/{name}" for name in files]
        if len(paths) > MAX_LISTED:
            problem = f"{location} has more than {MAX_LISTED:,} files"
            raise TableError(problem, "use the table's own folder")
    return paths


def visible(
    paths: Collection[str],
    root: str,
    kind_of: Callable[[str], str | None] = file_format,
    *,
    hidden: tuple[str, ...] = (*HIDDEN_PREFIXES, "_"),
) -> list[str]:
    """Return the sorted files of a kind, without hidden ones: Spark's _SUCCESS, editors' .swp, Excel's ~$."""
    depth = len(PurePosixPath(root).parts)

    def shown(path: str) -> bool:
        *folders, name = PurePosixPath(path).parts[depth:]
        if media_column(name):
            name = name.lstrip("_")  # cameras write _DSC0001.jpg
        # A folder `_split=train` is a column.
        names = [name, *(folder for folder in folders if "=" not in folder)]
        return not any(part.startswith(hidden) or part.lower() in _OF_SYSTEMS for part in names)

    return sorted(path for path in paths if shown(path) and kind_of(path))


def _table_folder(folder: str) -> str:
    """Return the folder of the whole table: `orders` for orders/year=2025, which is a partition."""
    path = PurePosixPath(folder)
    while "=" in path.name and len(path.parts) > 1:  # relative paths, with a single part, are in archives
        path = path.parent
    return str(path)


def _no_table(filesystem: Any, path: str, location: str) -> TableError:
    name = PurePosixPath(path).name
    try:
        names = [PurePosixPath(near).name for near in filesystem.ls(filesystem._parent(path), detail=False)]
    except Exception:  # no such folder, or the store cannot list: only a hint is lost
        names = []
    if name in names:
        if name.lower().endswith((".xlsx", ".xlsm", ".xls", ".ods")):
            problem = f"table {location} is a spreadsheet, which cannot be read"
            return TableError(problem, "save the sheet as CSV UTF-8")
        of_lines = "; for a prompt per line, use a sweep: --sweep prompt=@prompts.txt" * name.endswith(".txt")
        return TableError(f"table {location} does not end like a table", ENDINGS + of_lines)
    near = nearest(name, names, cutoff=_ALIKE)
    fix = (
        f"did you mean {near[0]!r}?"
        if near
        else "check the path; prompts go into a table, or in Python into a list"
    )
    return TableError(f"table {location} does not exist", fix)


def _one_schema(sources: tuple[TableFile, ...]) -> tuple[pa.Schema, tuple[int, ...] | None]:
    """Return the schema that all files share, and for Parquet the number of rows of each."""
    schema, lengths = pa.schema([]), list[int]()
    for number, source in enumerate(sources):
        other, length = read_schema(source)
        if doubled := sorted({name for name in other.names if other.names.count(name) > 1}):
            raise TableError(f"{source.path} has the column {doubled[0]!r} twice", "rename one of them")
        if length is None:
            return other, None  # CSV and JSONL are checked against this schema as they are read
        lengths.append(length)
        wanted = schema = schema if number else other
        if may_lack_columns(source.path, schema):
            schema = pa.schema([*schema, *(field for field in other if field.name not in schema.names)])
            wanted = pa.schema([schema.field(name) for name in other.names])
        if not other.equals(wanted):
            raise TableError(
                f"{source.path} and {sources[0].path} have different columns: {_difference(other, schema)}",
                "write all files of a table with the same columns, in one order and with the same types",
            )
    return schema, tuple(lengths)


def _difference(one: pa.Schema, other: pa.Schema) -> str:
    for field in one:
        if field.name not in other.names:
            return f"{field.name!r} is only in the first"
        if field.type != other.field(field.name).type:
            second = other.field(field.name).type
            return f"{field.name!r} is {field.type} in the first and {second} in the second"
    missing = [name for name in other.names if name not in one.names]
    return f"{missing[0]!r} is only in the second" if missing else "they are in another order"
