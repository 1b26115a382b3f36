// SVG: the nodes, the edges of one node, the grid behind them.

const MOST_EDGES = 60, BACKBONE = 140;
const at = (id) => document.getElementById(id);

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Text goes in as text nodes only: no string of a graph is ever parsed as markup.
function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function shapeOf(kind, size, wide = 0) {
  const shape = { class: "shape" };
  if (kind === "feature") return svg("circle", { ...shape, r: size });
  if (kind === "error") {
    const r = size * 1.15;
    return svg("path", { ...shape, d: `M0 ${-r}L${r} 0L0 ${r}L${-r} 0Z` });
  }
  const height = wide ? CHIP - 4 : 2 * size, width = wide || 2 * size;
  return svg("rect", {
    ...shape, x: -width / 2, y: -height / 2, width, height, rx: kind === "logit" ? height / 2 : 2,
  });
}

const icon = (kind) =>
  svg("svg", { class: `icon ${kind}`, viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" }, shapeOf(kind, 5.5));

function drawNode(node) {
  node.element = svg("g", {
    class: `node ${node.kind} gone`, "data-id": node.id, role: "button", tabindex: -1,
    "aria-label": `${nameOf(node)}, ${placeOf(node)}`,
  });
  return node.element;
}

// Elements are kept and moved: making thousands anew for each step of the slider would stutter.
function moveNode(node) {
  node.element.setAttribute("transform", `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})`);
  const look = `${node.size} ${node.wide} ${node.text}`;
  if (node.look === look) return;
  node.look = look;
  if (isChip(node)) {
    const text = svg("text");
    text.textContent = node.text;
    node.element.replaceChildren(shapeOf(node.kind, 0, node.wide), text);
  } else {
    // A small mark keeps a larger, invisible target.
    const target = svg("circle", { r: Math.max(node.size + 2, 6.5), fill: "transparent" });
    node.element.replaceChildren(target, shapeOf(node.kind, node.size));
  }
}

function drawLabel({ node, text, x }) {
  const element = svg("text", { x, y: node.y, "data-of": node.id });
  element.textContent = text;
  return element;
}

function drawGrid({ columns, bands, top, width, height }) {
  const parts = columns.filter((_, i) => i % 2 === 1).map((column) =>
    svg("rect", { x: column.left, y: top, width: column.width, height: height - top }));
  for (const y of [top, ...bands.map((band) => band.bottom)]) parts.push(svg("line", { x1: 0, x2: width, y1: y, y2: y }));
  at("grid").replaceChildren(...parts);
  const label = (text, y) => {
    const span = html("span", {}, text);
    span.style.top = `${y}px`;
    return span;
  };
  at("axis").replaceChildren(
    label("output", TOP + CHIP / 2),
    ...bands.map((band) => label(`layer ${band.layer}`, band.bottom - band.height / 2)),
    label("tokens", height - CHIP - 6),
  );
}

function curve(edge, attributes) {
  const { source, target } = edge;
  const middle = (source.y + target.y) / 2;
  return svg("path", {
    ...attributes,
    d: `M${source.x.toFixed(1)} ${source.y.toFixed(1)}C${source.x.toFixed(1)} ${middle.toFixed(1)} ${target.x.toFixed(1)} ${middle.toFixed(1)} ${target.x.toFixed(1)} ${target.y.toFixed(1)}`,
  });
}

// Without a node in hand: the edges that carry most of the influence, faintly.
function backbone(isVisible) {
  const shown = [];
  for (const edge of edges) {
    if (shown.length === BACKBONE) break;
    if (isVisible(edge.source) && isVisible(edge.target)) shown.push(edge);
  }
  return shown.map((edge, i) =>
    curve(edge, { class: `faint ${signOf(edge.weight)}`, "stroke-width": (2.6 - (2 * i) / shown.length).toFixed(2) }));
}

// With one: its strongest inputs and outputs, each side to its own scale.
function edgesOf(node, isVisible) {
  const paths = [], near = new Map();
  for (const [list, other] of [[node.inputs, "source"], [node.outputs, "target"]]) {
    const largest = Math.abs(list[0]?.weight ?? 1);
    let drawn = 0;
    for (const edge of list) {
      if (drawn === MOST_EDGES) break;
      if (!isVisible(edge[other])) continue;
      const share = Math.abs(edge.weight) / largest;
      paths.push(curve(edge, {
        class: signOf(edge.weight), "stroke-width": (0.6 + 3.6 * share).toFixed(2), opacity: (0.22 + 0.7 * Math.sqrt(share)).toFixed(2),
      }));
      near.set(edge[other], signOf(edge.weight));
      drawn += 1;
    }
  }
  return { paths, near };
}
