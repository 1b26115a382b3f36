// Attention: which heads carry a node's edges, and which pairs of sources made a head look there.

const attention = data.attention;
const heads = new Map((attention?.heads ?? []).map((head) => [head.name, head]));
const headName = (name) => { const [layer, head] = name.split("."); return `Layer ${layer} head ${head}`; };
const PAIRS = 8, SOURCES = 5;

// A source of a query or key: a node of the page, or one that the page leaves out.
function sourceName(source) {
  if (source.kind === "constant") return "constants";
  if (source.node !== null) return nameOf(nodes[source.node]);
  return source.kind === "token" ? tokenAt(source.position) : nameOf(source);
}

const sourcePlace = (source) => source.kind === "constant" ? "" : shortPlace(source);

function sourceLink(source, actions) {
  const text = [sourceName(source), " ", html("span", { class: "muted" }, sourcePlace(source))];
  if (source.node === null) return html("span", { class: "source" }, ...text);
  const node = nodes[source.node];
  return html(
    "button",
    {
      type: "button", class: "source", "data-node": node.id, title: placeOf(node), onclick: () => actions.pin(node),
      onmouseenter: () => actions.point(node), onmouseleave: () => actions.point(null),
    },
    ...text,
  );
}

function headRow(name, value, text, largest, sign, actions) {
  const head = heads.get(name);
  const look = head ? [" ", html("span", { class: "muted" }, `${tokenAt(head.query)} to ${tokenAt(head.key)}`)] : [];
  const bar = html("span", { class: `bar ${sign}` });
  bar.style.width = `${(100 * Math.abs(value)) / largest}%`;
  const parts = [bar, html("span", { class: "name" }, name ? headName(name) : "No head, residual alone", ...look), html("span", { class: `weight ${sign}` }, text)];
  if (!head) return html("li", {}, html("div", { class: "plain" }, ...parts));
  return html("li", {}, html(
    "button",
    { type: "button", "data-head": name, title: `from ${tokenAt(head.query)} to ${tokenAt(head.key)}: click to see why`, onclick: () => actions.openHead(head) },
    ...parts,
  ));
}

// The heads that pass a node's strongest inputs on to it, summed over these inputs.
function headsOf(node, actions) {
  const own = (attention?.edges ?? []).filter((edge) => edge.target === node.id);
  if (own.length === 0) return [];
  const sums = new Map([["", 0]]);
  const add = (name, value) => sums.set(name, (sums.get(name) ?? 0) + value);
  for (const edge of own) {
    add("", edge.residual);
    for (const head of edge.heads) add(head.name, head.loading);
  }
  const rows = [...sums].filter(([, value]) => value !== 0).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, LISTED);
  const largest = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-30);
  const other = own.reduce((sum, edge) => sum + edge.other, 0);
  return [
    html("h3", {}, "Which heads carry it", html("span", { class: "muted" }, `of its ${own.length} strongest inputs`)),
    html("ul", { class: "rows heads" }, ...rows.map(([name, value]) => headRow(name, value, signed(value), largest, signOf(value), actions))),
    ...(other === 0 ? [] : [html("p", { class: "hint" }, `Other heads: ${signed(other)}.`)]),
  ];
}

function headList(actions) {
  if (heads.size === 0) return [];
  const largest = Math.max(...[...heads.values()].map((head) => head.share), 1e-30);
  const rows = [...heads.values()].map((head) => headRow(head.name, head.share, percent(head.share, 1), largest, "plus", actions));
  return [
    html("h3", {}, "Heads that carry most", html("span", { class: "muted" }, "share of the strongest edges")),
    html("ul", { class: "rows heads" }, ...rows),
    html("p", { class: "hint" }, `${percent(attention.residual_share)} of them passes no head.`),
    ...checkTable(attention.check),
  ];
}

const withInterval = (value, interval) => value === null ? "–" : number(value) + (interval ? ` [${interval.map(number).join(", ")}]` : "");

