"use strict";
// Draws the report from its data. Every text is set as text, never as HTML.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(space, name, attributes, children) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}
const html = (name, attributes = {}, ...children) => make(null, name, attributes, children);
const svg = (name, attributes = {}, ...children) => make(SVG, name, attributes, children);
const mark = (level) => html("span", { class: `mark ${level}`, title: level });
const rounded = (value) => (value < 0 ? "−" : "") + (Math.abs(value) >= 100 ? Math.abs(value).toFixed(0) : String(Number(Math.abs(value).toPrecision(2))));

function table(given, level = null) {
  const head = html("tr", {}, ...given.columns.map((name) => html("th", { scope: "col" }, name)));
  const body = given.rows.map((row, i) => html("tr", {}, ...row.map((text, j) =>
    html(j === 0 ? "th" : "td", j === 0 ? { scope: "row" } : {}, level && j === 0 ? mark(level[i]) : null, text))));
  return html("div", { class: "wide" }, html("table", {}, html("caption", {}, given.caption),
    given.columns.some(Boolean) ? html("thead", {}, head) : null, html("tbody", {}, ...body)));
}

const SIDE = 210, LEFT = 40, BOTTOM = 34, TOP = 6;
function scatter(given) {
  const sizes = given.points.flat().map(Math.abs);
  const limit = 1.08 * Math.max(...sizes, 1e-12);
  const x = (value) => LEFT + ((value + limit) / (2 * limit)) * SIDE;
  const y = (value) => TOP + ((limit - value) / (2 * limit)) * SIDE;
  const line = (a, b, name) => svg("line", { class: name, x1: x(a[0]), y1: y(a[1]), x2: x(b[0]), y2: y(b[1]) });
  const chart = svg("svg", { width: LEFT + SIDE + 4, height: TOP + SIDE + BOTTOM, role: "img", "aria-label": `${given.title}: ${given.points.length} points, predicted against measured` },
    svg("rect", { class: "frame", x: LEFT, y: TOP, width: SIDE, height: SIDE, rx: 6 }),
    line([-limit, 0], [limit, 0], "axis"), line([0, -limit], [0, limit], "axis"), line([-limit, -limit], [limit, limit], "diagonal"),
    svg("text", { x: x(0), y: TOP + SIDE + 28, "text-anchor": "middle" }, "predicted"),
    svg("text", { transform: `translate(10 ${y(0)}) rotate(-90)`, "text-anchor": "middle" }, "measured"),
    svg("text", { x: x(-limit), y: TOP + SIDE + 14 }, rounded(-limit)),
    svg("text", { x: x(limit), y: TOP + SIDE + 14, "text-anchor": "end" }, rounded(limit)),
    svg("text", { x: LEFT - 5, y: y(limit) + 10, "text-anchor": "end" }, rounded(limit)),
    ...given.points.map(([a, b]) => svg("circle", { class: given.control ? "control-dot" : "dot", cx: x(a), cy: y(b), r: 3.6 })));
  return html("figure", {}, html("figcaption", {}, given.title, html("small", {}, given.note)), chart);
}

const ROW = 26, NAMES = 200, AXIS = 300;
function forest(given) {
  const x = (value) => NAMES + ((Math.max(given.start, Math.min(1, value)) - given.start) / (1 - given.start)) * AXIS;
  const height = given.bars.length * ROW;
  const parts = [given.start, (1 + given.start) / 2, 1].map((tick) => svg("g", {},
    svg("line", { class: "axis", x1: x(tick), y1: 0, x2: x(tick), y2: height }),
    svg("text", { x: x(tick), y: height + 16, "text-anchor": "middle" }, rounded(tick))));
  given.bars.forEach((bar, i) => {
    const y = i * ROW + ROW / 2;
    parts.push(svg("text", { x: NAMES - 12, y: y + 4, "text-anchor": "end", class: "name" }, bar.label));
    if (bar.low !== null && bar.high !== null) parts.push(svg("line", { class: "interval", x1: x(bar.low), y1: y, x2: x(bar.high), y2: y }));
    if (bar.null !== null) parts.push(svg("path", { class: "chance", d: `M${x(bar.null)} ${y - 7}v14` }));
    if (bar.value !== null) parts.push(svg("circle", { class: "dot", cx: x(bar.value), cy: y, r: 4.5 }));
    else parts.push(svg("text", { x: x(given.start) + 4, y: y + 4 }, "unknown"));
  });
  return html("figure", { class: "forest" }, html("figcaption", {}, given.title, html("small", {}, given.note)),
    svg("svg", { width: NAMES + AXIS + 16, height: height + 24, role: "img", "aria-label": `${given.title}: ${given.bars.map((bar) => `${bar.label} ${bar.value === null ? "unknown" : rounded(bar.value)}`).join(", ")}` }, ...parts));
}

const each = (items, draw, name) => (items.length ? html("div", { class: name }, ...items.map(draw)) : null);
const section = (given) => html("section", { class: "card" }, html("h2", {}, given.title), html("p", { class: "lead" }, given.text),
  given.checks.length ? html("dl", { class: "checks" }, ...given.checks.map(check)) : null,
  each(given.forests, forest, "plots"), each(given.tables, (one) => table(one), "tables"), each(given.scatters, scatter, "plots"),
  given.notes.length ? html("ul", { class: "notes" }, ...given.notes.map((note) => html("li", {}, note))) : null);

function check(given) {
  return html("div", {}, html("dt", {}, mark(given.level), given.heading),
    html("dd", { class: "value" }, given.value, html("small", {}, given.control)), html("dd", { class: "text" }, given.text));
}

function summary() {
  const checks = data.sections.flatMap((one) => one.checks);
  const rows = checks.map((one) => [one.heading, one.value, one.control]);
  return html("section", { class: "card summary" },
    html("h2", { id: "verdict" }, mark(data.verdict.level), data.verdict.value), html("p", { class: "lead" }, data.verdict.text),
    table({ caption: "At a glance", columns: ["check", "figure", "beside it"], rows }, checks.map((one) => one.level)),
    html("p", { class: "hint" }, "Filled: strong. Half: moderate, or partly. Empty: weak, or not above its control; grey: unknown."));
}

document.title = `${data.prompt.trim()} · trust report`;
document.getElementById("prompt").append(data.prompt.trim());
document.getElementById("answers").append(...data.answers.map((one) =>
  html("li", {}, `${one.text.trim()} `, html("span", { class: "muted" }, `${(100 * one.probability).toFixed(1)}%`))));
document.getElementById("main").append(summary(), ...data.sections.map(section),
  html("section", { class: "card" }, html("h2", {}, "Provenance"), table(data.provenance)));
})();
