// The graph as objects: nodes with sorted inputs and outputs, and the words for them.

const data = JSON.parse(document.getElementById("data").textContent);

const nodes = data.nodes.kind.map((kind, id) => {
  const node = { id, kind: data.kinds[kind], inputs: [], outputs: [], x: 0, y: 0, size: 0, shown: false };
  for (const [name, column] of Object.entries(data.nodes)) if (name !== "kind") node[name] = column[id];
  return node;
});

// In descending order of the influence they carry.
const edges = data.edges.weight.map((weight, i) => ({
  source: nodes[data.edges.source[i]], target: nodes[data.edges.target[i]], weight,
}));

for (const edge of edges) {
  edge.source.outputs.push(edge);
  edge.target.inputs.push(edge);
}
const byWeight = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);
for (const node of nodes) {
  node.inputs.sort(byWeight);
  node.outputs.sort(byWeight);
}
const byInfluence = [...nodes].sort((a, b) => b.influence - a.influence);
byInfluence.forEach((node, i) => { node.rank = i + 1; });

const effects = new Map(); // node -> its interventions in the causal check
for (const row of data.causal?.rows ?? []) {
  if (row.node === null) continue;
  if (!effects.has(nodes[row.node])) effects.set(nodes[row.node], []);
  effects.get(nodes[row.node]).push(row);
}

const isChip = (node) => node.kind === "token" || node.kind === "logit"; // drawn with its text

const readable = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").trim() || "␣";
const tokenAt = (position) => `“${readable(data.tokens[position] ?? "")}”`;

function nameOf(node) {
  if (isChip(node)) return `“${readable(node.label)}”`;
  if (node.kind === "error") return node.label || "Not explained";
  return node.label || `Feature ${node.index}`;
}

function placeOf(node) {
  if (node.kind === "logit") return `output, ${percent(node.probability)} likely`;
  const where = `at ${tokenAt(node.position)}, position ${node.position}`;
  if (node.kind === "token") return `token ${where}`;
  const what = node.kind === "error" ? "error" : `feature ${node.index}`;
  return `layer ${node.layer} ${what} ${where}`;
}

const shortPlace = (node) =>
  node.kind === "token" ? "token" : node.kind === "logit" ? "output" : `L${node.layer} ${tokenAt(node.position)}`;

function percent(share, digits = 0) {
  if (share === null || share === undefined) return "–";
  if (share > 0 && share < 0.001) return "< 0.1%";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : digits)}%`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size >= 100 ? size.toFixed(0) : size >= 0.0095 ? size.toFixed(2) : size.toExponential(0);
  return (value < 0 ? "−" : "") + text;
}
const signed = (value) => (value > 0 ? "+" : "") + number(value);
const signOf = (value) => (value < 0 ? "minus" : "plus");
