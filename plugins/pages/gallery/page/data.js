"use strict";
// The rows of an output, column by column, in blocks that are loaded when they are asked for.

const READ_AHEAD_REST_MS = 20;

/** What the scripts with data call; they do nothing else. */
const framefleet = {
  blocks: new Map(), // name -> [values, codes]
  latest: null,
  version: null,

  block(name, json) {
    this.blocks.set(name, JSON.parse(json));
  },

  manifest(version, writtenAt, json) {
    this.latest = { version, writtenAt, ...JSON.parse(json) };
  },

  newest(version) {
    this.version = version;
  },
};

/** Run a script of the gallery's folder; rejects where it is not there. */
function load(file) {
  return new Promise((resolve, reject) => {
    const script = element("script", { src: file, async: true });
    script.onload = () => { script.remove(); resolve(); };
    script.onerror = () => { script.remove(); reject(new Error(`${file} is not there`)); };
    document.head.append(script);
  });
}

/** One column: `at` returns a row's value once its block is there. */
class Column {
  constructor(described, numRows, blockRows) {
    Object.assign(this, described); // name, kind, role, distinct, values, least, most
    this.numRows = numRows;
    this.blockRows = blockRows;
    this.parts = described.blocks.map((block) => ("all" in block ? { values: [block.all], codes: 0 } : null));
    this.loading = described.blocks.map(() => null);
  }

  get varies() {
    return this.distinct !== 1;
  }

  /** Load the block that has a row. */
  need(row) {
    return this.part(Math.floor(row / this.blockRows));
  }

  all() {
    return Promise.all(this.parts.map((_, number) => this.part(number)));
  }

  async part(number) {
    if (this.parts[number]) return;
    this.loading[number] ??= this.fetch(this.blocks[number].file, number);
    await this.loading[number];
  }

  async fetch(name, number) {
    if (!framefleet.blocks.has(name)) await load(`data/${name}.js`);
    const [values, codes] = framefleet.blocks.get(name);
    this.parts[number] = { values, codes };
  }

  at(row) {
    const { values, codes } = this.parts[Math.floor(row / this.blockRows)];
    const place = row % this.blockRows;
    return values[codes === null ? place : codes === 0 ? 0 : codes[place]];
  }

  /** Call `take(row, value of test)` for every row; `test` is asked once for each value of a block. */
  each(test, take) {
    let row = 0;
    for (const { values, codes } of this.parts) {
      const found = values.map(test);
      const end = Math.min(row + this.blockRows, this.numRows);
      for (const first = row; row < end; row++) {
        take(row, found[codes === null ? row - first : codes === 0 ? 0 : codes[row - first]]);
      }
    }
  }
}

class Table {
  constructor({ rows, columns }, blockRows) {
    this.numRows = rows;
    this.columns = new Map(columns.map((described) => [described.name, new Column(described, rows, blockRows)]));
  }

  /** Return all rows by their first position in the table; those of equal positions as they were finished. */
  async inOrder() {
    const column = this.column("row_indices"); // as text: "[3, 17]"
    if (!column || this.order) return (this.order ??= Int32Array.from({ length: this.numRows }, (_, row) => row));
    await column.all();
    const position = new Float64Array(this.numRows).fill(Infinity);
    column.each((value) => parseInt(String(value).slice(1), 10), (row, value) => { if (value >= 0) position[row] = value; });
    const order = Int32Array.from(position, (_, row) => row);
    return (this.order = order.sort((one, other) => (position[one] === position[other] ? one - other : position[one] - position[other])));
  }

  has(name) {
    return this.columns.has(name);
  }

  column(name) {
    return this.columns.get(name);
  }

  /** Load what these columns say of a row; of columns that the table lacks nothing. */
  async need(row, names) {
    await Promise.all(names.filter((name) => this.has(name)).map((name) => this.column(name).need(row)));
  }

  /**
   * Load what is filtered and sorted by, arguments first, before somebody asks: a column at a time, with a rest between,
   * as clips are loaded too. At most this many blocks.
   */
  async readAhead(maxBlocks) {
    const order = { argument: 0, carried: 1, record: 2 };
    const columns = [...this.columns.values()].filter((column) => column.varies).sort((one, other) => order[one.role] - order[other.role]);
    for (const column of columns) {
      maxBlocks -= column.parts.filter((part) => !part).length;
      if (maxBlocks < 0) return;
      await column.all();
      await new Promise((resolve) => setTimeout(resolve, READ_AHEAD_REST_MS));
    }
  }

  at(row, name) {
    return this.has(name) ? this.column(name).at(row) : null;
  }

  /** Return all that is known of a row, as [name, value]. */
  async row(row) {
    const names = [...this.columns.keys()];
    await this.need(row, names);
    return names.map((name) => [name, this.at(row, name)]);
  }
}
