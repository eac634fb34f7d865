"""From the files that a table names to what each contains, or why it is refused. Each is read only once.

Parts of a video that rows far apart name are an exception: their file may be read again.

The answers are on disk, about 200 bytes each, see `guards/temporary_tables.py`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from queue import SimpleQueue

from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.arguments import MAX_READ_BYTES
from framefleet.pipeline.rows.inputs.pictures import Described, Describer
from framefleet.pipeline.rows.inputs.video_parts import VideoPart, split_part
from framefleet.pipeline.rows.tables.rows import Finder

Answer = Described | Refused
_Questions = deque[
    tuple[tuple[str, MediaKind], dict[bytes, VideoPart | None]]
]  # for each file, its parts by key
_Answers = SimpleQueue[tuple[bytes, Answer | Exception]]

# Reading waits for networks. Each thread may hold a file.
_NUM_THREADS = 16
_SCHEMA = "CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;"


class InputIndex(Finder):
    """What the files of `inputs` contain; each is read once. For one thread at a time.

    If the store of a root does not answer, that is not a row's fault: `prefetch` and `find` raise StoreError.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._files, self._describer = inputs, _Files(inputs.read), Describer()
        self._db = temporary_tables(_SCHEMA)
        # Ends the sandboxes even if nobody calls `close`, as with a renderer.
        self._end_sandboxes = weakref.finalize(self, self._describer.close)

    def prefetch(self, wanted: Iterable[tuple[str, MediaKind]]) -> None:
        by_key = {_key(*question): question for question in wanted}
        files: dict[tuple[str, MediaKind], dict[bytes, VideoPart | None]] = {}
        num_new, shared = 0, set[str]()
        for key, (place, kind) in by_key.items():
            uri, part = split_part(place) if kind == "video" else (place, None)
            if part:
                shared.add(uri)
            if self._recall(key) is None:
                files.setdefault((uri, kind), {})[key] = part
                num_new += 1
        new = deque(files.items())
        answers: _Answers = SimpleQueue()
        for number in range(min(_NUM_THREADS, len(files))):
            # Daemons, unlike the threads of a pool: after Ctrl-C nobody waits for slow hosts.
            work = (self._files, self._describer, new, answers)
            threading.Thread(target=_work, args=work, name=f"input-{number}", daemon=True).start()
        try:
            for _ in range(num_new):
                key, answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                self._remember(key, answer)
        finally:
            new.clear()  # ends the threads after their current file
            self._files.keep_only(shared)

    def find(self, uri: str, kind: MediaKind) -> Answer:
        """Return what `uri` contains, or why it is not of this `kind`. Reads it unless it was prefetched."""
        if (answer := self._recall(_key(uri, kind))) is None:
            self.prefetch([(uri, kind)])
            answer = self._recall(_key(uri, kind))
        assert answer is not None
        return answer

    def knows(self, uri: str, kind: MediaKind) -> bool:
        return self._recall(_key(uri, kind)) is not None

    def remember(self, uri: str, kind: MediaKind, described: Described) -> None:
        """Add an answer of an earlier run, so that the file is not read again."""
        self._remember(_key(uri, kind), described)

    def locate(self, uri: str) -> str:
        return self._inputs.locate(uri)

    def close(self) -> None:
        self._end_sandboxes()
        self._db.close()

    def _remember(self, key: bytes, answer: Answer) -> None:
        self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(asdict(answer))))

    def _recall(self, key: bytes) -> Answer | None:
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        return Refused(**values) if "reason" in values else Described(**values)


class _Files:
    """Reads files, and keeps those that rows name parts of while the next rows name others. For threads."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._kept: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def read(self, uri: str, *, is_shared: bool) -> bytes:
        if (content := self._kept.get(uri)) is not None:
            return content
        content = self._read(uri)
        with self._lock:
            if is_shared and sum(map(len, self._kept.values())) + len(content) <= MAX_READ_BYTES:
                self._kept[uri] = content
        return content

    def keep_only(self, uris: Collection[str]) -> None:
        with self._lock:
            self._kept = {uri: content for uri, content in self._kept.items() if uri in uris}


def _work(files: _Files, describer: Describer, questions: _Questions, answers: _Answers) -> None:
    while True:
        try:
            (uri, kind), parts = questions.popleft()
        except IndexError:  # another thread took the last one
            return
        described: Sequence[Described | Exception]
        try:
            content = files.read(uri, is_shared=any(parts.values()))
            described = describer.describe_parts(content, kind, [*parts.values()])
        except Exception as error:  # threads have no caller: `prefetch` raises it
            described = [error] * len(parts)
        for key, result in zip(parts, described, strict=True):
            if isinstance(result, InputError):
                answers.put((key, Refused(reason=result.problem, fix=result.fix)))
            else:
                answers.put((key, result))


def _key(uri: str, kind: MediaKind) -> bytes:
    """Return 16 bytes in place of a URL, which may be long."""
    return hashlib.sha256(f"{kind} {uri}".encode("utf-8", "surrogatepass")).digest()[:16]
