"""From record batches to rows with their row_ids; what rows have in common is checked and encoded only once.

Sizes, steps and schedulers repeat in a table; prompts and seeds do not, and are checked for each row. So the
second row of a kind becomes the template for rows that differ only in text and seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import Problem, Refused, shown
from framefleet.pipeline.guards.json_text import Blank, JsonForm, spell
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import Identity, LaneKey, lane_of, row_id_of, seed_of, seeding
from framefleet.pipeline.rows.tables.record_columns import Carried
from framefleet.pipeline.rows.tables.row_cells import readable
from framefleet.pipeline.rows.tables.rows import OWN_TEXTS, CheckedRow, InvalidRow, Reader, RowPlan, cells_of

# Characters of templates and their cells: about 20,000 usual kinds of rows, in about 100 MB.
MAX_REMEMBERED = 32 << 20
_MAX_TEMPLATE = 32 << 10  # larger rows do not repeat
_MAX_SEEN = 1 << 16  # kinds of rows that may come again
_OBJECTS, _ENTRY = 1024, 64  # the size of a template and of a list's entry, besides their text
MODEL_COLUMN = "model"  # the name of the column, and of the default


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The common part of rows that differ only in text and seed.

    common: a row with numbered blanks for its own texts.
    content: what a row_id is the hash of; its last blank is the seed. seed: for rows without one; or what it
        is the hash of.
    """

    common: CheckedRow
    content: JsonForm
    seed: int | JsonForm


@dataclass(slots=True)  # not frozen, which would be three times slower: there are millions
class IdentifiedRow:
    """A row that can be rendered, at `index` of its table. texts: its own, for the blanks in `common`."""

    index: int
    row_id: str
    common: CheckedRow
    texts: tuple[Any, ...]
    seed: int

    @property
    def shape(self) -> str:
        return self.common.shape

    @property
    def model(self) -> str:
        return self.common.request.model

    @property
    def lane(self) -> LaneKey:
        return lane_of(self.common.request)

    def request(self) -> Request:
        """Return the same request as `RowPlan.rows`."""
        common = self.common.request
        arguments = {
            name: self.texts[value.number] if isinstance(value, Blank) else value
            for name, value in common.arguments.items()
        }
        return replace(common, arguments=arguments, seed=self.seed)


class TableRows:
    """The rows of one table, which can be read as often as needed.

    max_remembered: characters of templates. If there are more, all are dropped, and made again as needed.
    """

    def __init__(self, plan: RowPlan, identity: Identity, *, max_remembered: int = MAX_REMEMBERED) -> None:
        self.plan = plan
        self.identity = identity
        readers = [*enumerate(plan.readers)]
        self._texts = [at for at, reader in readers if reader.target in OWN_TEXTS and reader.kind == "str"]
        self._seeds = [at for at, reader in readers if reader.target == "seed" and not reader.is_argument]
        own = {*self._texts, *self._seeds}
        self._shared = [at for at in range(len(plan.readers)) if at not in own]
        self._templates: dict[tuple[Any, ...], Template] = {}
        self._seen: set[int] = set()
        self._remembered, self._max_remembered = 0, max_remembered

    def read(
        self, positions: Sequence[int], batch: pa.RecordBatch, only: Collection[int] | None = None
    ) -> Iterator[IdentifiedRow | InvalidRow]:
        """Yield the rows of a batch, which are at these positions. only: the positions to yield."""
        refused, columns = self.plan.columns(batch)
        readers = self.plan.readers
        texts = [_checked(readers[at], columns[at]) for at in self._texts]
        seeds = [_checked(readers[at], columns[at]) for at in self._seeds]
        others = (columns[at] for at in self._shared)
        nested = (list, dict)
        shared = [[_key(cell) if isinstance(cell, nested) else cell for cell in column] for column in others]
        types = [list(map(type, column)) for column in (*texts, *seeds)]
        # For each row: its cells; its kind, which rows of one template share; its texts; its seed.
        rows = zip(
            cells_of(columns, batch.num_rows),
            cells_of([*shared, *types], batch.num_rows),
            cells_of(texts, batch.num_rows),
            seeds[0] if seeds else repeat(None),
            strict=False,
        )
        for offset, index in enumerate(positions):
            parts = None if offset in refused else next(rows)
            if only is not None and index not in only:
                continue
            if parts is None:
                yield InvalidRow(index=index, problems=tuple(refused[offset]))
            else:
                yield self._row(index, *parts)

    def _row(
        self, index: int, cells: tuple[Any, ...], kind: tuple[Any, ...], texts: tuple[Any, ...], seed: Any
    ) -> IdentifiedRow | InvalidRow:
        template = self._templates.get(kind)
        if template is None:
            checked = self.plan.row(index, cells)
            if isinstance(checked, InvalidRow):
                return checked
            mark = hash(kind)
            if mark in self._seen:  # for rows with nothing in common, templates would only cost time
                self._remember(kind, self._template(checked, texts, gives_seed=seed is not None))
            else:
                if len(self._seen) == _MAX_SEEN:
                    self._seen.clear()
                self._seen.add(mark)
            request = checked.request
            return IdentifiedRow(index, self.identity(request), checked, texts, request.seed)
        spelled = [*map(spell, texts)]
        if seed is None:
            seed = template.seed if isinstance(template.seed, int) else seed_of(template.seed.filled(spelled))
        content = template.content.filled([*spelled, str(seed)])
        return IdentifiedRow(index, row_id_of(content), template.common, texts, seed)

    def _template(self, row: CheckedRow, texts: tuple[Any, ...], *, gives_seed: bool) -> Template:
        request = row.request
        names = [self.plan.readers[at].target for at in self._texts]
        blanks = {name: Blank(number) for number, name in enumerate(names) if texts[number] is not None}
        request = replace(request, arguments={**request.arguments, **blanks})
        seeded: Any = replace(request, seed=Blank(len(texts)))  # type: ignore[arg-type]
        is_derived = self.plan.seed is None and not gives_seed
        return Template(
            common=replace(row, request=request),
            content=JsonForm(self.identity.content(seeded)),
            seed=JsonForm(seeding(request.arguments, request.scheduler, request.recipe))
            if is_derived
            else request.seed,
        )

    def _remember(self, kind: tuple[Any, ...], template: Template) -> None:
        lists = sum(_ENTRY * len(cell) for cell in kind if isinstance(cell, tuple))
        texts = sum(len(cell) for cell in kind if isinstance(cell, str))
        size = len(template.content) + _OBJECTS + lists + texts
        if size > _MAX_TEMPLATE:
            return
        self._remembered += size
        if self._remembered > self._max_remembered:
            self._templates.clear()
            self._remembered = size
        self._templates[kind] = template


