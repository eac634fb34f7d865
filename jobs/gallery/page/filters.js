"use strict";
// The panel of filters: each control writes what could be typed into the search field.

const MAX_CHOICES = 24;
const GROUPS = [["argument", "Arguments"], ["carried", "Your columns and scores"], ["record", "Of the record"]];

/** Fill the panel with the columns of a table. */
function drawFilters(app, panel) {
  const groups = GROUPS.map(([role, title]) => {
    const columns = [...app.table.columns.values()].filter((column) => column.role === role && column.varies);
    return columns.length ? element("section", {}, element("h2", { textContent: title }), ...columns.map((column) => filterOf(app, column))) : null;
  });
  const close = element("button", { className: "close icon", textContent: "×", "aria-label": "Close filters", onclick: () => app.toggleFilters(false) });
  panel.replaceChildren(close, ...groups.filter(Boolean));
}

function filterOf(app, column) {
  const terms = app.terms.filter((term) => term.name === column.name);
  const body = column.values && column.values.length <= MAX_CHOICES ? choicesOf(app, column, terms)
    : column.kind === "number" ? rangeOf(app, column, terms) : containsOf(app, column, terms);
  const isOpen = terms.length > 0 || (column.role !== "record" && column.values?.length <= 8);
  return element("details", { open: isOpen }, element("summary", {}, element("bdi", { textContent: column.name })), body);
}

function choicesOf(app, column, terms) {
  const chosen = new Set(terms.filter((term) => term.operator === "=" && !term.not).map((term) => term.value));
  const values = column.kind === "number" ? [...column.values].sort(([one], [other]) => Number(one) - Number(other)) : column.values;
  return element("div", { className: "choices" }, ...values.map(([value, number]) => {
    const box = element("input", { type: "checkbox", checked: chosen.has(value === null ? "" : String(value)) });
    box.onchange = () => app.toggleTerm(column.name, "=", value, box.checked);
    return element("label", {}, box, element("bdi", { dir: "auto", textContent: shown(value) }), element("span", { className: "count", textContent: count(number) }));
  }));
}

function rangeOf(app, column, terms) {
  const field = (operator, bound, label) => {
    const term = terms.find((one) => one.operator === operator);
    const input = element("input", { type: "text", inputMode: "decimal", value: term?.value ?? "", placeholder: shown(bound), "aria-label": `${column.name}, ${label}` });
    input.onchange = () => app.setTerm(column.name, operator, input.value.trim());
    return input;
  };
  return element("div", { className: "range" }, field(">=", column.least, "least"), "–", field("<=", column.most, "most"));
}

function containsOf(app, column, terms) {
  const term = terms.find((one) => one.operator === ":" && !one.not);
  const input = element("input", { type: "search", value: term?.value ?? "", placeholder: "contains", "aria-label": `${column.name} contains` });
  input.onchange = () => app.setTerm(column.name, ":", input.value.trim());
  return input;
}
