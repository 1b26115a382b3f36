// How far to trust the graph: the statements, and predicted against measured effects.

const PLOT = 230, MARGIN = { left: 34, bottom: 34, top: 6 };

const mark = (level) => html("span", { class: `mark ${level}`, "aria-hidden": "true" });

function showTrust() {
  const { verdict, statements } = data;
  const replacement = data.scores.replacement, real = data.causal?.spearman_real;
  const brief = [
    replacement === undefined || replacement === null ? "" : `${percent(replacement)} explained`,
    real === undefined || real === null ? "" : `causal ρ ${number(real)}`,
  ].filter(Boolean).join(", ");
  at("verdict").append(mark(verdict.level), html("span", {}, html("strong", {}, verdict.value), html("small", {}, brief || "how far to trust it")));
  at("verdict").firstChild.classList.add(verdict.level);
  at("trust-title").append(mark(verdict.level), verdict.value);
  at("trust-text").append(verdict.text);
  at("statements").append(...statements.map((statement) => html(
    "div", {},
    html("dt", {}, mark(statement.level), statement.heading),
    html("dd", { class: "value" }, statement.value),
    html("dd", { class: "text" }, statement.text),
  )));
}

function showScatter(actions) {
  const rows = data.causal?.rows ?? [];
  if (rows.length === 0) return;
  const sizes = rows.flatMap((entry) => [entry.predicted_total, entry.real, entry.random_real].map(Math.abs));
  const limit = 1.08 * Math.max(...sizes, 1e-12);
  const caption = (text, value) => html("figcaption", {}, text, html("small", {}, value));
  at("scatter").append(
    html("figure", {}, caption("The graph's top features", "predicted against measured effect"), plot(rows, "real", limit, "dot", actions)),
    html("figure", {}, caption("Random features, same size", "the same predictions, another feature"), plot(rows, "random_real", limit, "control-dot", actions)),
  );
}

function plot(rows, measured, limit, kind, actions) {
  const x = (value) => MARGIN.left + ((value + limit) / (2 * limit)) * PLOT;
  const y = (value) => MARGIN.top + ((limit - value) / (2 * limit)) * PLOT;
  const line = (a, b, name) => svg("line", { class: name, x1: x(a[0]), y1: y(a[1]), x2: x(b[0]), y2: y(b[1]) });
  const words = (text, attributes) => {
    const element = svg("text", attributes);
    element.textContent = text;
    return element;
  };
  const chart = svg(
    "svg",
    {
      width: MARGIN.left + PLOT, height: MARGIN.top + PLOT + MARGIN.bottom, role: "img",
      "aria-label": `Predicted against measured effect of ${rows.length} interventions (${kind === "dot" ? "graph features" : "random control"})`,
    },
    svg("rect", { class: "frame", x: MARGIN.left, y: MARGIN.top, width: PLOT, height: PLOT, rx: 6 }),
    line([-limit, 0], [limit, 0], "axis"), line([0, -limit], [0, limit], "axis"), line([-limit, -limit], [limit, limit], "diagonal"),
    words("predicted effect", { x: x(0), y: MARGIN.top + PLOT + 28, "text-anchor": "middle" }),
    words("measured", { transform: `translate(10 ${y(0)}) rotate(-90)`, "text-anchor": "middle" }),
    words(number(-limit), { x: x(-limit), y: MARGIN.top + PLOT + 14 }),
    words(signed(limit), { x: x(limit), y: MARGIN.top + PLOT + 14, "text-anchor": "end" }),
    words(signed(limit), { x: MARGIN.left - 5, y: y(limit) + 10, "text-anchor": "end" }),
  );
  for (const entry of rows) {
    const dot = svg("circle", { class: kind, cx: x(entry.predicted_total), cy: y(entry[measured]), r: 4 });
    const node = entry.node === null ? null : nodes[entry.node];
    if (node && kind === "dot") {
      dot.dataset.node = node.id;
      dot.addEventListener("click", () => actions.pin(node));
      dot.addEventListener("mouseenter", () => actions.point(node));
      dot.addEventListener("mouseleave", () => actions.point(null));
    }
    chart.append(dot);
  }
  return chart;
}

function showLeftOut() {
  const { counts, edges: total, influence_shown: held, edge_influence_shown: kept } = data.whole;
  const all = Object.values(counts).reduce((a, b) => a + b, 0);
  at("left-out").append(
    `The whole graph has ${all.toLocaleString("en")} nodes and ${total.toLocaleString("en")} edges. This page holds ` +
    `${nodes.length.toLocaleString("en")} nodes (${percent(held)} of the influence) and ${edges.length.toLocaleString("en")} edges ` +
    `(${percent(kept)} of what flows between them). Bias nodes count in the sums but are not drawn.`,
  );
  const plain = Object.entries(data.metadata).filter(([, value]) => typeof value === "string" || typeof value === "number");
  at("provenance").append(...plain.map(([name, value]) =>
    html("div", {}, html("dt", {}, name.replaceAll("_", " ")), html("dd", {}, String(value)))));
}
