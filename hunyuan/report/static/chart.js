/* One chart: curves, bands, points and marks over one axis, drawn as SVG at the width it is given.

   spec: { title, note, height, x: {kind, log, domain, title, format}, y: {log, zero, top, format},
           lines:  [{name, color, dash, raw, strong, x, y, at}],    at: {step, tokens, seconds} of the points
           bands:  [{color, x, low, xHigh, high}],
           points: [{name, color, shape, x, y, at}],
           marks:  [{x, level, text}] }
   What is drawn can be read: the pointer, a finger or the arrow keys show the values. */

const DASHES = ["", "6 4"];
const colorOf = (i) => `var(--run${i % 6})`;
const dashOf = (i) => DASHES[Math.floor(i / 6) % 2];

const SPANS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

function linearTicks(low, high, count, spans) {
  const raw = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const usual = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const day = 86400 * ([1, 2, 5, 10, 20, 50, 100].find((d) => d * 86400 >= raw) ?? 200);
  const step = spans && raw >= 1 ? SPANS.find((s) => s >= raw) ?? day : usual;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, count) {
  for (const steps of [[1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p += 1)
      for (const s of steps) ticks.push(Number((s * 10 ** p).toPrecision(6)));
    const inside = ticks.filter((t) => t >= low * 0.9999 && t <= high * 1.0001);
    if (inside.length <= count + 1 && inside.length > 1) return inside;
    if (inside.length <= 1) return linearTicks(low, high, count).filter((t) => t > 0);
    if (steps.length === 1) {
      const every = Math.ceil(inside.length / count);
      return inside.filter((_, i) => i % every === 0);
    }
  }
  return [];
}

function scale([low, high], [from, to], log) {
  const f = log ? Math.log : (v) => v;
  const slope = (to - from) / (f(high) - f(low) || 1);
  return (value) => from + (f(value) - f(low)) * slope;
}

/** Least and greatest of what can be drawn. */
function extent(arrays, log) {
  let low = Infinity, high = -Infinity;
  for (const array of arrays) for (const v of array)
    if (v !== null && Number.isFinite(v) && !(log && v <= 0)) { if (v < low) low = v; if (v > high) high = v; }
  return low <= high ? [low, high] : null;
}

/** Position of the nearest x, in an ascending array. */
function nearest(array, value) {
  let low = 0, high = array.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] < value) low = middle + 1; else high = middle;
  }
  return low > 0 && Math.abs(array[low - 1] - value) <= Math.abs(array[low] - value) ? low - 1 : low;
}

const measure = document.createElement("canvas").getContext("2d");
function textWidth(text) {
  measure.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return measure.measureText(text).width;
}

const SHAPES = {
  circle: (x, y, r) => svg("circle", { cx: x, cy: y, r }),
  square: (x, y, r) => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 }),
  triangle: (x, y, r) => svg("path", { d: `M${x},${y - r * 1.2}l${r * 1.15},${r * 2}h${-r * 2.3}z` }),
  diamond: (x, y, r) => svg("path", { d: `M${x},${y - r * 1.35}l${r * 1.35},${r * 1.35}l${-r * 1.35},${r * 1.35}l${-r * 1.35},${-r * 1.35}z` }),
};

/** The sign of a curve or of points in a legend. */
function key({ color, dash, raw, shape }) {
  const box = svg("svg", { class: "key", viewBox: "0 0 22 12", "aria-hidden": "true" });
  if (shape) box.append(filled(SHAPES[shape](11, 6, 4), { style: { fill: color } }, []));
  else box.append(svg("path", { d: "M1,6H21", "stroke-dasharray": dash, opacity: raw ? 0.4 : null, style: { stroke: color, "stroke-width": raw ? 1.2 : 2 } }));
  return box;
}

function path(x, y, sx, sy, log) {
  let d = "", pen = "M";
  for (let i = 0; i < x.length; i += 1) {
    const v = y[i];
    if (v === null || !Number.isFinite(v) || (log && v <= 0)) { pen = "M"; continue; }
    d += `${pen}${sx(x[i]).toFixed(1)},${sy(v).toFixed(1)}`;
    pen = "L";
  }
  return d;
}

