"""Write a table into the output with the rows of a job's table, and prompts that an endpoint wrote.

Each text is asked for once and stored in answers/, and the table is made from there. So a run that was killed
continues, and a later run renders the same rows.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from framefleet.api.commands import Callback, ClipsPace, Watch
from framefleet.api.errors import JobError, Problem, Refused, TableError, count_text, shown
from framefleet.api.jobs import Job, load_job, storage_options, store_of_job
from framefleet.api.outputs import DriverLock, Store
from framefleet.api.texts import canonical_json, did_you_mean, either, parse_json
from framefleet.cluster.driver.lock import STOP, check_not_stopped
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import MAX_SHOWN, Survey, check_valid, say_forgotten, survey_rows
from framefleet.pipeline.outputs.layout import ANSWERS, PROMPT_TABLES
from framefleet.pipeline.outputs.parts.parts import PartWriter, read_parts
from framefleet.pipeline.outputs.parts.seals import new_run, parts_in
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.row_cells import ODD_FIELD, readable, with_odd_cells
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.columns.fill import each_answer
from framefleet.plugins.made_tables import store_made_table
from framefleet.plugins.words.answer import checked_answer
from framefleet.plugins.words.endpoint import (
    NoAnswer,
    api_key,
    ask,
    counting_requests,
    end_requests,
)
from framefleet.plugins.words.questions import question_text
from framefleet.plugins.words.section import (
    PromptsSection,
    RewriteSection,
)

ORIGINAL = "original_prompt"
QUESTION_KEY = "question"
_SECTION, _PROMPT = "prompts", "prompt"  # section of a job; argument
Corrections = Mapping[str, str] | Mapping[str | tuple[str, str], str]  # by original, or also by question
_FIELDS = pa.schema([(name, pa.string()) for name in ("key", ORIGINAL, _PROMPT)])


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """Progress of a table's prompts. place: of the table with all of them; None if some are missing."""

    num_texts: int
    num_left: int
    place: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPrompt:
    """A text that an endpoint wrote. question: None if it is not known, as without the job."""

    key: str
    original: str
    question: str | None
    prompt: str


