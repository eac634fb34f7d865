"use strict";
// What is asked in the search field, and which rows answer it.

const OPERATORS = ["!=", "<=", ">=", "=", "<", ">", ":"];
const TERM = /(-?)(?:("(?:[^"\\]|\\.)*"|[^\s"<>=!:]+)(!=|<=|>=|=|<|>|:))?("(?:[^"\\]|\\.)*"|[^\s"]+)/g;

/** Return the terms of a text, as {not, name, operator, value, text}; name is null for a word. */
function parseQuery(text, isColumn) {
  const terms = [];
  for (const [whole, dash, name, operator, value] of text.matchAll(TERM)) {
    const column = name && unquoted(name);
    if (column && isColumn(column)) {
      terms.push({ not: dash === "-", name: column, operator, value: unquoted(value), text: whole });
    } else {
      const word = dash ? whole.slice(1) : whole;
      const unknown = /^[\p{L}_][\p{L}\p{N}_.]*$/u.test(name ?? "") && !value.startsWith("//") ? name : null;
      terms.push({ not: dash === "-", name: null, operator: ":", value: unquoted(word), text: whole, unknown });
    }
  }
  return terms;
}

class QueryError extends Error {}

/** Throws QueryError for a term that asks a column that is not there. */
function checkColumns(terms, names) {
  const wrong = terms.find((term) => term.unknown);
  if (!wrong) return;
  const asked = wrong.unknown.toLowerCase();
  const far = new Map(names.map((name) => [name, name.toLowerCase().includes(asked) ? 0 : distance(asked, name.toLowerCase())]));
  const near = names.filter((name) => far.get(name) <= Math.max(1, asked.length / 3)).sort((one, other) => far.get(one) - far.get(other)).slice(0, 3);
  throw new QueryError(`No column is named ${wrong.unknown}. ${near.length ? `Did you mean ${near.join(" or ")}?` : "Filters lists the columns."} To search for this text, put it in quotes: "${wrong.text}"`);
}

/** Return how many letters to insert, delete or replace. */
function distance(one, other) {
  let last = [...other, ""].map((_, place) => place);
  for (let row = 1; row <= one.length; row++) {
    const next = [row];
    for (let place = 1; place <= other.length; place++) next.push(Math.min(last[place] + 1, next[place - 1] + 1, last[place - 1] + (one[row - 1] !== other[place - 1])));
    last = next;
  }
  return last[other.length];
}

/** Return a term as it is typed. */
function termText(name, operator, value) {
  return `${quoted(name)}${operator}${quoted(value === null ? "" : String(value))}`;
}

function quoted(text) {
  return /^[^\s"<>=!:\\-][^\s"<>=!:\\]*$/.test(text) ? text : JSON.stringify(text);
}

function unquoted(text) {
  if (!text.startsWith('"')) return text;
  try { return JSON.parse(text); } catch { return text.slice(1, -1); }
}

/** Return a function from a value of a column of this kind to whether it is as asked. */
function testOf({ operator, value }, kind) {
  const small = value.toLowerCase();
  const number = kind === "number" ? Number(value) : NaN;
  const isNumber = value.trim() !== "" && !Number.isNaN(number);
  const order = (found) => (isNumber ? Number(found) - number : found < value ? -1 : found > value ? 1 : 0);
  const isEqual = (found) => (found === null ? value === "" : isNumber ? Number(found) === number : String(found) === value);
  switch (operator) {
    case ":": return (found) => found !== null && String(found).toLowerCase().includes(small);
    case "=": return isEqual;
    case "!=": return (found) => !isEqual(found);
    case "<": return (found) => found !== null && order(found) < 0;
    case "<=": return (found) => found !== null && order(found) <= 0;
    case ">": return (found) => found !== null && order(found) > 0;
    default: return (found) => found !== null && order(found) >= 0;
  }
}

/** Return the rows that answer all terms, by a column or in the table's order (sort.name is null). columnOf: a column by its name, of the page's own too. */
async function select(table, terms, sort, columnOf) {
  const mask = new Uint8Array(table.numRows).fill(1);
  const isChoice = (term) => term.operator === "=" && !term.not;
  for (const [name, choices] of Map.groupBy(terms.filter(isChoice), (term) => term.name)) {
    await keep(mask, [columnOf(name)], (column) => anyOf(choices.map((term) => testOf(term, column.kind))));
  }
  for (const term of terms.filter((term) => !isChoice(term))) {
    const columns = term.name === null ? searched(table) : [columnOf(term.name)];
    await keep(mask, columns, (column) => testOf(term, column.kind), term.not);
  }
  const rows = (await table.inOrder()).filter((row) => mask[row]);
  if (sort.name) return sorted(rows, columnOf(sort.name), sort.isDown);
  return sort.isDown ? rows.reverse() : rows;
}

function anyOf(tests) {
  return (value) => tests.some((test) => test(value));
}

/** Take out of `mask` the rows for which no column (not: any) is as asked. */
async function keep(mask, columns, testFor, isNot = false) {
  const hit = new Uint8Array(mask.length);
  await Promise.all(columns.map((column) => column.all()));
  for (const column of columns) {
    column.each(testFor(column), (row, is) => { if (is) hit[row] = 1; });
  }
  mask.forEach((_, row) => { mask[row] &= isNot ? 1 - hit[row] : hit[row]; });
}

/** Return the columns in which words are looked for. */
function searched(table) {
  const is = (column) => column.name === "row_id" || (column.role !== "record" && column.kind !== "number");
  return [...table.columns.values()].filter((column) => is(column) || ["message", "error_type"].includes(column.name));
}

/** Sort rows by a column; those without a value come last, equal ones stay as they are. */
async function sorted(rows, column, isDown) {
  await column.all();
  const rank = rankOf(column);
  const sign = isDown ? -1 : 1;
  return rows.sort((one, other) => {
    const [a, b] = [rank[one], rank[other]];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
}

/** Return a number for each row, in the order of the values; NaN without one. */
function rankOf(column) {
  const rank = new Float64Array(column.numRows);
  if (column.kind === "number") {
    column.each((value) => (value === null ? NaN : Number(value)), (row, value) => { rank[row] = value; });
    return rank;
  }
  const values = new Set();
  column.each((value) => value, (_, value) => { values.add(value); });
  values.delete(null);
  const places = new Map([...values].sort().map((value, place) => [value, place]));
  column.each((value) => value, (row, value) => { rank[row] = places.get(value) ?? NaN; });
  return rank;
}