def _checked(reader: Reader, column: list[Any]) -> list[Any]:
    """Return checked cells: a value, None, or Refused. Rows with a Refused never get a template."""
    return [None if cell is None else reader.check(cell) for cell in column]


def _key(value: Any) -> Any:
    """Return a list or a mapping, which may contain others, as tuples."""
    if isinstance(value, dict):
        value = [*value.items()]
    return tuple(map(_key, value)) if isinstance(value, list | tuple) else value


_Row = IdentifiedRow | InvalidRow


class ModelRows:
    """All rows of one table, for one or several models.

    by_model: reads the rows of each model. column: names a row's model; None for a single model. default: the
    model of rows whose cell is null.
    """

    def __init__(
        self, by_model: Mapping[str, TableRows], *, column: str | None = None, default: str | None = None
    ) -> None:
        self.by_model, self.column, self._default = by_model, column, default
        self.carried, self.argument_fields = joined_columns([rows.plan for rows in by_model.values()])

    def read(
        self, first_index: int, batch: pa.RecordBatch, only: Collection[int] | None = None
    ) -> Iterator[_Row]:
        """Yield the rows of a batch that begins at `first_index`. only: the positions to yield."""
        if self.column is None:
            assert self._default is not None, "rows without a column for their model have a default"
            positions = range(first_index, first_index + batch.num_rows)
            yield from self.by_model[self._default].read(positions, batch, only)
            return
        readable_rows = readable(batch, [self.column])
        rows: list[_Row] = [
            InvalidRow(index=first_index + offset, problems=tuple(why))
            for offset, why in readable_rows.refused.items()
        ]
        of_model: dict[str, list[int]] = {name: [] for name in self.by_model}
        cells = readable_rows.cells.column(0).to_pylist()
        for offset, cell in zip(readable_rows.offsets, cells, strict=True):
            index, model = first_index + offset, self.model_of(cell)
            if isinstance(model, Refused):
                rows.append(InvalidRow(index=index, problems=(Problem(self.column, cell, model),)))
            elif only is None or index in only:
                of_model[model].append(offset)
        for model, offsets in of_model.items():
            if offsets:
                some = batch if len(offsets) == batch.num_rows else batch.take(pa.array(offsets, pa.int64()))
                rows += self.by_model[model].read([first_index + offset for offset in offsets], some)
        for row in sorted(rows, key=lambda row: row.index):
            if only is None or row.index in only:
                yield row

    def model_of(self, cell: Any) -> str | Refused:
        """Return the model that a cell of the column names, or why it is refused."""
        name = self._default if cell is None else cell.strip() if isinstance(cell, str) else cell
        if name is None:
            fix = f"fill it in, or set `defaults: {{{MODEL_COLUMN}: {next(iter(self.by_model))}}}`"
            return Refused(reason="every row needs one of the job's `models`", fix=fix)
        if name not in self.by_model:
            reason = f"the job's `models` has no {shown(name)}"
            return Refused(reason=reason, fix=did_you_mean(str(name), self.by_model))
        return str(name)


def joined_columns(plans: Sequence[RowPlan]) -> tuple[Carried, pa.Schema]:
    """Return all carried columns of any model, and a column for each argument whose type fits all."""
    names = {column: name for plan in plans for column, name in plan.carried.names.items()}
    places = frozenset[str]().union(*(plan.carried.places for plan in plans))
    types: dict[str, pa.DataType] = {}
    for field in (field for plan in plans for field in plan.argument_fields):
        kind = types.setdefault(field.name, field.type)
        if kind != field.type:
            are_numbers = {kind, field.type} == {pa.int64(), pa.float64()}
            types[field.name] = pa.float64() if are_numbers else pa.string()
    return Carried(names=names, places=places), pa.schema(list(types.items()))
