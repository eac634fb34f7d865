"use strict";
// A wall of tiles, of which only those in view are elements: a million rows scroll as a hundred do.

const OVERSCAN = 300; // pixels beyond the view that are drawn
const MAX_HEIGHT = 15e6; // pixels; browsers have no taller elements, beyond it the wall scrolls faster than the mouse

/**
 * Draws a layout: {numRows, numColumns, width, height (of a cell), gap, left, top, itemAt(row, column),
 * make(item, row, column), columnLabel(column), rowLabel(row)}. itemAt: null where there is nothing. With `lines` (each
 * with top, height, lefts and widths; `end` below them) rows have heights and widths of their own.
 */
class Wall {
  constructor(root, player) {
    this.root = root;
    this.player = player;
    this.rows = new Map(); // number -> {element, cells}
    this.layout = null;
    this.active = { row: 0, column: 0 };
    root.addEventListener("scroll", () => this.draw(), { passive: true });
    root.addEventListener("pointermove", (event) => this.point(event), { passive: true });
  }

  /** Show another layout, from its beginning or where an item is. */
  show(layout, item = null) {
    this.clear();
    this.layout = layout;
    const { numRows, numColumns, width, height, gap, left, top } = layout;
    this.tall = top + (layout.end ?? numRows * (height + gap)) + gap;
    this.scroll = Math.min(this.tall, MAX_HEIGHT);
    this.player.isTogether = Boolean(layout.isTogether);
    this.canvas = element("div", { className: "canvas", style: { height: `${this.scroll}px`, minWidth: layout.columnLabel ? `${left + numColumns * (width + gap) + gap}px` : "" } });
    if (layout.columnLabel) this.canvas.append(this.labels());
    this.root.replaceChildren(this.canvas);
    this.active = (item !== null && layout.find(item)) || { row: 0, column: 0 };
    if (item === null) this.root.scrollTo(0, 0);
    this.reveal();
    this.draw();
  }

  labels() {
    const { numColumns, width, gap, left, top, columnLabel } = this.layout;
    const labels = element("div", { className: "axis-x", style: { height: `${top}px` }, "aria-hidden": "true" },
      element("span", { className: "axes", textContent: this.layout.title }));
    for (let column = 0; column < numColumns; column++) {
      const at = { left: `${left + column * (width + gap) + gap}px`, width: `${width}px` };
      labels.append(element("bdi", { dir: "auto", textContent: columnLabel(column), title: columnLabel(column), style: at }));
    }
    return labels;
  }

  clear() {
    for (const number of [...this.rows.keys()]) this.remove(number);
  }

  remove(number) {
    for (const tile of this.rows.get(number).cells.values()) this.player.forget(tile);
    this.rows.get(number).element.remove();
    this.rows.delete(number);
  }

  topOf(row) {
    return this.layout.lines ? (this.layout.lines[row]?.top ?? 0) : row * (this.layout.height + this.layout.gap);
  }

  heightOf(row) {
    return this.layout.lines?.[row]?.height ?? this.layout.height;
  }

