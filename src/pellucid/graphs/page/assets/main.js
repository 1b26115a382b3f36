// State and events: what is visible, pointed at, pinned; everything else follows from these.

const state = { threshold: 0.8, errors: true, pinned: null, pointed: null, head: null, trail: [], found: [], query: "", home: null };
let layout = null, byRow = [], drawing = 0;

const isVisible = (node) =>
  isChip(node) || node === state.pinned || (node.cumulative <= state.threshold && (state.errors || node.kind !== "error"));

function redraw() {
  const visible = nodes.filter(isVisible);
  layout = layOut(visible, at("scroll").clientWidth);
  const canvas = at("graph");
  canvas.setAttribute("width", layout.width);
  canvas.setAttribute("height", layout.height);
  at("axis").style.height = `${layout.height}px`;
  drawGrid(layout);
  for (const node of nodes) {
    if (node.shown !== isVisible(node)) node.element.classList.toggle("gone", node.shown);
    node.shown = isVisible(node);
    node.element.classList.toggle("pinned", node === state.pinned);
  }
  visible.forEach(moveNode);
  at("labels").replaceChildren(...placeLabels(visible, layout.width).map(drawLabel));
  byRow = [...visible].sort((a, b) => a.y - b.y || a.x - b.x);
  const inner = visible.filter((node) => !isChip(node)).length;
  at("threshold-value").value = `${percent(Math.min(state.threshold, data.whole.influence_shown))}, ${inner} nodes`;
  search();
  highlight();
}

// Dims everything as one group and draws the node and its neighbours again above it.
function highlight() {
  const node = state.pointed ?? state.pinned;
  const lit = Boolean(node?.shown);
  const shown = lit ? edgesOf(node, isVisible) : { paths: node ? [] : backbone(isVisible), near: new Map() };
  at("edges").replaceChildren(...shown.paths);
  at("nodes").classList.toggle("lit", lit);
  at("near").replaceChildren(...[...shown.near].map(([other, sign]) => copyOf(other, sign)), ...(lit ? [copyOf(node, "current")] : []));
  for (const label of at("labels").children) {
    const other = nodes[label.dataset.of];
    label.classList.toggle("away", lit && other !== node && !shown.near.has(other));
  }
  const home = lit ? node : nodes.find((other) => other.kind === "logit"); // the graph is one tab stop
  state.home?.element.setAttribute("tabindex", -1);
  home?.element.setAttribute("tabindex", 0);
  state.home = home;
  for (const dot of document.querySelectorAll("#scatter [data-node]")) dot.classList.toggle("current", Number(dot.dataset.node) === node?.id);
}

function copyOf(node, name) {
  const copy = node.element.cloneNode(true);
  for (const attribute of ["tabindex", "role", "data-id"]) copy.removeAttribute(attribute);
  copy.classList.add(name);
  copy.dataset.of = node.id;
  return copy;
}

function showPanel() {
  const node = state.pointed ?? (state.head ? null : state.pinned);
  if (!node && state.head) showAttentionHead(state.head, actions);
  else if (node) showNode(node, { pinned: node === state.pinned, canGoBack: state.trail.length > 0 }, actions);
  else showStart(actions);
}

function showTip(node) {
  const tip = at("tip");
  tip.classList.toggle("open", Boolean(node?.shown));
  if (!node?.shown) return;
  tip.replaceChildren(nameOf(node), html("small", {}, placeOf(node)));
  const left = node.x - at("scroll").scrollLeft + at("axis").offsetWidth;
  const overflow = left + tip.offsetWidth / 2 - at("scroll").parentElement.clientWidth + 6;
  tip.style.left = `${Math.max(6, left - tip.offsetWidth / 2 - Math.max(0, overflow))}px`;
  const above = node.y - tip.offsetHeight - 16;
  tip.style.top = `${above > -40 ? above : node.y + 18}px`;
}

const actions = {
  isVisible,
  // From the lists and the scatter: light a node up without losing the list that names it.
  point(node) {
    state.pointed = node;
    highlight();
    showTip(node);
  },
  hover(node) {
    actions.point(node);
    showPanel();
  },
  pin(node, isBack = false) {
    if (!isBack && node && state.pinned && node !== state.pinned) state.trail.push(state.pinned);
    if (!node) state.trail = [];
    state.pinned = node;
    state.pointed = state.head = null;
    showTip(null);
    redraw();
    showPanel();
    if (node) reveal(node);
  },
  back: () => actions.pin(state.trail.pop(), true),
  openHead(head) {
    state.head = head;
    state.pointed = null;
    highlight();
    showPanel();
    at("panel").scrollTop = 0;
  },
};

function reveal(node) {
  const box = at("scroll");
  if (node.x < box.scrollLeft + 30 || node.x > box.scrollLeft + box.clientWidth - 30) box.scrollTo({ left: node.x - box.clientWidth / 2 });
}

