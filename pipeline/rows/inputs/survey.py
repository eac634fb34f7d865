"""From the files that a table names to what each holds, or why it is refused: read once, remembered on disk.

About 200 bytes of disk for each answer, see `guards/temporary_tables.py`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from queue import SimpleQueue

from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.model.specs.signature import MediaKind
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.pictures import Described, Describer
from framefleet.pipeline.rows.inputs.video_parts import VideoPart, split_part
from framefleet.pipeline.rows.tables.rows import Finder

Answer = Described | Refused
_Questions = deque[
    tuple[tuple[str, MediaKind], dict[bytes, VideoPart | None]]
]  # of files: by keys, their parts
_Answers = SimpleQueue[tuple[bytes, Answer | Exception]]

# Reading waits for networks. Each thread may hold a file.
_NUM_THREADS = 16
_SCHEMA = "CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;"


class InputIndex(Finder):
    """What the files hold that `inputs` may read, each asked for once; for one thread at a time.

    A store of a root that does not answer is not a row's fault: both methods raise its StoreError.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._describer = inputs, Describer()
        self._db = temporary_tables(_SCHEMA)
        # Of a renderer's, which nobody closes, the sandboxes end too.
        self._end_sandboxes = weakref.finalize(self, self._describer.close)

    def prefetch(self, wanted: Iterable[tuple[str, MediaKind]]) -> None:
        by_key = {_key(*question): question for question in wanted}
        files: dict[tuple[str, MediaKind], dict[bytes, VideoPart | None]] = {}
        num_new = 0
        for key, (place, kind) in by_key.items():
            if self._recall(key) is None:
                uri, part = split_part(place) if kind == "video" else (place, None)
                files.setdefault((uri, kind), {})[key] = part
                num_new += 1
        new = deque(files.items())
        answers: _Answers = SimpleQueue()
        for number in range(min(_NUM_THREADS, len(files))):
            # Daemons, which a pool's threads are not: after Ctrl-C nobody waits for slow hosts.
            work = (self._inputs, self._describer, new, answers)
            threading.Thread(target=_work, args=work, name=f"input-{number}", daemon=True).start()
        try:
            for _ in range(num_new):
                key, answer = answers.get()
                if isinstance(answer, Exception):
                    raise answer
                self._remember(key, answer)
        finally:
            new.clear()  # which ends the threads, after what they are at

    def find(self, uri: str, kind: MediaKind) -> Answer:
        """Return what `uri` holds, or why it is no such `kind`; what was not prefetched is read now."""
        self.prefetch([(uri, kind)])
        answer = self._recall(_key(uri, kind))
        assert answer is not None
        return answer

    def knows(self, uri: str, kind: MediaKind) -> bool:
        return self._recall(_key(uri, kind)) is not None

    def remember(self, uri: str, kind: MediaKind, described: Described) -> None:
        """Take what an earlier run found in a file, which is then not read again."""
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


def _work(inputs: Inputs, describer: Describer, questions: _Questions, answers: _Answers) -> None:
    while True:
        try:
            (uri, kind), parts = questions.popleft()
        except IndexError:  # another thread has taken the last
            return
        found: Sequence[Described | Exception]
        try:
            found = describer.describe_parts(inputs.read(uri), kind, [*parts.values()])
        except Exception as error:  # a thread has no caller: raised where the answer is taken
            found = [error] * len(parts)
        for key, one in zip(parts, found, strict=True):
            answers.put(
                (key, Refused(reason=one.problem, fix=one.fix) if isinstance(one, InputError) else one)
            )


def _key(uri: str, kind: MediaKind) -> bytes:
    """Return 16 bytes in place of a URL of maybe thousands."""
    return hashlib.sha256(f"{kind} {uri}".encode("utf-8", "surrogatepass")).digest()[:16]
