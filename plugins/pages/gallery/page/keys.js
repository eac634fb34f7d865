"use strict";
// What keys do. The wall has the focus, and one of its tiles is the active one.

/** Do what a key means: in a dialog, on the wall, or anywhere on the page. */
function pressed(app, event) {
  const isTyping = event.target.matches("input:not([type=checkbox], [type=range]), textarea, select");
  if (event.key === "Escape" && !byId("filter-panel").hidden && !document.querySelector("dialog[open]") && event.target.id !== "search") return app.toggleFilters(false);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping) {
    if (event.key === "Escape" && isTyping && event.target.id !== "note") {
      event.preventDefault(); // else the browser empties the box, and the filter stays
      byId("wall").focus();
    }
    return;
  }
  const dialog = document.querySelector("dialog[open]");
  const isOnWall = app.wall.layout && (event.target === byId("wall") || event.target === document.body);
  const act = dialog ? dialogKeys(app, dialog)[event.key] : { ...pageKeys(app), ...(isOnWall ? wallKeys(app) : {}) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function pageKeys(app) {
  return {
    "/": () => byId("search").focus(),
    "?": () => byId("help-text").showModal(),
    f: () => app.toggleFilters(),
    g: () => app.change({ view: app.state.view === "grid" ? "clips" : "grid" }),
    p: () => app.pauseAll(),
    t: () => app.nextTheme(),
    v: () => { if (app.marked.length > 1) showCompare(app, app.marked); },
    "[": () => app.turnPage(-1),
    "]": () => app.turnPage(1),
  };
}

function wallKeys(app) {
  const { wall } = app;
  const far = 1e9;
  const item = wall.activeItem;
  const isClip = item !== null && app.table === app.records;
  const stars = Object.fromEntries([0, 1, 2, 3, 4, 5].map((number) => [String(number), () => isClip && app.star(item, number)]));
  return {
    ...stars,
    ArrowLeft: () => wall.move(0, -1), ArrowRight: () => wall.move(0, 1), ArrowUp: () => wall.move(-1, 0), ArrowDown: () => wall.move(1, 0),
    PageUp: () => wall.move(-wall.rowsInView, 0), PageDown: () => wall.move(wall.rowsInView, 0),
    Home: () => wall.move(-far, 0), End: () => wall.move(far, 0),
    Enter: () => item !== null && app.open(item),
    " ": () => isClip && wall.activeTile && app.player.toggle(wall.activeTile),
    s: () => isClip && app.star(item),
    c: () => isClip && app.mark(item),
    n: async () => { if (isClip) { await showDetails(app, app.table, item); byId("note")?.focus(); } },
  };
}

function dialogKeys(app, dialog) {
  const onward = (by) => () => { if (app.wall.move(0, by) && app.wall.activeItem !== null) showDetails(app, app.table, app.wall.activeItem); };
  if (dialog.id === "compare") {
    const { together } = dialog;
    return { " ": () => together.toggle(), ",": () => together.step(-1), ".": () => together.step(1), v: () => dialog.close() };
  }
  if (dialog.id !== "details") return {};
  const video = dialog.querySelector("video");
  const fps = Number(app.table.at(dialog.row, "fps")) || 16;
  const rowId = app.table.at(dialog.row, "row_id");
  const set = (stars) => { app.picks.set(rowId, { stars }); dialog.querySelector(".stars").replaceWith(starsOf(app, rowId)); };
  const stars = app.table === app.records ? Object.fromEntries([0, 1, 2, 3, 4, 5].map((number) => [String(number), () => set(number)])) : {};
  return {
    ...stars,
    ...(app.wall.layout && { ArrowLeft: onward(-1), ArrowRight: onward(1) }),
    ",": () => video && stepFrame(video, fps, -1), ".": () => video && stepFrame(video, fps, 1),
    " ": () => video && (video.paused ? video.play() : video.pause()),
    s: () => app.table === app.records && set(app.picks.get(rowId).stars ? 0 : 1),
    n: () => byId("note")?.focus(),
    Enter: () => dialog.close(),
  };
}