def prompts(
    job: Job | str | Path | Mapping[str, Any],
    *,
    corrections: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> dict[str, str]:
    """Write the missing prompts of a job, and return all of them by their originals: the last of several.

    job: a job file's path or content, or an output, whose prompts are only read. corrections: texts that
    replace written ones, by their originals; the next run renders their rows again. sets: e.g.
    "storage_options.key=...". Raises as `render` does, TableError for a prompt that gets no answer or a
    correction of an unknown prompt, and EndpointError.
    """
    written = corrected_prompts(job, Callback(), sets, corrections=corrections)
    return {row.original: row.prompt for row in written}


@counting_requests()
def corrected_prompts(
    job: Job | str | Path | Mapping[str, Any],
    watch: Watch,
    sets: Sequence[str],
    *,
    corrections: Corrections | None,
) -> list[WrittenPrompt]:
    """Do what `prompts` does, reporting to `watch`, and return each text."""
    if corrections is None and isinstance(job, str | Path) and ("://" in str(job) or os.path.isdir(job)):
        output = Store(str(job), storage_options(sets))
        if written := written_in(output):
            rows = ((key, row[ORIGINAL], row[_PROMPT]) for key, row in written.items())
            return [WrittenPrompt(key=key, original=a, question=None, prompt=b) for key, a, b in rows if b]
        raise JobError(f"{output.url_of('')} has no written prompts", "use the job file to write them")
    job = load_job(job, sets)
    store = store_of_job(job)
    write_prompts(job, watch)
    if corrections is not None:
        watch.say(f"{count_text(replace_prompts(store, _written_for(job), corrections), 'prompt')} replaced")
    return _written_for(job)


def rewrite_of(job: Job) -> RewriteSection:
    section: PromptsSection | None = getattr(job, _SECTION)
    if section is None:
        raise JobError("the job has no `prompts`", "write `prompts: {rewrite: {url: ..., model: ...}}`")
    return section.rewrite


def write_prompts(
    job: Job,
    watch: Watch,
    table: str | None = None,
    *,
    limit: int | None = None,
    scratch: str | None = None,
) -> WrittenTable:
    """Write the missing prompts of a job, and the table with all prompts. table: replaces the job's.

    limit: write only prompts of the first rows; the table then lacks later rows whose prompts are missing.
    scratch: ask nothing, and write the table into this folder. Raises TableError for a table without prompts,
    and for prompts that get no answer unless the job leaves such rows out; EndpointError if the endpoint is
    down. Answers so far are kept.
    """
    section, store, refused = rewrite_of(job), store_of_job(job), dict[str, Refused]()
    with closing(resolve_job(job, Callback(), table)) as resolved:
        names, where = resolved.table.schema.names, f"prompts.rewrite: {resolved.table.location}"
        if (column := _column(job)) not in names:
            fix = either(did_you_mean(column, names), "leave `prompts` out")
            raise TableError(f"{where} has no column {column!r}", fix)
        if ORIGINAL in names:
            problem = f"{where} has a column {ORIGINAL!r}, but this one would be added"
            raise TableError(problem, "rename it in the table, or drop it")
        answers = {key: row[_PROMPT] for key, row in written_in(store).items()}
        keys, is_sound, num_forgotten = set[str](), True, 0
        for row in _questions(resolved):
            keys |= {row.key} - {""}
            is_sound &= not row.problems
            num_forgotten += answers.get(row.key) == ""  # emptied by `framefleet forget`
        left: dict[str, int] = {}
        later = {key for key in keys if answers.get(key) == ""}
        if keys and later == keys:
            raise TableError(f"{where}: all its prompts were forgotten", "add other rows")
        say_forgotten(num_forgotten, watch)
        if keys - answers.keys() or not is_sound:
            if not scratch:
                check_claim(resolved)
            with closing(RowIndex()) as index:  # do not pay for rows that cannot be rendered
                survey = survey_rows(resolved, index, Callback() if scratch else watch)
                invalid = index.left_out_in(0, survey.num_rows)
            for row in _questions(resolved):
                if row.key and row.key not in answers and row.key not in left and row.position not in invalid:
                    if limit is None or row.position < limit:
                        left[row.key] = row.position
                    else:
                        later.add(row.key)
            if not scratch:
                _check_rows(survey, resolved, _questions(resolved), invalid, limit)
        if left and not scratch:
            api_key(section)
            watch.say(f"prompts: {len(left):,} of {len(keys):,} to be written by {section.model}")
            refused = _ask_all(resolved, left, watch)
            if refused:
                rows = _questions(resolved, refused)
                _check_rows(survey, resolved, rows, invalid, limit)
                reason = next(iter(refused.values())).reason
                watch.say(f"prompts: left out: {count_text(len(refused), 'prompt')}, e.g. {reason}")
            answers = {key: row[_PROMPT] for key, row in written_in(store).items()}
            left = {}
        if keys and later == keys:  # as for `retry`, which writes none
            raise TableError(f"{where}: its prompts were not written yet", "run `framefleet render`")
        place = None
        if not left and (later < keys or not is_sound):
            has_problems = bool(refused) or not is_sound
            rows = _questions(resolved, refused)
            place = _table(resolved, rows, answers, later, scratch, has_problems=has_problems)
        return WrittenTable(num_texts=len(keys), num_left=len(left), place=place)


def written_in(store: Store) -> dict[str, dict[str, str]]:
    """Return the newest texts of an output, by key: `original_prompt` and `prompt`.

    Both are empty if they were forgotten.
    """
    paths = [part.path for part in parts_in(store, ANSWERS)]
    return {row["key"]: row for table in read_parts(store, paths, _FIELDS) for row in table.to_pylist()}


def _written_for(job: Job) -> list[WrittenPrompt]:
    """Return the texts for the questions of a job, in the order of its table."""
    texts = {key: row[_PROMPT] for key, row in written_in(store_of_job(job)).items() if row[_PROMPT]}
    with closing(resolve_job(job, Callback())) as resolved:
        rows = {row.key: row for row in _questions(resolved) if row.key in texts}
    return [
        WrittenPrompt(key=key, original=str(row.text), question=row.question, prompt=texts[key])
        for key, row in rows.items()
    ]


def corrections_in(file: Path) -> Corrections:
    """Return the prompts in a file of JSON lines. Raises TableError if it is invalid."""
    texts: dict[str | tuple[str, str], str] = {}
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeError) as error:
        raise TableError(f"{file} cannot be read: {error}", "use a file of JSON lines in UTF-8") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            original, text = row[ORIGINAL], row[_PROMPT]
        except (ValueError, TypeError, LookupError):
            original = text = None
        if not isinstance(original, str) or not isinstance(text, str) or not text.strip():
            problem = f"{file}, line {number}: {line[:80]!r} is not a mapping of {ORIGINAL} and {_PROMPT}"
            raise TableError(problem, "write it like the output of `framefleet prompts JOB.YAML --json`")
        key = (original, str(row[QUESTION_KEY])) if QUESTION_KEY in row else original
        if texts.setdefault(key, text) != text:
            problem = f"{file}, line {number}: another text for the prompt {shown(original)}"
            raise TableError(problem, "leave out one of the two")
    return texts


