"use strict";
// Stars and notes: kept in the browser, under the identity of the output, and exported as a table. Where
// `gallery --serve` serves the page they are kept in the output, and those of others come every few seconds.

const MAX_CELL = 1 << 14; // characters of a cell that the page has whole
const MAX_STARS = 5;
const MAX_NOTE = 10000; // characters, as the server takes them
const SYNC_EVERY_MS = 3_000;

class Picks {
  constructor(identity) {
    this.key = `framefleet picks ${identity}`;
    this.of = new Map(); // row_id -> {stars, note}
    this.changed = () => {};
    this.place = document.querySelector("meta[name=framefleet-picks]")?.content; // of who keeps them, if somebody does
    this.unsent = new Set(); // row_ids
    if (this.place) {
      this.sync();
      setInterval(() => this.sync(), SYNC_EVERY_MS);
      return;
    }
    this.read();
    window.addEventListener("storage", (event) => {
      if (event.key === this.key) { this.read(); this.changed(); }
    });
  }

  read() {
    try {
      this.of = new Map(JSON.parse(localStorage.getItem(this.key) ?? "[]"));
    } catch { // private windows have no storage: kept until the page is closed
    }
  }

  get(rowId) {
    return this.of.get(rowId) ?? { stars: 0, note: "" };
  }

  set(rowId, change) {
    const pick = { ...this.get(rowId), ...change };
    if (pick.stars || pick.note) this.of.set(rowId, pick);
    else this.of.delete(rowId);
    if (this.place) {
      this.unsent.add(rowId);
      this.sync();
    } else {
      try {
        localStorage.setItem(this.key, JSON.stringify([...this.of]));
      } catch { // as above
      }
    }
    this.changed();
  }

  /** Send what was changed here, one clip at a time, and take what others changed. */
  async sync() {
    if (this.isBusy) return; // what is unsent then goes with the next
    this.isBusy = true;
    try {
      for (const rowId of this.unsent) {
        const { stars, note } = this.get(rowId);
        this.unsent.delete(rowId); // before: it may change again while it is sent
        const sent = fetch(this.place, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ row_id: rowId, stars, note }) });
        if (!(await sent.catch(() => null))?.ok) {
          this.unsent.add(rowId);
          return; // the server is away for now
        }
      }
      const answer = await fetch(this.place);
      if (!answer.ok) return;
      const found = new Map(await answer.json());
      for (const rowId of this.unsent) this.of.has(rowId) ? found.set(rowId, this.of.get(rowId)) : found.delete(rowId);
      const isNew = JSON.stringify([...found].sort()) !== JSON.stringify([...this.of].sort());
      this.of = found;
      if (isNew) this.changed();
    } catch { // as above
    } finally {
      this.isBusy = false;
    }
  }

  get numStarred() {
    return [...this.of.values()].filter((pick) => pick.stars).length;
  }

  /** Return `stars` or `note` as a column of a table. */
  column(name, table) {
    const ids = table.column("row_id");
    const valueOf = (rowId) => (name === "stars" ? this.get(rowId).stars : this.get(rowId).note || null);
    return {
      name,
      kind: name === "stars" ? "number" : "text",
      numRows: table.numRows,
      all: () => ids.all(),
      at: (row) => valueOf(ids.at(row)),
      each: (test, take) => ids.each((rowId) => test(valueOf(rowId)), take),
    };
  }
}

/** Return the lines of picks.jsonl: the starred rows, best first. */
async function picksTable(table, picks) {
  const rows = await select(table, [{ name: "stars", operator: ">", value: "0" }], { name: null }, (name) => picks.column(name, table));
  const lines = [];
  for (const row of rows) lines.push(await pickLine(table, picks, row));
  return lines.sort((one, other) => other.stars - one.stars).map(({ line }) => `${line}\n`).join("");
}

async function pickLine(table, picks, row) {
  const carried = [...table.columns.values()].filter((column) => column.role === "carried");
  const names = ["row_id", "path", "seed", "scheduler", "arguments", "recipe", "fps", "fps_source", "model_name", "lora", ...carried.map((column) => column.name)];
  await table.need(row, names);
  const pick = picks.get(table.at(row, "row_id"));
  const cells = new Map();
  const put = (name, value) => { if (value !== null && value !== undefined) cells.set(name, JSON.stringify(value)); };
  const text = table.at(row, "arguments");
  const ownArguments = parsed(text);
  if (ownArguments === null && text?.length > MAX_CELL) throw new Error(`Nothing is exported: the arguments of row ${table.at(row, "row_id")} have more than ${MAX_CELL} characters, and this page has no more of them. Take its stars away to export the others.`);
  for (const [name, value] of Object.entries(ownArguments ?? {})) if (name !== "lora") put(name, argumentCell(value));
  if (table.has("lora")) put("lora", table.at(row, "lora") ?? "none"); // also where the next job has a default
  for (const column of carried) {
    const value = carriedCell(column.at(row), column.kind);
    if (column.kind === "number" && typeof value === "string") cells.set(column.name, value); // digits, see `seed`
    else put(column.name, value);
  }
  for (const name of ["row_id", "path", "scheduler"]) put(name, table.at(row, name));
  put("model", table.at(row, "model_name"));
  if (table.column("recipe")?.varies) put("recipe", table.at(row, "recipe")); // else it may be the job's
  if (table.at(row, "fps_source") === "row") put("fps", table.at(row, "fps"));
  put("stars", pick.stars);
  put("note", pick.note);
  cells.set("seed", String(table.at(row, "seed"))); // as it is: it may have more digits than JavaScript's numbers
  return { stars: pick.stars, line: `{${[...cells].map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(",")}}` };
}

/** Return an argument as a table gives it: of images and videos the places, of a model its name. */
function argumentCell(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((part) => (part?.kind ? { [part.kind]: part.uri } : part?.uri ?? part));
  return value.uri ?? value.name ?? null;
}

function carriedCell(value, kind) {
  if (typeof value === "string" && value.length > MAX_CELL) return null; // the page has not all of it
  return kind === "json" && value !== null ? parsed(value) : value;
}

/** Return what JSON says; null where it is none, as a record may be anybody's. */
function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}