  /** Return the row at a height of the wall, by halves. */
  rowAt(y) {
    const { lines, height, gap } = this.layout;
    if (!lines) return Math.floor(y / (height + gap));
    let [low, high] = [0, lines.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lines[middle].top <= y) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** How far the wall is scrolled, in its own pixels, which may be more than the browser has. */
  get offset() {
    const room = this.scroll - this.root.clientHeight;
    return room <= 0 ? this.root.scrollTop : (this.root.scrollTop / room) * (this.tall - this.root.clientHeight);
  }

  draw() {
    if (!this.layout) return;
    const { numRows, numColumns, width, gap, left, top, lines } = this.layout;
    const first = Math.max(0, this.rowAt(this.offset - top - OVERSCAN));
    const last = Math.min(numRows - 1, this.rowAt(this.offset + this.root.clientHeight + OVERSCAN) + 1);
    const from = lines ? 0 : Math.max(0, Math.floor((this.root.scrollLeft - left - OVERSCAN) / (width + gap)));
    const to = lines ? numColumns - 1 : Math.min(numColumns - 1, Math.ceil((this.root.scrollLeft + this.root.clientWidth + OVERSCAN) / (width + gap)));
    for (const number of [...this.rows.keys()]) if (number < first || number > last) this.remove(number);
    const shift = this.root.scrollTop - this.offset;
    for (let number = first; number <= last; number++) this.drawRow(number, from, to, shift);
    this.drawActive();
  }

  drawRow(number, from, to, shift) {
    const { width, gap, left, top, lines, itemAt, make, rowLabel } = this.layout;
    const height = this.heightOf(number);
    if (!this.rows.has(number)) {
      const row = element("div", { className: "row", role: "presentation", style: { height: `${height}px` } });
      if (rowLabel) row.append(element("bdi", { className: "axis-y", dir: "auto", textContent: rowLabel(number).replaceAll("_", "_\u200b"), title: rowLabel(number), "aria-hidden": "true", style: { width: `${left}px` } }));
      this.canvas.append(row);
      this.rows.set(number, { element: row, cells: new Map() });
    }
    const row = this.rows.get(number);
    row.element.style.top = `${top + gap + this.topOf(number) + shift}px`;
    for (const [column, tile] of row.cells) {
      if (column < from || column > to) { this.player.forget(tile); tile.remove(); row.cells.delete(column); }
    }
    for (let column = from; column <= to; column++) {
      if (row.cells.has(column)) continue;
      const item = itemAt(number, column);
      if (item === null) continue;
      const tile = make(item, number, column);
      tile.item = item;
      const line = lines?.[number];
      Object.assign(tile.style, { left: `${line ? line.lefts[column] : left + gap + column * (width + gap)}px`, width: `${line ? line.widths[column] : width}px`, height: `${height}px` });
      row.element.append(tile);
      row.cells.set(column, tile);
    }
  }

  tileAt({ row, column }) {
    return this.rows.get(row)?.cells.get(column) ?? null;
  }

  get activeTile() {
    return this.tileAt(this.active);
  }

  get activeItem() {
    return this.layout && this.layout.numRows ? this.layout.itemAt(this.active.row, this.active.column) : null;
  }

  *tiles() {
    for (const { cells } of this.rows.values()) yield* cells.values();
  }

  drawActive() {
    const active = this.activeTile;
    for (const tile of this.tiles()) tile.classList.toggle("active", tile === active);
    if (active) this.root.setAttribute("aria-activedescendant", active.id);
    else this.root.removeAttribute("aria-activedescendant");
  }

  /** Make the tile under a mouse that moves the active one: keys are about what people point at. */
  point({ target, pointerType, movementX, movementY }) {
    if (pointerType !== "mouse" || !(movementX || movementY)) return; // browsers send moves after scrolling, too
    for (const [row, { cells }] of this.rows) {
      for (const [column, tile] of cells) {
        if (tile !== this.activeTile && tile.contains(target)) {
          this.active = { row, column };
          return this.drawActive();
        }
      }
    }
  }

  /** Make an item the active one. */
  choose(item) {
    this.active = this.layout.find(item) ?? this.active;
    this.reveal();
    this.draw();
  }

  /** Go from tile to tile, over the ends of rows where they go on; return whether there was one. */
  move(down, right) {
    const { numRows, itemAt, isWrapped, lines } = this.layout;
    let { row, column } = this.active;
    const numColumns = (right && lines?.[row]?.widths.length) || this.layout.numColumns;
    row += down;
    column += right;
    if (isWrapped && right && (column < 0 || column >= numColumns)) {
      const next = row + Math.sign(right);
      if (next >= 0 && next < numRows) [row, column] = [next, right < 0 ? this.layout.numColumns - 1 : 0];
    }
    row = Math.max(0, Math.min(numRows - 1, row));
    column = Math.max(0, Math.min(this.layout.numColumns - 1, column));
    while (isWrapped && column > 0 && itemAt(row, column) === null) column--;
    const isMoved = row !== this.active.row || column !== this.active.column;
    this.active = { row, column };
    this.reveal();
    this.draw();
    return isMoved;
  }

  get rowsInView() {
    return Math.max(1, Math.floor(this.root.clientHeight / (this.layout.height + this.layout.gap)));
  }

  /** Scroll so that the active tile is in view. */
  reveal() {
    const { width, gap, left, top } = this.layout;
    const above = this.topOf(this.active.row);
    const below = top + above + this.heightOf(this.active.row) + 2 * gap - this.root.clientHeight;
    const wanted = Math.min(Math.max(this.offset, below), above);
    if (wanted !== this.offset) {
      const room = this.tall - this.root.clientHeight;
      this.root.scrollTop = room > 0 ? (wanted / room) * (this.scroll - this.root.clientHeight) : 0;
    }
    if (!this.layout.columnLabel) return;
    const before = this.active.column * (width + gap);
    const after = left + before + width + 2 * gap - this.root.clientWidth;
    this.root.scrollLeft = Math.min(Math.max(this.root.scrollLeft, after), before);
  }
}