// How far the predictions hold, beside random features: with norms as they were, and answering.
function checkTable(check) {
  if (!check) return [html("p", { class: "hint" }, "Not checked by intervention: no feature lies below, or the check was left out.")];
  const line = (name, suffix) => html(
    "tr", {}, html("td", {}, name),
    ...["real", "random"].map((kind) => html("td", {}, withInterval(check[kind + suffix], check[`${kind + suffix}_interval`]))),
  );
  return [
    html("h3", {}, "How far to trust it", html("span", { class: "muted" }, `${check.n} features removed`)),
    html(
      "table", { class: "trusted" },
      html("tr", {}, ...["predicted with", "real model", "random features"].map((text) => html("th", {}, text))),
      line("norms held", ""), line("norms answering", "_answered"),
    ),
    html("p", { class: "hint" }, "Rank correlation of predicted with measured change of the score when one feature is removed, with 95% intervals."),
  ];
}

function pairTable(head, actions) {
  const rows = head.pairs.slice(0, PAIRS).map((pair) => html(
    "tr", {},
    html("td", {}, sourceLink(pair.query, actions)), html("td", {}, sourceLink(pair.key, actions)),
    html("td", { class: signOf(pair.value) }, signed(pair.value)), html("td", { class: "muted" }, percent(pair.share, 1)),
  ));
  const titles = [`query, at ${tokenAt(head.query)}`, `key, at ${tokenAt(head.key)}`, "adds", "share"];
  return html("table", { class: "pairs" }, html("tr", {}, ...titles.map((text) => html("th", {}, text))), ...rows);
}

function sideList(title, list, actions) {
  const rows = list.slice(0, SOURCES).map((entry) => html(
    "tr", {}, html("td", {}, sourceLink(entry.source, actions)), html("td", { class: signOf(entry.value) }, signed(entry.value)),
  ));
  return [html("h3", {}, title), html("table", { class: "pairs" }, ...rows)];
}

function removalTable(head, actions) {
  if (!head.check) return checkTable(null);
  const titles = ["without", "norms held", "answering", "real", "random"];
  return [
    html("h3", {}, "When a feature is removed", html("span", { class: "muted" }, "change of the score")),
    html(
      "table", { class: "pairs removals" }, html("tr", {}, ...titles.map((text) => html("th", {}, text))),
      ...head.removals.slice(0, SOURCES).map((entry) => html(
        "tr", {}, html("td", {}, sourceLink(entry.source, actions)),
        ...[entry.predicted, entry.predicted_answered, entry.real, entry.random_real].map((value) => html("td", {}, signed(value))),
      )),
    ),
    ...checkTable(head.check),
  ];
}

function showAttentionHead(head, actions) {
  const facts = [["attention", percent(head.probability)], ["from constants", percent(head.constant_share)], ["from errors", percent(head.error_share)]];
  const score = head.contrast ? `score ${number(head.score)}, ${signed(head.explained)} against the other keys' mean` : `score ${number(head.score)}`;
  at("panel").replaceChildren(
    html(
      "header", {},
      html("div", {}, html("h2", {}, headName(head.name)), html("p", { class: "muted" }, `looks from ${tokenAt(head.query)}, position ${head.query}, to ${tokenAt(head.key)}, position ${head.key}; ${score}`)),
      html("div", { class: "state" }, html("button", { type: "button", onclick: () => actions.openHead(null) }, "Close")),
    ),
    html("dl", { class: "facts" }, ...facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)))),
    html("h3", {}, "Why it looks there", html("span", { class: "muted" }, `${Math.min(PAIRS, head.pairs.length)} largest pairs`)),
    pairTable(head, actions),
    ...sideList("By source of the query", head.query_sources, actions),
    ...sideList("By source of the key", head.key_sources, actions),
    ...removalTable(head, actions),
  );
}
