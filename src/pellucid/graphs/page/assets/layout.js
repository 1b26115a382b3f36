// Where nodes go: a column a token, a band a layer, outputs above and tokens below.

const TOP = 14, CHIP = 26, BAND_PAD = 13, MIN_BAND = 34, MAX_BAND = 84, MOST_LABELS = 40;

const textWidth = (() => {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  return (text) => context.measureText(text).width;
})();

function shorten(text, width) {
  if (textWidth(text) <= width) return text;
  let end = text.length;
  while (end > 1 && textWidth(`${text.slice(0, end)}…`) > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

function layOut(visible, available) {
  const inner = visible.filter((node) => !isChip(node));
  const step = inner.length <= 60 ? 30 : inner.length <= 180 ? 24 : inner.length <= 600 ? 18 : 13.5;
  const cells = new Map();
  for (const node of inner) {
    const key = `${node.layer} ${node.position}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(node);
  }
  const columns = columnsFor(cells, visible, available, step);
  const bands = bandsFor(cells, columns, step);
  const top = placeOutputs(visible, columns);
  let y = top;
  for (const band of bands) {
    y += band.height;
    band.bottom = y;
  }
  const largest = Math.max(...inner.map((node) => node.influence), 1e-30);
  for (const cell of cells.values()) placeCell(cell, columns, bands, step, largest);
  for (const node of visible) {
    if (node.kind !== "token") continue;
    const column = columns[node.position];
    Object.assign(node, { x: column.middle, y: y + CHIP, wide: column.chip, text: shorten(readable(node.label), column.chip - 10) });
  }
  const last = columns[columns.length - 1];
  return { columns, bands, top, width: last.left + last.width, height: y + 2 * CHIP + 6 };
}

function columnsFor(cells, visible, available, step) {
  const most = data.tokens.map(() => 0);
  for (const cell of cells.values()) {
    const at = cell[0].position;
    most[at] = Math.max(most[at], cell.length);
  }
  const label = data.tokens.map((token) => Math.min(textWidth(readable(token)) + 16, 116));
  const need = most.map((count, i) => Math.max(label[i] + 6, step * Math.ceil(Math.sqrt(count * 1.6)) + 10));
  const spare = Math.max(0, available - need.reduce((a, b) => a + b, 0));
  const share = most.map((count) => count + 1);
  const total = share.reduce((a, b) => a + b, 0);
  let left = 0;
  return need.map((width, i) => {
    const column = { left, width: width + (spare * share[i]) / total };
    column.middle = left + column.width / 2;
    column.chip = Math.min(label[i], column.width - 4);
    left += column.width;
    return column;
  });
}

function bandsFor(cells, columns, step) {
  const bands = [];
  const room = (window.innerHeight - 330) / data.layers; // fills a screen where it can
  const least = Math.min(MAX_BAND, Math.max(MIN_BAND, room));
  for (let layer = data.layers - 1; layer >= 0; layer -= 1) bands.push({ layer, height: least });
  for (const cell of cells.values()) {
    const perRow = Math.max(1, Math.floor((columns[cell[0].position].width - 6) / step));
    const band = bands[data.layers - 1 - cell[0].layer];
    band.height = Math.max(band.height, Math.ceil(cell.length / perRow) * step + BAND_PAD);
  }
  return bands;
}

function placeCell(cell, columns, bands, step, largest) {
  const column = columns[cell[0].position], band = bands[data.layers - 1 - cell[0].layer];
  const perRow = Math.max(1, Math.floor((column.width - 6) / step));
  const rows = Math.ceil(cell.length / perRow);
  const balanced = Math.ceil(cell.length / rows);
  cell.sort((a, b) => b.influence - a.influence);
  cell.forEach((node, i) => {
    const row = Math.floor(i / balanced);
    const inRow = Math.min(balanced, cell.length - row * balanced);
    node.x = column.middle + ((i % balanced) - (inRow - 1) / 2) * step;
    node.y = band.bottom - band.height / 2 + (row - (rows - 1) / 2) * step;
    // Area, not radius, grows with influence.
    node.size = Math.max(step * 0.15, (step / 2 - 1.2) * Math.sqrt(node.influence / largest));
  });
}

// Outputs share one position; they stand in rows that end at the right edge, the likeliest lowest.
function placeOutputs(visible, columns) {
  const last = columns[columns.length - 1];
  const right = last.left + last.width - 8;
  const logits = visible.filter((node) => node.kind === "logit");
  let x = right, row = 0;
  for (const node of logits) {
    node.text = `${shorten(readable(node.label), 150)}  ${percent(node.probability)}`;
    node.wide = textWidth(node.text) + 26;
    if (x - node.wide < 4 && x < right) {
      x = right;
      row += 1;
    }
    Object.assign(node, { x: x - node.wide / 2, row });
    x -= node.wide + 6;
  }
  const lowest = TOP + CHIP / 2 + row * (CHIP + 6);
  for (const node of logits) node.y = lowest - node.row * (CHIP + 6);
  return lowest + CHIP / 2 + 10;
}

// Words beside the most influential labelled features, where nothing else stands.
function placeLabels(visible, width) {
  const taken = visible.map((node) => {
    const half = node.wide ? node.wide / 2 : node.size + 2;
    return { left: node.x - half, right: node.x + half, top: node.y - half, bottom: node.y + half };
  });
  const labels = [];
  const candidates = byInfluence.filter((node) => node.kind === "feature" && node.label && node.shown);
  for (const node of candidates) {
    if (labels.length === MOST_LABELS) break;
    const text = shorten(readable(node.label), 130);
    const wide = 0.85 * textWidth(text) + 4;
    for (const left of [node.x + node.size + 4, node.x - node.size - 4 - wide]) {
      const box = { left, right: left + wide, top: node.y - 7, bottom: node.y + 7 };
      const clear = left > 0 && box.right < width && !taken.some((other) =>
        other.left < box.right && other.right > box.left && other.top < box.bottom && other.bottom > box.top);
      if (!clear) continue;
      taken.push(box);
      labels.push({ node, text, x: left });
      break;
    }
  }
  return labels;
}
