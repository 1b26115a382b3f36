"use strict";
// Draws a chain from its data. Every text is set as text, never as HTML; a graph is drawn by its own
// page, in a frame without rights whose data are escaped so that they cannot leave their element.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
const level = (step) => (step.flagged || step.probability >= 0.5 ? "likely" : step.probability >= 0.1 ? "possible" : "unlikely");
const range = (step) => (step.interval ? ` (${percent(step.interval[0])} to ${percent(step.interval[1])})` : "");

function table(columns, rows) {
  return html("table", {},
    html("thead", {}, html("tr", {}, ...columns.map((name) => html("th", { scope: "col" }, name)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell) =>
      html("td", typeof cell === "number" ? { class: "number" } : {}, typeof cell === "number" ? signed(cell) : cell))))));
}

function exampleOf(example) {
  return html("div", {}, html("span", { class: "muted" }, example.before), html("mark", {}, example.token),
    html("span", { class: "muted" }, `${example.after}  ${Number(example.activation.toPrecision(3))}`));
}

function reasonsOf(step) {
  if (!step.reasons.length) return null;
  return html("div", {}, html("h3", {}, "What speaks against it: readings"),
    table(["reading", "log-odds"], step.reasons.map((each) => [each.column, each.contribution])));
}

function accusedOf(step) {
  if (!step.accused.length) return null;
  return html("div", { id: "accused" }, html("h3", {}, "Accused features and errors"),
    table(["node", "log-odds", "influence", "strongest in this chain or its examples"], step.accused.map((each) => [
      `${each.name}, graph ${each.target}`,
      each.contribution, percent(each.influence), html("div", {}, ...each.examples.map(exampleOf))])));
}

function repairsOf(step) {
  if (!step.repairs.length) return null;
  return html("div", { id: "repairs" }, html("h3", {}, "Repair"), ...step.repairs.map((repair) =>
    html("div", {}, html("p", {}, `outcome: ${repair.outcome}`),
      table(["feature", "operation", "outcome"], repair.tried.map((each) => [each.feature, each.operation, each.outcome])))));
}

// JSON that cannot end the script element it stands in, as the page's own maker writes it.
const safe = (value) => JSON.stringify(value).replace(/[<>&\u2028\u2029]/g,
  (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

function graphsOf(step) {
  const names = Object.keys(step.graphs);
  if (!names.length) return html("p", { class: "muted" }, step.graphed ? "Its graph was not kept." : "The free score decided; no graph was traced.");
  const place = html("div");
  const open = (name) => {
    const frame = html("iframe", { title: `Graph: ${name}`, sandbox: "allow-scripts", loading: "lazy" });
    frame.srcdoc = data.frame.split('"@GRAPH@"').join(safe(step.graphs[name]));
    place.replaceChildren(frame);
  };
  return html("div", {}, html("h3", {}, "Graph"),
    ...names.map((name) => html("button", { type: "button", class: "open", click: () => open(name) }, `draw ${name}`)), place);
}

function show(number) {
  const step = data.steps[number];
  [...at("steps").children].forEach((item, n) => item.firstChild.setAttribute("aria-pressed", String(n === number)));
  const parts = [
    html("h2", {}, step.text),
    html("p", { class: "muted" }, `step ${step.number + 1}, after ${step.before}`),
    html("p", {}, `${percent(step.probability)} likely wrong${range(step)}, ${step.graphed ? "by its graph" : "by its free score"}${step.flagged ? ", flagged" : ""}; ${step.seconds.toFixed(3)} s`),
    reasonsOf(step), accusedOf(step), repairsOf(step), graphsOf(step),
  ];
  at("step").replaceChildren(...parts.filter((part) => part !== null));
}

document.title = `${data.prompt.slice(0, 80)} · chain of thought`;
at("prompt").append(data.prompt);
at("prompt").classList.toggle("long", data.prompt.length > 140);
const flagged = data.steps.filter((step) => step.flagged);
at("verdict").append(flagged.length ? `first flagged: step ${flagged[0].number + 1}` : `no step flagged of ${data.steps.length}`);
at("steps").append(...data.steps.map((step, number) => html("li", {}, html("button",
  { type: "button", class: level(step), "aria-pressed": "false", click: () => show(number) },
  html("span", { class: "muted" }, String(step.number + 1)), html("span", { class: "text" }, step.text),
  html("span", {}, percent(step.probability)),
  step.flagged ? html("span", { class: "flag" }, "flagged") : null))));
at("meaning").append(
  "A probability is the verifier's, calibrated on steps like those it was fitted on; without a graph it is the share of wrong steps among training steps of such a free score. ",
  "Log-odds say what moved the verifier, not what moved the model: that takes an intervention.");
if (data.steps.length) show(Math.max(0, data.steps.findIndex((step) => step.flagged)));
})();
