"use strict";
// The page: what is shown, in what order, and what buttons do.

const LOOK_EVERY_MS = 20_000; // whether there is more
const MAX_AHEAD = 100; // blocks that are loaded before somebody asks: some 5 MB
const MAX_CELLS = 1.25; // of a grid at first, for each clip: failed rows leave some empty
const VIEWS = ["clips", "grid", "table", "picks", "failures"];
const TYPING_MS = 60; // of rest, before what is typed on is looked for
const MAX_FACTS = 3;
const NEVER_FACTS = new Set(["prompt", "negative_prompt", "row_id", "height", "width", "num_frames"]);

class App {
  async start() {
    await load("manifest.js");
    this.manifest = framefleet.latest;
    const { tables, block_rows: blockRows, identity } = this.manifest;
    this.records = new Table(tables.records, blockRows);
    this.failures = new Table(tables.failures, blockRows);
    this.picks = new Picks(identity);
    this.picks.changed = () => this.pickChanged();
    this.marked = []; // rows to compare
    this.factNames = this.factsOfTable();
    this.aspect = this.aspectOfTable();
    this.player = new Player(byId("wall"));
    this.wall = new Wall(byId("wall"), this.player);
    this.remember = new Map(); // view -> active item
    this.state = { view: "clips", q: "", sort: "", down: "", x: this.manifest.x ?? "", y: this.manifest.y ?? "", page: "", by: "", chartX: "", chartY: "", size: "", theme: "auto" };
    this.readHash();
    this.wire();
    this.drawFrame();
    await this.show();
    this.records.readAhead(MAX_AHEAD).catch(() => {}); // a newer gallery has taken its place: later reads report it
    setInterval(() => this.look(), LOOK_EVERY_MS);
  }

  get table() {
    return this.state.view === "failures" ? this.failures : this.records;
  }

  get size() {
    return Number(this.state.size) || (innerWidth < 600 ? 150 : 220);
  }

  get terms() {
    return parseQuery(this.state.q, (name) => this.table.has(name) || (this.table === this.records && ["stars", "note"].includes(name)));
  }

  columnOf(name) {
    return ["stars", "note"].includes(name) && !this.table.has(name) ? this.picks.column(name, this.table) : this.table.column(name);
  }

  /** Return the columns that distinguish rows best, for captions: arguments and own columns that vary. */
  factsOfTable() {
    const columns = [...this.records.columns.values()].filter((column) => column.varies && !NEVER_FACTS.has(column.name));
    const chosen = columns.filter((column) => column.role === "argument");
    const more = columns.filter((column) => column.role === "carried" && column.kind === "number");
    chosen.sort((one, other) => (other.name === "seed") - (one.name === "seed"));
    return [...chosen, ...(chosen.length > 1 ? [] : more)].slice(0, MAX_FACTS).map((column) => column.name);
  }

  /** Return width / height of most clips, as far as the manifest says. */
  aspectOfTable() {
    const most = (name) => Number(this.records.column(name)?.values?.[0]?.[0] ?? this.records.column(name)?.most) || 0;
    const [width, height] = [most("width"), most("height")];
    return width && height ? Math.min(3, Math.max(0.4, width / height)) : 1;
  }

  // What is shown stands in the page's address, so that it can be kept and sent.

  readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(this.state)) if (given.has(name)) this.state[name] = given.get(name);
    if (!VIEWS.includes(this.state.view)) this.state.view = "clips";
    for (const name of ["x", "y", "page"]) if (!this.records.has(this.state[name])) this.state[name] = "";
  }

  writeHash() {
    const address = new URLSearchParams(Object.entries(this.state).filter(([, value]) => value !== "" && value !== "auto"));
    history.replaceState(null, "", `#${address}`);
  }

  async change(values) {
    Object.assign(this.state, values);
    this.writeHash();
    await this.show();
  }

  // What stands around the wall.

  drawFrame() {
    const { records, failures, manifest } = this;
    const folders = outputOf(this).split("/").filter(Boolean);
    const name = (folders.at(-1) === "drafts" ? folders.slice(-2).join(": ") : folders.at(-1)) ?? manifest.output;
    const models = this.records.column("model")?.values?.map(([model]) => shown(model).split("/").filter(Boolean).pop() ?? "") ?? [];
    const date = this.records.column("finished_at")?.most?.slice(0, 10);
    const about = [models.slice(0, 2).join(", ") + (models.length > 2 ? ` and ${models.length - 2} more` : ""), date, `${count(records.numRows)} done`, `${count(failures.numRows)} failed`, manifest.notes[0]];
    byId("about").replaceChildren(...about.filter(Boolean).map((text) => element("bdi", { textContent: text })));
    byId("about").title = manifest.notes.join("\n");
    document.title = `${name} – framefleet gallery`;
    byId("title").textContent = name;
    byId("title").title = `${manifest.output}\nclips: ${count(records.numRows)}, written ${manifest.writtenAt}`;
    byId("num-failures").textContent = failures.numRows ? count(failures.numRows) : "";
    byId("size").value = this.size;
    document.documentElement.dataset.theme = this.state.theme;
    this.drawPause();
    this.drawPicks();
  }

  drawChoices() {
    const columns = [...this.table.columns.values()].filter((column) => column.varies);
    const order = (column) => GROUPS.findIndex(([role]) => role === column.role);
    columns.sort((one, other) => order(one) - order(other));
    const fill = (select, choices, chosen, none) => {
      select.replaceChildren(element("option", { value: "", textContent: none }), ...choices.map(({ name }) => element("option", { value: name, textContent: name })));
      select.value = chosen;
    };
    const own = this.table === this.records ? [{ name: "stars" }] : [];
    fill(byId("sort"), [...columns, ...own], this.state.sort, "table order");
    const axes = columns.filter((column) => column.distinct > 1);
    for (const axis of ["x", "y", "page"]) fill(byId(`axis-${axis}`), axes, this.state[axis], "–");
    byId("direction").textContent = this.state.down ? "↓" : "↑";
    byId("search").value = this.state.q;
  }

  drawPause() {
    const { isPaused } = this.player;
    byId("pause").textContent = isPaused ? "▶" : "❚❚";
    byId("pause").setAttribute("aria-pressed", String(isPaused));
  }

  drawPicks() {
    const { numStarred } = this.picks;
    byId("num-picks").textContent = numStarred ? count(numStarred) : "";
    byId("export").hidden = !numStarred;
    byId("open-compare").hidden = this.marked.length < 2;
    byId("open-compare").textContent = `Compare ${this.marked.length}`;
  }

  // The wall.

  async show() {
    const turn = (this.turn = Symbol("turn"));
    const { view } = this.state;
    byId("wall").ariaBusy = "true";
    byId("search").ariaInvalid = "false";
    document.body.dataset.view = view;
    for (const tab of document.querySelectorAll("[data-view][role=tab]")) tab.setAttribute("aria-selected", String(tab.dataset.view === view));
    if (view === "grid") this.chooseAxes();
    this.drawChoices();
    updateFilters(this, byId("filter-panel"));
    const began = performance.now();
    try {
      const rows = await this.select();
      if (view === "table") {
        const summary = await summaryOf(this, rows);
        if (turn !== this.turn) return;
        this.layoutAgain = null;
        this.wall.clear();
        this.wall.layout = null;
        byId("wall").replaceChildren(summary);
        this.drawStatus(rows);
        byId("wall").ariaBusy = "false";
        return;
      }
      const layout = await this.layoutOf(rows);
      if (turn !== this.turn) return; // another was asked for meanwhile
      this.layoutAgain = () => this.layoutOf(rows);
      this.wall.show(layout);
      this.drawStatus(rows);
      byId("wall").ariaBusy = "false";
      document.body.dataset.took = String(Math.round(performance.now() - began));
    } catch (error) {
      if (turn === this.turn) this.failed(error);
    }
  }

  async select() {
    const picked = this.state.view === "picks" ? [{ not: false, name: "stars", operator: ">", value: "0" }] : [];
    const isKnown = this.table.has(this.state.sort) || (this.state.sort === "stars" && this.table === this.records);
    const sort = { name: isKnown ? this.state.sort : null, isDown: this.state.down !== "" };
    checkColumns(this.terms, [...this.table.columns.keys(), ...(this.table === this.records ? ["stars", "note"] : [])]);
    return select(this.table, [...picked, ...this.terms], sort, (name) => this.columnOf(name));
  }

  async layoutOf(rows) {
    if (this.state.view === "failures") return listLayout(this, rows, (row) => failureItem(this, row), 84);
    if (this.state.view !== "grid") return flowLayout(this, rows);
    const [x, y, page] = ["x", "y", "page"].map((axis) => this.records.column(this.state[axis]) ?? null);
    this.crossed = await crossed(this.records, rows, x, y, page);
    this.pageNumber = Math.max(0, this.crossed.pages.indexOf(this.pageValue)); // the same one, whatever is filtered
    byId("page").textContent = page && rows.length ? `${this.pageNumber + 1} of ${this.crossed.pages.length}: ${shown(this.crossed.pages[this.pageNumber])}` : "";
    byId("pages").hidden = !page || !rows.length;
    return gridLayout(this, this.crossed, this.pageNumber, x, y);
  }

  /**
   * Choose axes where none are: seed, then arguments, then the user's columns, all of few values; pages by prompt. Of
   * several only those whose cells the clips could fill: where each prompt has a seed of its own, most would be empty.
   */
  chooseAxes() {
    const { state, records } = this;
    const rank = ({ name, role }) => (name === "seed" ? 0 : role === "argument" ? 1 : 2);
    const isScore = ({ kind, values }) => kind === "number" && values.some(([value]) => value !== null && !Number.isInteger(Number(value)));
    const isAxis = (column) => column.distinct > 1 && column.values && (column.role === "argument" || (column.role === "carried" && 2 * column.distinct <= records.numRows && !isScore(column)));
    const columns = [...records.columns.values()].filter(isAxis);
    const may = columns.sort((one, other) => rank(one) - rank(other)).map((column) => column.name);
    const fills = (...names) => names.reduce((cells, name) => cells * (records.column(name)?.distinct ?? 1), 1) <= MAX_CELLS * records.numRows;
    const free = (...taken) => {
      const left = may.filter((name) => !taken.includes(name) && fills(...taken, name));
      return left.find((name) => name !== "prompt") ?? left[0] ?? "";
    };
    const isFirst = !state.x && !state.y;
    state.x ||= isFirst ? free() : "";
    state.y ||= isFirst ? free(state.x) : "";
    if (isFirst || this.isPageFree === undefined) {
      this.isPageFree = false;
      const isUsed = state.x === "prompt" || state.y === "prompt";
      if (!state.page && !isUsed && records.column("prompt")?.distinct > 1 && fills(state.x, state.y, "prompt")) state.page = "prompt";
    }
  }

  turnPage(by) {
    const numPages = this.crossed?.pages.length ?? 1;
    this.pageValue = this.crossed?.pages[(this.pageNumber + by + numPages) % numPages];
    this.relayout();
  }

  async relayout() {
    if (!this.layoutAgain) return;
    const item = this.wall.activeItem;
    this.wall.show(await this.layoutAgain(), item);
  }

  drawStatus(rows) {
    const of = this.table.numRows;
    const what = this.state.view === "failures" ? "failed rows" : "clips";
    byId("status").textContent = rows.length === of ? `${count(of)} ${what}` : `${count(rows.length)} of ${count(of)} ${what}`;
    if (rows.length) return;
    const why = of && this.state.view !== "picks" ? "No matches." : { failures: "No failures.", picks: "No stars yet: press s on a clip." }[this.state.view] ?? "No clips yet.";
    byId("wall").replaceChildren(element("p", { className: "nothing", textContent: why }));
  }

  failed(error) {
    byId("status").textContent = error.message;
    byId("wall").ariaBusy = "false";
    if (!(error instanceof QueryError)) return this.look();
    this.layoutAgain = null;
    this.wall.clear();
    this.wall.layout = null;
    byId("search").ariaInvalid = "true";
    byId("status").textContent = "0 found";
    byId("wall").replaceChildren(element("p", { className: "nothing", role: "alert", textContent: error.message }));
  }

  /** See whether a newer gallery was written. */
  async look() {
    if (document.hidden) return;
    try {
      await load(`version.js?${Date.now()}`);
    } catch { // written at this moment, or taken away
      return;
    }
    byId("newer").hidden = framefleet.version === this.manifest.version;
  }

  // What is done to rows.

  open(row) {
    this.wall.choose(row);
    showDetails(this, this.table, row);
  }

  async star(row, stars = null) {
    await this.records.need(row, ["row_id"]); // a key may come before its tile is filled
    const rowId = this.records.at(row, "row_id");
    this.picks.set(rowId, { stars: stars ?? (this.picks.get(rowId).stars ? 0 : 1) });
  }

  mark(row) {
    if (this.marked.includes(row)) this.marked = this.marked.filter((one) => one !== row);
    else this.marked = [...this.marked, row].slice(-MAX_COMPARED);
    this.pickChanged();
  }

  pickChanged() {
    this.drawPicks();
    for (const tile of this.wall.tiles()) tile.update?.();
  }

  async exportPicks() {
    const url = URL.createObjectURL(new Blob([await picksTable(this.records, this.picks)], { type: "application/x-ndjson" }));
    element("a", { href: url, download: "picks.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  // The search field is where filters are kept.

  setTerm(name, operator, value) {
    const others = this.terms.filter((term) => !(term.name === name && term.operator === operator && !term.not)).map((term) => term.text);
    this.change({ q: [...others, ...(value === "" ? [] : [termText(name, operator, value)])].join(" ") });
  }

  toggleTerm(name, operator, value, isOn) {
    const text = value === null ? "" : String(value);
    const others = this.terms.filter((term) => !(term.name === name && term.operator === operator && term.value === text && !term.not)).map((term) => term.text);
    this.change({ q: [...others, ...(isOn ? [termText(name, operator, value)] : [])].join(" ") });
  }

  toggleFilters(isOpen = byId("filter-panel").hidden) {
    byId("filter-panel").hidden = !isOpen;
    byId("filters").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) drawFilters(this, byId("filter-panel"));
    this.relayout();
    (isOpen ? byId("filter-panel").querySelector("summary") : byId("wall"))?.focus();
  }

  nextTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const other = (this.state.theme === "auto" ? system : this.state.theme) === "dark" ? "light" : "dark";
    this.state.theme = other === system ? "auto" : other;
    document.documentElement.dataset.theme = this.state.theme;
    this.writeHash();
  }

  pauseAll() {
    this.player.pauseAll(!this.player.isPaused);
    this.drawPause();
  }

  // Buttons.

  wire() {
    const on = (id, event, act) => byId(id).addEventListener(event, act);
    let typing, typedAt = -TYPING_MS;
    on("search", "input", ({ timeStamp }) => {
      clearTimeout(typing);
      typing = setTimeout(() => this.change({ q: byId("search").value }), timeStamp - typedAt < TYPING_MS ? TYPING_MS : 0);
      typedAt = timeStamp;
    });
    on("search", "keydown", (event) => { if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); byId("wall").focus(); } });
    on("filters", "click", () => this.toggleFilters());
    on("sort", "change", () => this.change({ sort: byId("sort").value }));
    on("direction", "click", () => this.change({ down: this.state.down ? "" : "1" }));
    for (const axis of ["x", "y", "page"]) on(`axis-${axis}`, "change", () => { this.change({ [axis]: byId(`axis-${axis}`).value }); });
    on("page-before", "click", () => this.turnPage(-1));
    on("page-after", "click", () => this.turnPage(1));
    on("size", "input", () => { this.state.size = byId("size").value; this.relayout(); });
    on("size", "change", () => this.writeHash());
    on("pause", "click", () => this.pauseAll());
    on("theme", "click", () => this.nextTheme());
    on("help", "click", () => byId("help-text").showModal());
    on("export", "click", () => this.exportPicks().catch((error) => this.failed(error)));
    on("open-compare", "click", () => showCompare(this, this.marked));
    on("reload", "click", () => location.reload());
    for (const tab of document.querySelectorAll("[data-view][role=tab]")) tab.onclick = () => this.change({ view: tab.dataset.view });
    new ResizeObserver(() => { if (this.width !== (this.width = byId("wall").clientWidth)) this.relayout(); }).observe(byId("wall"));
    for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    for (const id of ["details", "compare"]) on(id, "close", () => byId("wall").focus());
    on("details", "close", () => byId("details").replaceChildren()); // its clip plays no more
    for (const event of ["keydown", "pointerdown"]) document.addEventListener(event, () => { document.body.dataset.used = "yes"; }, { once: true, capture: true });
    document.addEventListener("keydown", (event) => pressed(this, event));
    addEventListener("hashchange", () => { this.readHash(); this.drawFrame(); this.show(); });
  }
}

function failureItem(app, row) {
  const item = element("div", { className: "failure", role: "option", id: `tile-${row}` });
  item.onclick = () => app.open(row);
  app.table.need(row, ["error_type", "message", "prompt", "seed", "attempts"]).then(() => {
    const at = (name) => app.table.at(row, name);
    item.append(
      element("strong", { textContent: at("error_type") }),
      element("bdi", { className: "facts", dir: "auto", textContent: `${at("prompt") ?? ""} · seed ${at("seed")} · attempts: ${at("attempts")}` }),
      element("bdi", { className: "message", dir: "auto", textContent: at("message") }));
  });
  return item;
}

const app = new App();
app.start().then(
  () => { document.body.dataset.ready = "yes"; byId("wall").focus({ preventScroll: true }); },
  (error) => { byId("status").textContent = `This gallery cannot be shown: ${error.message}`; },
);
