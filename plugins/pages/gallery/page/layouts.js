"use strict";
// Where each row stands on the wall: side by side, in a grid of two columns' values, or as a list.

const GAP = 10;
const [MIN_ASPECT, MAX_ASPECT] = [0.5, 3]; // of tiles: narrower ones have no room for captions
const TALL = 0.75; // height of a line of several aspect ratios, of the chosen width
const CAPTION = 44; // pixels: two lines
const LABEL_X = 46; // two lines: what the axes are, and the values across
const LABEL_Y = () => (innerWidth < 700 ? 86 : 132);

/**
 * Return the layout of rows side by side, where clips have several aspect ratios: each as wide as its own, all of a line
 * equally high. The last line, which its clips do not fill, is as high as the one above it.
 */
function justifiedLayout(app, rows) {
  const room = app.wall.root.clientWidth - 2 * GAP;
  const target = Math.min(app.size * TALL, room);
  const [widths, heights] = ["width", "height"].map((name) => app.records.column(name));
  const lines = []; // {start, height, top, lefts, widths}
  let [start, aspects, sum, top] = [0, [], 0, 0];
  const finish = (end) => {
    const most = lines.length ? lines.at(-1).height - CAPTION : target;
    const filling = (room - GAP * (aspects.length - 1)) / sum;
    const height = Math.round(filling <= target ? filling : most);
    let left = GAP;
    const line = { start, height: height + CAPTION, top, lefts: [], widths: aspects.map((aspect) => Math.floor(aspect * height)) };
    for (const width of line.widths) { line.lefts.push(left); left += width + GAP; }
    lines.push(line);
    [start, aspects, sum, top] = [end, [], 0, top + line.height + GAP];
  };
  rows.forEach((row, place) => {
    const aspect = Number(widths.at(row)) / Number(heights.at(row));
    aspects.push(aspect > 0 && aspect < Infinity ? Math.min(MAX_ASPECT, Math.max(MIN_ASPECT, aspect)) : 1);
    sum += aspects.at(-1);
    if (sum * target + GAP * (aspects.length - 1) >= room) finish(place + 1);
  });
  if (aspects.length) finish(rows.length);
  const lineOf = (place) => lines.findLastIndex((line) => line.start <= place);
  return {
    numRows: lines.length, numColumns: Math.max(0, ...new Set(lines.map((line) => line.widths.length))), width: 0, height: target + CAPTION, gap: GAP, left: 0, top: 0,
    isWrapped: true, lines, end: top,
    itemAt: (row, column) => (column >= 0 && column < (lines[row]?.widths.length ?? 0) ? rows[lines[row].start + column] : null),
    find(item) {
      const place = rows.indexOf(item);
      return place < 0 ? null : { row: lineOf(place), column: place - lines[lineOf(place)].start };
    },
    make: (item) => clipTile(app, item),
  };
}

/** Return the layout of rows side by side, in their order. */
async function flowLayout(app, rows) {
  const sizes = ["width", "height"].map((name) => app.records.column(name));
  if (sizes.every(Boolean) && sizes.some((column) => column.varies)) {
    await Promise.all(sizes.map((column) => column.all()));
    return justifiedLayout(app, rows);
  }
  const room = app.wall.root.clientWidth - GAP;
  const numColumns = Math.max(1, Math.floor(room / (app.size + GAP)));
  const width = Math.floor(room / numColumns) - GAP;
  return {
    numRows: Math.ceil(rows.length / numColumns), numColumns, width, height: Math.round(width / app.aspect) + CAPTION, gap: GAP, left: 0, top: 0,
    isWrapped: true,
    itemAt: (row, column) => rows[row * numColumns + column] ?? null,
    find: (item) => placeOf(rows.indexOf(item), numColumns),
    make: (item) => clipTile(app, item),
  };
}

function placeOf(position, numColumns) {
  return position < 0 ? null : { row: Math.floor(position / numColumns), column: position % numColumns };
}

/** Return the layout of a list: one row for each that failed. */
function listLayout(app, rows, make, height) {
  return {
    numRows: rows.length, numColumns: 1, width: app.wall.root.clientWidth - 2 * GAP, height, gap: 6, left: GAP - 6, top: 0,
    itemAt: (row) => rows[row] ?? null,
    find: (item) => placeOf(rows.indexOf(item), 1),
    make,
  };
}

/** Return rows by the values of columns: {across, down, pages, cells}; numbers by size, texts in the table's order. */
async function crossed(table, rows, columnX, columnY, columnPage) {
  const columns = [columnX, columnY, columnPage];
  await Promise.all(columns.map((column) => column?.all()));
  const order = await table.inOrder();
  const [across, down, pages] = columns.map((column) => valuesOf(column, rows, order));
  const places = [across, down, pages].map((values) => new Map(values.map((value, place) => [value, place])));
  const cells = new Map(); // "page/row/column" -> rows
  for (const row of rows) {
    const [x, y, page] = columns.map((column, axis) => (column ? places[axis].get(column.at(row)) : 0));
    const key = `${page}/${y}/${x}`;
    if (cells.has(key)) cells.get(key).push(row);
    else cells.set(key, [row]);
  }
  return { across, down, pages, cells };
}

function valuesOf(column, rows, order) {
  if (!column) return [null];
  const values = new Set();
  for (const row of rows) values.add(column.at(row));
  if (column.kind !== "number") {
    const all = new Set(); // in an order that no filter and no sorting changes
    for (const row of order) if (values.has(column.at(row))) all.add(column.at(row));
    return [...all];
  }
  return [...values].sort((one, other) => (one === null) - (other === null) || Number(one) - Number(other));
}

/** Return the layout of a page of a grid; a cell shows the first of its rows. */
function gridLayout(app, { across, down, cells }, page, columnX, columnY) {
  const width = app.size;
  const at = (row, column) => cells.get(`${page}/${row}/${column}`) ?? null;
  return {
    numRows: down.length, numColumns: across.length, width, height: Math.round(width / app.aspect), gap: 6, left: LABEL_Y(), top: LABEL_X, isTogether: true,
    title: [columnY && `${columnY.name} ↓`, columnX && `${columnX.name} →`].filter(Boolean).join("  "),
    columnLabel: (column) => (columnX ? shown(across[column]) : ""),
    rowLabel: (row) => (columnY ? shown(down[row]) : ""),
    itemAt: (row, column) => at(row, column)?.[0] ?? null,
    find(item) {
      for (let row = 0; row < down.length; row++) {
        for (let column = 0; column < across.length; column++) if (at(row, column)?.[0] === item) return { row, column };
      }
      return null;
    },
    make: (item, row, column) => clipTile(app, item, { isBare: true, numMore: at(row, column).length - 1 }),
  };
}
