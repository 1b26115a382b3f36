// The side panel: one node in words and numbers, or where to begin.

const LISTED = 12;

function row(node, weight, largest, actions) {
  const sign = signOf(weight ?? 1);
  const seen = actions.isVisible(node);
  const bar = html("span", { class: `bar ${weight === null ? "" : sign}` });
  bar.style.width = `${(100 * Math.abs(weight ?? 0)) / largest}%`;
  return html(
    "li", {},
    html(
      "button",
      {
        type: "button", "data-node": node.id, class: seen ? "" : "unseen",
        title: placeOf(node) + (seen ? "" : " (hidden by the controls above the graph; click to show it)"), onclick: () => actions.pin(node),
        onmouseenter: () => actions.point(node), onmouseleave: () => actions.point(null),
      },
      bar, icon(node.kind),
      html("span", { class: "name" }, nameOf(node), " ", html("span", { class: "muted" }, shortPlace(node))),
      html("span", { class: `weight ${weight === null ? "muted" : sign}` }, weight === null ? percent(node.influence, 1) : signed(weight)),
    ),
  );
}

function edgeList(title, list, other, actions) {
  if (list.length === 0) return [];
  const largest = Math.abs(list[0].weight);
  const more = list.length > LISTED ? `${LISTED} strongest of ${list.length}` : "";
  return [
    html("h3", {}, title, html("span", { class: "muted" }, more)),
    html("ul", { class: "rows" }, ...list.slice(0, LISTED).map((edge) => row(edge[other], edge.weight, largest, actions))),
  ];
}

// Every part of a row, so that nothing looks larger than it is.
function sumOf(node) {
  if (node.value === null) return [];
  const rest = node.value - node.from_shown - node.from_bias;
  const lines = [
    ["inputs on this page", node.from_shown], ["biases", node.from_bias], ["inputs left out", Math.abs(rest) < 1e-4 * Math.abs(node.value) ? 0 : rest],
  ].map(([name, value]) => [html("dt", {}, name), html("dd", {}, signed(value))]);
  const total = node.kind === "logit" ? "logit above the mean logit" : "pre-activation";
  return [html(
    "dl", { class: "sum" }, ...lines.flat(),
    html("dt", { class: "total" }, total), html("dd", { class: "total" }, number(node.value)),
  )];
}

function checkOf(node) {
  const rows = effects.get(node);
  if (!rows) return [];
  const heads = ["", "predicted", "real model", "random"];
  return [
    html("h3", {}, "When it is changed", html("span", { class: "muted" }, `effect on “${readable(data.causal.target.label)}”`)),
    html(
      "table", {},
      html("tr", {}, ...heads.map((text) => html("th", {}, text))),
      ...rows.map((entry) => html(
        "tr", {}, html("td", {}, entry.factor === 0 ? "removed" : `times ${entry.factor}`),
        ...[entry.predicted_total, entry.real, entry.random_real].map((value) => html("td", {}, signed(value))),
      )),
    ),
  ];
}

function factsOf(node) {
  const first = node.kind === "logit"
    ? ["probability", percent(node.probability, 1)]
    : ["activation", node.kind === "feature" ? number(node.activation) : "–"];
  const facts = [first, ["influence", node.kind === "logit" ? "–" : percent(node.influence, 1)], ["rank", node.kind === "logit" ? "–" : `${node.rank} of ${nodes.length}`]];
  return html("dl", { class: "facts" }, ...facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
}

function showNode(node, { pinned, canGoBack }, actions) {
  const buttons = html("div", { class: "state" });
  if (pinned && canGoBack) buttons.append(html("button", { type: "button", onclick: actions.back }, "Back"));
  if (pinned) buttons.append(html("button", { type: "button", onclick: () => actions.pin(null) }, "Let go"));
  at("panel").replaceChildren(
    html(
      "header", {}, icon(node.kind),
      html("div", {}, html("h2", {}, nameOf(node)), html("p", { class: "muted" }, placeOf(node))), buttons,
    ),
    factsOf(node),
    ...edgeList("What feeds it", node.inputs, "source", actions), ...sumOf(node), ...headsOf(node, actions),
    ...edgeList("What it feeds", node.outputs, "target", actions), ...checkOf(node),
    ...(node.inputs.length + node.outputs.length === 0 ? [html("p", { class: "hint" }, "None of its edges carries enough influence to be on this page.")] : []),
  );
}

function showStart(actions) {
  const top = byInfluence.filter((node) => node.kind === "feature").slice(0, LISTED);
  at("panel").replaceChildren(
    html("h2", {}, "Start here"),
    html("p", { class: "hint" }, "Point at a node to see what feeds it and what it feeds. Click to hold it, then click through the lists to follow the circuit."),
    html("h3", {}, "Most influential features", html("span", { class: "muted" }, "influence on the output")),
    html("ul", { class: "rows" }, ...top.map((node) => row(node, null, 1, actions))),
    ...headList(actions),
  );
}
