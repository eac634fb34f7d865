"use strict";
// Where each row stands on the wall: side by side, in a grid of two columns' values, or as a list.

const GAP = 10;
const CAPTION = 44; // pixels: two lines
const LABEL_X = 46; // two lines: what the axes are, and the values across
const LABEL_Y = () => (innerWidth < 700 ? 86 : 132);

/** Return the layout of rows side by side, in their order. */
function flowLayout(app, rows) {
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