def replace_prompts(store: Store, written: Sequence[WrittenPrompt], texts: Corrections) -> int:
    """Replace written prompts; return how many have changed.

    If several texts were written for one original, because other cells of its rows differ, the last of them,
    which `prompts` returns, changes nothing without its question. Raises TableError for an unknown original.
    """
    last = {row.original: row.prompt for row in written}
    there = last.keys() | {(row.original, row.question) for row in written}
    if unknown := [key for key in texts if key not in there]:
        original = unknown[0] if isinstance(unknown[0], str) else unknown[0][0]
        problem = f"{store.url_of(ANSWERS)} has no text for the prompt {shown(original)}"
        raise TableError(problem, "copy `original_prompt` from `framefleet prompts JOB.YAML --json`")
    for key, text in texts.items():
        try:
            checked_answer(None, text)
        except ValueError as error:
            original = key if isinstance(key, str) else key[0]
            raise TableError(f"the new prompt for {shown(original)}: {error}", "correct it") from None
    new = {key: text for key, text in texts.items() if not isinstance(key, str) or last[key] != text}
    with DriverLock(store, renders=False) as lock:
        writer, num_changed = PartWriter(store, ANSWERS, _FIELDS, run=new_run(lock.epoch)), 0
        for row in written:
            text = new.get((row.original, row.question or ""), new.get(row.original, row.prompt))
            if text != row.prompt:
                writer.add(None, {"key": row.key, ORIGINAL: row.original, _PROMPT: text})
                num_changed += 1
        writer.flush()
    return num_changed


class _Row(NamedTuple):
    """The question for a row of the table. problems: why it cannot be rendered."""

    position: int
    text: str | None  # its prompt
    question: str = ""
    key: str = ""  # of the question; "" for a row without a prompt, or without a valid question
    problems: Sequence[Problem] = ()


def _column(job: Job) -> str:
    """Return the name of the table's column with the prompts."""
    return job.columns.get(_PROMPT, _PROMPT)


def _questions(resolved: ResolvedJob, refused: Mapping[str, Refused] | None = None) -> Generator[_Row]:
    """Yield all rows in order. refused: by key, why there is no answer."""
    column, section = _column(resolved.job), rewrite_of(resolved.job)
    wanted = {column, *section.placeholders}
    for first, batch in resolved.table.batches():
        seen = readable(batch, [name for name in resolved.table.schema.names if name in wanted])
        cells = iter(seen.cells.to_pylist())
        for position in range(first, first + batch.num_rows):
            if problems := seen.refused.get(position - first):
                yield _Row(position, None, problems=problems)
                continue
            row = next(cells)
            text = row[column]
            if not isinstance(text, str) or not text.strip():
                yield _Row(position, text)
                continue
            try:
                question = question_text(section, {**row, _PROMPT: text})
            except NoAnswer as error:
                why = Refused(reason=f"prompts.rewrite: {error}", fix="fill the cell, or change the question")
                yield _Row(position, text, problems=[Problem(column, text, why)])
                continue
            decides = {"model": section.model, "options": section.options, "question": question}
            key = hashlib.sha256(canonical_json(decides).encode()).hexdigest()
            why_not = refused.get(key) if refused else None
            yield _Row(position, text, question, key, [Problem(column, text, why_not)] if why_not else ())


