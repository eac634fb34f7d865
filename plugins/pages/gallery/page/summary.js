"use strict";
// The table: clips by the values of a column, with the mean of each score; and a chart of a score by an argument.

const MAX_GROUPS = 500;
const MAX_POINTS = 4000; // of a chart: more are drawn over each other
const MAX_SCORES = 8;
const MAX_TICKS = 8;
const [CHART_WIDTH, CHART_HEIGHT, CHART_EDGE] = [640, 300, 52];

const isNumbers = (column) => column.kind === "number" && column.varies;

/** Return the numbers that rows were given, scores first, then whole numbers, which count or name something. */
function scoresOf(table) {
  const isWhole = (column) => Boolean(column.values?.every(([value]) => Number.isInteger(Number(value))));
  const numbers = [...table.columns.values()].filter((column) => column.role === "carried" && isNumbers(column));
  return numbers.sort((one, other) => isWhole(one) - isWhole(other)).slice(0, MAX_SCORES);
}

/** Return what stands on the wall: choices, chart, table. */
async function summaryOf(app, rows) {
  const table = app.records;
  const columns = [...table.columns.values()].filter((column) => column.varies);
  const scores = scoresOf(table);
  const rank = ({ name, role }) => ["argument", "carried", "record"].indexOf(role) - (name === "prompt") / 2 + (name === "seed") / 4;
  const groupable = columns.filter((column) => column.distinct > 1).sort((one, other) => rank(one) - rank(other));
  const across = columns.filter((column) => column.role === "argument" && isNumbers(column));
  const by = groupable.find(({ name }) => name === app.state.by) ?? groupable.find((column) => !scores.includes(column));
  const x = table.column(app.state.chartX) ?? across.find(({ name }) => name !== "seed") ?? across[0];
  const y = table.column(app.state.chartY) ?? scores[0];
  await Promise.all([by, x, y, ...scores].map((column) => column?.all()));
  const choice = (label, name, choices, chosen) => {
    const select = element("select", { onchange: () => app.change({ [name]: select.value }) }, ...choices.map((column) => element("option", { value: column.name, textContent: column.name })));
    select.value = chosen?.name ?? "";
    return element("label", { className: "group" }, label, select);
  };
  const numbers = columns.filter((column) => isNumbers(column));
  return element("div", { className: "summary" },
    x && y ? element("div", { className: "bar" }, choice("Chart", "chartY", numbers, y), choice("by", "chartX", numbers, x)) : null,
    x && y ? chartOf(app, rows, x, y) : null,
    element("div", { className: "bar" }, choice("Clips by", "by", groupable, by)),
    by ? groupsOf(app, rows, by, scores.filter((column) => column !== by)) : element("p", { textContent: "Nothing differs between these clips." }));
}

function groupsOf(app, rows, by, scores) {
  const groups = new Map(); // value -> {number, sums, counts}
  for (const row of rows) {
    const value = by.at(row);
    if (!groups.has(value)) groups.set(value, { number: 0, sums: scores.map(() => 0), counts: scores.map(() => 0) });
    const group = groups.get(value);
    group.number += 1;
    scores.forEach((score, place) => {
      const scored = score.at(row);
      if (scored === null || !Number.isFinite(Number(scored))) return;
      group.sums[place] += Number(scored);
      group.counts[place] += 1;
    });
  }
  const order = by.kind === "number" ? ([one], [other]) => Number(one) - Number(other) : ([, one], [, other]) => other.number - one.number;
  const chosen = [...groups].sort(order).slice(0, MAX_GROUPS);
  const head = [by.name, "clips", ...scores.map((score) => `mean ${score.name}`)].map((name) => element("th", { scope: "col" }, element("bdi", { textContent: name })));
  const lines = chosen.map(([value, { number, sums, counts }]) => {
    const look = element("button", { onclick: () => app.change({ view: "clips", q: [...app.terms.map((term) => term.text), termText(by.name, "=", value)].join(" ") }) },
      element("bdi", { dir: "auto", textContent: shown(value) }));
    const means = sums.map((sum, place) => element("td", { textContent: counts[place] ? shown(Number((sum / counts[place]).toPrecision(4))) : "–" }));
    return element("tr", {}, element("th", { scope: "row" }, look), element("td", { textContent: count(number) }), ...means);
  });
  const more = groups.size > chosen.length ? element("p", { textContent: `and ${count(groups.size - chosen.length)} more values` }) : null;
  return element("div", { className: "scrolls" }, element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines)), more);
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return a point for each clip, which opens it. */
function chartOf(app, rows, x, y) {
  const points = [];
  const every = Math.max(1, Math.ceil(rows.length / MAX_POINTS));
  for (let place = 0; place < rows.length; place += every) {
    const [across, up] = [x.at(rows[place]), y.at(rows[place])];
    if (across !== null && up !== null && Number.isFinite(Number(across)) && Number.isFinite(Number(up))) points.push([rows[place], Number(across), Number(up)]);
  }
  if (!points.length) return element("p", { textContent: `No clip here has both ${x.name} and ${y.name}.` });
  const scaleOf = (axis, from, to) => {
    const values = points.map((point) => point[axis]);
    const [least, most] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    return { least, most, at: (value) => (least === most ? (from + to) / 2 : from + ((to - from) * (value - least)) / (most - least)) };
  };
  const across = scaleOf(1, CHART_EDGE + 12, CHART_WIDTH - 16);
  const up = scaleOf(2, CHART_HEIGHT - CHART_EDGE, 16);
  const text = (left, top, anchor, said) => svg("text", { x: left, y: top, "text-anchor": anchor }, said);
  const values = [...new Set(points.map(([, one]) => one))].sort((one, other) => one - other);
  const ticks = values.length <= MAX_TICKS ? values : [across.least, across.most];
  const [bottom, middle] = [CHART_HEIGHT - CHART_EDGE + 12, (CHART_WIDTH + CHART_EDGE) / 2];
  const dots = points.map(([row, one, other]) => {
    const dot = svg("circle", { cx: across.at(one), cy: up.at(other), r: 4 }, svg("title", {}, `${x.name} ${shown(one)}, ${y.name} ${shown(other)}`));
    dot.onclick = () => showDetails(app, app.records, row);
    return dot;
  });
  return svg("svg", { class: "chart", viewBox: `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`, role: "img", "aria-label": `${y.name} by ${x.name}` },
    svg("path", { class: "axis", d: `M${CHART_EDGE} 10V${bottom}H${CHART_WIDTH - 10}` }),
    ...ticks.map((value) => text(across.at(value), bottom + 16, "middle", shown(Number(value.toPrecision(4))))),
    text(middle, bottom + 30, "middle", x.name),
    text(CHART_EDGE - 6, up.at(up.least), "end", shown(Number(up.least.toPrecision(3)))), text(CHART_EDGE - 6, up.at(up.most) + 8, "end", up.most === up.least ? "" : shown(Number(up.most.toPrecision(3)))),
    ...dots);
}
