"use strict";
// The panel of filters: each control writes what could be typed into the search field.

const MAX_CHOICES = 24;
const GROUPS = [["argument", "Arguments"], ["carried", "Your columns and scores"], ["record", "Record"]];

/** Fill the panel with the columns of a table. */
function drawFilters(app, panel) {
  const groups = GROUPS.map(([role, title]) => {
    const columns = [...app.table.columns.values()].filter((column) => column.role === role && column.varies);
    return columns.length ? element("section", {}, element("h2", { textContent: title }), ...columns.map((column) => filterOf(app, column))) : null;
  });
  const close = element("button", { className: "close icon", textContent: "×", "aria-label": "Close filters", title: "Close (Esc)", onclick: () => app.toggleFilters(false) });
  panel.replaceChildren(close, ...groups.filter(Boolean));
  panel.table = app.table;
  updateFilters(app, panel);
}

/** Have the controls say what the search field says; they stay, and so does the focus. */
function updateFilters(app, panel) {
  if (panel.hidden) return;
  if (panel.table !== app.table) return drawFilters(app, panel);
  const { terms } = app;
  for (const input of panel.querySelectorAll("input")) input.update(terms);
}

function filterOf(app, column) {
  const body = column.values && column.values.length <= MAX_CHOICES ? choicesOf(app, column)
    : column.kind === "number" ? rangeOf(app, column) : containsOf(app, column);
  const isOpen = app.terms.some((term) => term.name === column.name) || (column.role !== "record" && column.values?.length <= 8);
  return element("details", { open: isOpen }, element("summary", {}, element("bdi", { textContent: column.name })), body);
}

function choicesOf(app, column) {
  const values = column.kind === "number" ? [...column.values].sort(([one], [other]) => Number(one) - Number(other)) : column.values;
  return element("div", { className: "choices" }, ...values.map(([value, number]) => {
    const text = value === null ? "" : String(value);
    const box = element("input", { type: "checkbox" });
    box.update = (terms) => { box.checked = terms.some((term) => isOf(term, column, "=") && term.value === text); };
    box.onchange = () => app.toggleTerm(column.name, "=", value, box.checked);
    return element("label", {}, box, element("bdi", { dir: "auto", textContent: shown(value) }), element("span", { className: "count", textContent: count(number) }));
  }));
}

function rangeOf(app, column) {
  const field = (operator, bound, label) => fieldOf(app, column, operator, { type: "text", inputMode: "decimal", placeholder: shown(bound), "aria-label": `${column.name}, ${label}` });
  return element("div", { className: "range" }, field(">=", column.least, "least"), "–", field("<=", column.most, "most"));
}

function containsOf(app, column) {
  return fieldOf(app, column, ":", { type: "search", placeholder: "contains", "aria-label": `${column.name} contains` });
}

/** Return a field whose text is the value of one term. */
function fieldOf(app, column, operator, properties) {
  const input = element("input", properties);
  input.update = (terms) => { input.value = terms.find((term) => isOf(term, column, operator))?.value ?? ""; };
  input.onchange = () => app.setTerm(column.name, operator, input.value.trim());
  return input;
}

function isOf(term, column, operator) {
  return term.name === column.name && term.operator === operator && !term.not;
}