def _check_rows(
    survey: Survey, resolved: ResolvedJob, rows: Iterable[_Row], invalid: set[int], limit: int | None
) -> None:
    """Raise TableError for rows with problems, unless the job leaves them out, like `check_valid`.

    invalid: rows that the survey has refused; rows with problems are added to both.
    """
    for row in rows:
        if row.problems and row.position not in invalid:
            invalid.add(row.position)
            survey.num_invalid += 1
            one = InvalidRow(index=row.position, problems=tuple(row.problems))
            survey.invalid += [one][: MAX_SHOWN - len(survey.invalid)]
    survey.find_places(resolved.table)
    check_valid(survey, resolved.table, on_invalid=resolved.job.on_invalid, verb="rendered", limit=limit)


def _ask_all(resolved: ResolvedJob, left: Mapping[str, int], watch: Watch) -> dict[str, Refused]:
    """Ask for these texts, and store each answer within seconds; return why others have none, by key.

    left: a row for each key.
    """
    store, section = resolved.store, rewrite_of(resolved.job)
    places, refused = {*left.values()}, dict[str, Refused]()
    pace = ClipsPace("written", total=len(left), watch=watch, noun="prompt")

    def ask_for(row: _Row) -> float | str | NoAnswer:
        try:
            return ask(section, row.question)
        except NoAnswer as error:
            return error

    def take(row: _Row, prompt: float | str | NoAnswer) -> None:
        if isinstance(prompt, NoAnswer):
            fix = "run it again, or change the prompt or `prompts.rewrite.question`"
            refused[row.key] = Refused(reason=f"{section.model} wrote no prompt for it: {prompt}", fix=fix)
        else:
            writer.add(None, {"key": row.key, ORIGINAL: row.text, _PROMPT: prompt})
            if writer.due(time.monotonic()):
                writer.flush()
        pace.add(1)

    with closing(_questions(resolved)) as every:
        questions = (row for row in every if row.position in places)
        first = next(questions)
        answer = ask_for(first)  # before locking, which leaves files if the endpoint is down
        # Only one process asks for all others, so that each has one answer.
        with DriverLock(store, renders=False) as lock:
            writer = PartWriter(store, ANSWERS, _FIELDS, run=new_run(lock.epoch))
            there = written_in(store)  # also by a run that has ended since
            left_now = (row for row in questions if row.key not in there)
            until_stop = takewhile(lambda _: STOP not in lock.asked, left_now)
            try:
                if first.key not in there:
                    take(first, answer)
                each_answer(until_stop, ask_for, take, parallel=section.parallel, end=end_requests)
            finally:
                writer.flush()
    check_not_stopped(store, lock.epoch, ": the prompts that were written stay")
    return refused


def _table(
    resolved: ResolvedJob,
    questions: Iterator[_Row],
    answers: Mapping[str, str],
    later: Collection[str],
    scratch: str | None,
    *,
    has_problems: bool,
) -> str:
    """Store the table with the written prompts by `store_made_table`; return its place.

    later: keys of texts whose rows are left out. has_problems: some questions have; their rows are refused as
    rows of this table, too.
    """
    column = _column(resolved.job)
    own = [field.remove_metadata() for field in resolved.table.schema]
    texts = [pa.field(name, pa.string()) for name in (column, ORIGINAL)]
    schema = pa.schema([texts[0] if field.name == column else field for field in own] + texts[1:])
    schema = schema.append(ODD_FIELD) if has_problems else schema

    def parts() -> Iterator[tuple[pa.RecordBatch, dict[str, list[Any]]]]:
        for _, batch in resolved.table.batches():
            rows = list(islice(questions, batch.num_rows))
            if later:
                batch = batch.filter(pa.array([row.key not in later for row in rows]))
                rows = [row for row in rows if row.key not in later]
            if has_problems:
                problems = {offset: [*row.problems] for offset, row in enumerate(rows) if row.problems}
                batch = with_odd_cells(batch.select(resolved.table.schema.names), problems)
            prompts = [answers.get(row.key, row.text) for row in rows]
            yield batch, {column: prompts, ORIGINAL: [row.text for row in rows]}

    return store_made_table(resolved.job, PROMPT_TABLES, schema, parts(), scratch=scratch)