const wordsOf = (node) => `${nameOf(node)} ${placeOf(node)} l${node.layer}`.toLowerCase();

function search() {
  const query = state.query.trim().toLowerCase();
  const matches = query ? nodes.filter((node) => wordsOf(node).includes(query)) : [];
  state.found = matches.filter(isVisible);
  const found = new Set(state.found);
  at("graph").classList.toggle("searching", Boolean(query));
  for (const node of nodes) node.element.classList.toggle("found", found.has(node));
  const concealed = matches.length - state.found.length;
  at("matches").textContent = query ? `${state.found.length} found${concealed ? `, ${concealed} hidden` : ""}` : "";
}

const nodeOf = (target) => {
  const group = target.closest?.("[data-id]");
  return group ? nodes[group.dataset.id] : null;
};

// Up and down follow the strongest edge; left and right move within a row.
function neighbour(node, key) {
  if (key === "ArrowUp") return node.outputs.find((edge) => isVisible(edge.target))?.target;
  if (key === "ArrowDown") return node.inputs.find((edge) => isVisible(edge.source))?.source;
  const row = byRow.filter((other) => other.layer === node.layer && other.kind !== "token" === (node.kind !== "token")).sort((a, b) => a.x - b.x);
  return row[row.indexOf(node) + (key === "ArrowRight" ? 1 : -1)];
}

function onKey(event) {
  const node = nodeOf(event.target);
  if (event.key === "Escape") actions.pin(null);
  else if (node && (event.key === "Enter" || event.key === " ")) {
    actions.pin(node);
    node.element.focus();
  } else if (node && event.key.startsWith("Arrow")) neighbour(node, event.key)?.element.focus();
  else return;
  event.preventDefault();
}

function listen() {
  const canvas = at("graph");
  canvas.addEventListener("mouseover", (event) => {
    const node = nodeOf(event.target);
    if (node !== state.pointed) actions.hover(node);
  });
  canvas.addEventListener("mouseleave", () => actions.hover(null));
  canvas.addEventListener("click", (event) => {
    const node = nodeOf(event.target);
    actions.pin(node === state.pinned ? null : node);
  });
  // On the box: an SVG root that listens for focus would become a tab stop itself.
  at("scroll").addEventListener("focusin", (event) => actions.hover(nodeOf(event.target)));
  at("scroll").addEventListener("focusout", () => actions.hover(null));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" || canvas.contains(event.target)) onKey(event);
  });
  const onChange = (id, kind, apply) => at(id).addEventListener(kind, (event) => {
    apply(event.target);
    cancelAnimationFrame(drawing); // one drawing a frame, however fast the slider moves
    drawing = requestAnimationFrame(() => {
      redraw();
      showPanel();
    });
  });
  onChange("threshold", "input", (slider) => { state.threshold = slider.value === slider.max ? 1 : slider.value / 100; });
  onChange("errors", "change", (box) => { state.errors = box.checked; });
  at("search").addEventListener("input", (event) => {
    state.query = event.target.value;
    search();
  });
  at("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || state.found.length === 0) return;
    actions.pin(state.found[(state.found.indexOf(state.pinned) + 1) % state.found.length]);
  });
  new ResizeObserver(redraw).observe(at("scroll"));
}

function showHead() {
  document.title = `${readable(data.prompt).slice(0, 80)} · attribution graph`;
  at("prompt").append(readable(data.prompt));
  at("prompt").classList.toggle("long", data.prompt.length > 140);
  at("predictions").append(...nodes.filter((node) => node.kind === "logit").slice(0, 4).map((node) => html(
    "li", {},
    html("button", { type: "button", onclick: () => actions.pin(node) }, `${readable(node.label)} `, html("span", { class: "muted" }, percent(node.probability))),
  )));
  const key = (kind, text) => html("span", {}, icon(kind), text);
  const line = (sign, text) => html("span", {}, svg("svg", { width: 24, height: 8, "aria-hidden": "true" },
    svg("path", { class: `stroke ${sign}`, d: "M1 4H23", "stroke-width": 2.4 })), text);
  at("legend").append(
    key("feature", "feature"), key("error", "error: not explained"), key("token", "token"), key("logit", "output"),
    line("plus", "raises"), line("minus", "lowers"), html("span", {}, "larger area, more influence"),
    html("span", {}, html("kbd", {}, "↑"), html("kbd", {}, "↓"), "follow the strongest edge"),
  );
}

// Where the page holds less than everything, the slider ends at what it holds.
const held = Math.floor(100 * data.whole.influence_shown);
at("threshold").max = held;
state.threshold = Math.min(0.8, held / 100);
at("threshold").value = 100 * state.threshold;
at("nodes").append(...nodes.map(drawNode));
showHead();
showTrust();
showScatter(actions);
showLeftOut();
listen();
redraw();
showPanel();
at("scroll").scrollLeft = layout.width; // the prediction stands at the right end