function chart(spec) {
  const { lines = [], bands = [], points = [], marks = [] } = spec;
  const height = spec.height ?? 190;
  const readable = [...lines, ...points].filter((s) => s.x.length && s.name);
  const xs = [...lines, ...points].map((s) => s.x);
  const ys = [...lines, ...points].map((s) => s.y).concat(bands.flatMap((b) => [b.low, b.high]));
  const showY = spec.y.format ?? short;
  const showX = spec.x.format ?? (spec.x.kind === "seconds" ? duration : short);
  const tip = el("div", { class: "tip", hidden: "" });
  const note = spec.note ? el("small", {}, spec.note) : null;
  const plot = svg("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": spec.title });
  const figure = el("figure", {}, el("figcaption", {}, spec.title, note), plot, tip);

  let yLog = spec.y.log;
  if (yLog && ys.some((array) => array.some((v) => v !== null && v <= 0))) yLog = false;
  const xDomain = extent(spec.x.domain ? [spec.x.domain] : xs, spec.x.log) ?? [0, 1];
  let yDomain = extent(ys, yLog) ?? (yLog ? [0.1, 1] : [0, 1]);
  if (spec.y.zero && !yLog) yDomain = [Math.min(0, yDomain[0]), Math.max(spec.y.top ?? -Infinity, yDomain[1])];
  if (yDomain[0] === yDomain[1]) {
    const room = Math.abs(yDomain[0]) * 0.1 || 1;
    yDomain = yLog ? [yDomain[0] / 1.2, yDomain[1] * 1.2] : [yDomain[0] - (yDomain[0] === 0 ? 0 : room), yDomain[1] + room];
  } else if (yLog) {
    const room = (yDomain[1] / yDomain[0]) ** 0.04;
    yDomain = [yDomain[0] / room, yDomain[1] * room];
  } else {
    const room = (yDomain[1] - yDomain[0]) * 0.06;
    yDomain = [yDomain[0] - (spec.y.zero && yDomain[0] >= 0 ? 0 : room), yDomain[1] + room];
  }
  if (points.length && spec.x.log) {
    const room = (xDomain[1] / xDomain[0]) ** 0.04 || 1.1;
    xDomain[0] /= room;
    xDomain[1] *= room;
  }
  if (xDomain[0] === xDomain[1]) xDomain[1] = spec.x.log ? xDomain[0] * 1.1 : xDomain[0] + 1;

  let frame = null;
  function draw(width) {
    const yTicks = (yLog ? logTicks : linearTicks)(...yDomain, Math.max(height / 42, 2));
    const left = Math.ceil(Math.max(...yTicks.map((t) => textWidth(showY(t))), 18)) + 10;
    const right = 10, top = marks.length ? 12 : 6, bottom = 24;
    const sx = scale(xDomain, [left, width - right], spec.x.log);
    const sy = scale(yDomain, [height - bottom, top], yLog);
    frame = { left, right: width - right, top, bottom: height - bottom, sx, sy, width };
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.setAttribute("height", height);
    plot.replaceChildren();
    for (const t of yTicks) {
      const y = sy(t);
      plot.append(svg("line", { class: "grid-line", x1: left, x2: width - right, y1: y, y2: y }),
        svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, showY(t)));
    }
    const base = height - bottom;
    plot.append(svg("line", { class: "axis-line", x1: left, x2: width - right, y1: base, y2: base }));
    const count = Math.max((width - left) / 95, 2);
    const xTicks = spec.x.log ? logTicks(...xDomain, count) : linearTicks(...xDomain, count, spec.x.kind === "seconds");
    let taken = -Infinity;
    for (const t of xTicks) {
      const label = showX(t);
      const half = textWidth(label) / 2;
      const x = Math.min(Math.max(sx(t), left + half - 6), width - half);
      plot.append(svg("line", { class: "axis-line", x1: sx(t), x2: sx(t), y1: base, y2: base + 4 }));
      if (x - half < taken + 8) continue;
      taken = x + half;
      plot.append(svg("text", { x, y: height - 5, "text-anchor": "middle" }, label));
    }
    for (const b of bands) {
      const forth = path(b.xHigh ?? b.x, b.high, sx, sy, yLog);
      const back = path([...b.x].reverse(), [...b.low].reverse(), sx, sy, yLog).replace("M", "L");
      plot.append(svg("path", { class: "band", d: forth && back ? `${forth}${back}Z` : "", style: { fill: b.color } }));
    }
    for (const l of lines)
      plot.append(svg("path", { class: l.raw ? "curve raw" : "curve", d: path(l.x, l.y, sx, sy, yLog), "stroke-dasharray": l.dash || null, style: { stroke: l.color, "stroke-width": l.x.length > width && !l.strong ? 1 : null } }));
    for (const l of lines) if (l.x.length === 1) plot.append(dot(l, 0, "circle", 3));
    for (const p of points) for (let i = 0; i < p.x.length; i += 1) if (p.y[i] !== null) plot.append(dot(p, i, p.shape, 4));
    for (const m of marks) {
      const x = sx(m.x);
      plot.append(svg("g", { class: m.level }, svg("line", { class: "alarm", x1: x, x2: x, y1: top, y2: base, style: { stroke: "var(--level)" } }),
        svg("path", { d: `M${x - 5},${top - 10}h10l-5,8z`, style: { fill: "var(--level)" } })));
    }
  }
  const dot = (s, i, shape, r) =>
    filled(SHAPES[shape](frame.sx(s.x[i]), frame.sy(s.y[i]), r), { class: "dot", style: { fill: s.color } }, []);

  let cursor = null;
  const leave = () => { cursor = null; tip.hidden = true; plot.querySelectorAll(".hover").forEach((n) => n.remove()); };
  /** Show what lies at a value of x. */
  function read(value) {
    const found = readable.map((s) => [s, nearest(s.x, value)]);
    const close = found.filter(([s, i]) => Math.abs(frame.sx(s.x[i]) - frame.sx(value)) < 14);
    leave();
    if (!found.length) return;
    const shown = close.length ? close : [found.reduce((a, b) => Math.abs(frame.sx(a[0].x[a[1]]) - frame.sx(value)) <= Math.abs(frame.sx(b[0].x[b[1]]) - frame.sx(value)) ? a : b)];
    const [first, at] = shown[0];
    cursor = first.x[at];
    const x = frame.sx(cursor);
    const group = svg("g", { class: "hover" }, svg("line", { class: "cursor", x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
    for (const [s, i] of shown) if (s.y[i] !== null) group.append(dot(s, i, s.shape ?? "circle", s.shape ? 5 : 3.5));
    plot.append(group);
    const place = first.at ? placeOf(first.at, at) : `${spec.x.title ?? ""} ${short(cursor, 4)}`;
    const said = marks.filter((m) => Math.abs(frame.sx(m.x) - x) < 6).slice(0, 3);
    tip.replaceChildren(el("p", {}, place), el("div", {}, ...shown.flatMap(([s, i]) =>
      [key(s), el("span", {}, s.name), el("b", {}, showY(s.y[i], 4))])),
    ...said.map((m) => el("p", { class: `said ${m.level}` }, m.text)));
    tip.hidden = false;
    const space = figure.clientWidth;
    const right = x + 14 + tip.offsetWidth <= space;
    tip.style.left = `${right ? x + 14 : Math.max(x - 14 - tip.offsetWidth, 0)}px`;
    tip.style.top = `${plot.getBoundingClientRect().top - figure.getBoundingClientRect().top + frame.top + 4}px`;
  }
  function pointed(event) {
    const x = event.clientX - plot.getBoundingClientRect().left;
    if (!frame || x < frame.left - 8 || x > frame.right + 8) { leave(); return; }
    const f = spec.x.log ? Math.log : (v) => v, g = spec.x.log ? Math.exp : (v) => v;
    const part = (x - frame.left) / (frame.right - frame.left);
    read(g(f(xDomain[0]) + part * (f(xDomain[1]) - f(xDomain[0]))));
  }
  plot.addEventListener("pointermove", pointed);
  plot.addEventListener("pointerdown", pointed);
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step || !readable.length) return;
    event.preventDefault();
    const { x } = readable.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    const i = cursor === null ? (step > 0 ? 0 : x.length - 1) : nearest(x, cursor) + step;
    read(x[Math.min(Math.max(i, 0), x.length - 1)]);
  });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(figure.clientWidth);
    if (width && width !== drawn) { leave(); draw(width); drawn = width; }
  }).observe(figure);
  return figure;
}
