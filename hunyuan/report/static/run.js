/* The report of one or several training runs. */

const state = { axis: "step", lossLog: true, hidden: new Set(), shown: null };
const SHAPE_NAMES = Object.keys(SHAPES);

/** Distances from one point to the next, back as places. */
function summed(steps, unit = 1) {
  let at = 0;
  return steps.map((step) => (at += step) * unit);
}

/** Thinned curves as {name: {x by axis, y}}. */
function curves(packed) {
  const axes = { step: summed(packed.step), tokens: summed(packed.tokens), seconds: summed(packed.tenths, 0.1) };
  const found = {};
  for (const [name, { at, y }] of Object.entries(packed.series)) {
    const rows = summed(at);
    found[name] = { y, at: Object.fromEntries(Object.entries(axes).map(([axis, all]) => [axis, rows.map((i) => all[i])])) };
  }
  return found;
}

const runs = data.runs.map((run, i) => ({
  ...run,
  color: colorOf(i),
  dash: dashOf(i),
  train: curves(run.train),
  smooth: curves(run.smooth),
  evals: Object.fromEntries(Object.entries(run.evals).map(([name, packed]) => [name, curves(packed)])),
  moe: run.experts ? curves(run.experts.curves) : null,
  codes: run.experts ? codesOf(run.experts.heat) : null,
}));
const evalNames = [...new Set(runs.flatMap((run) => Object.keys(run.evals)))];
const visible = () => runs.filter((run) => !state.hidden.has(run.name));
const several = runs.length > 1;

function placeOf(at, i) {
  const step = language === "zh" ? `第 ${whole(at.step[i])} 步` : `step ${whole(at.step[i])}`;
  return `${step} · ${short(at.tokens[i])} ${say("tokens")} · ${duration(at.seconds[i])}`;
}
const curve = (run, found, name, more = {}) =>
  ({ name, color: run.color, dash: run.dash, x: found.at[state.axis], y: found.y, at: found.at, ...more });

/** One horizontal axis for all charts, so that the eye can go from one to the next. */
function xAxis() {
  const ends = visible().flatMap((run) => {
    // The first evaluation comes before the first line of training.
    const measured = [run.train, ...Object.values(run.evals)].map((found) => found.loss.at[state.axis]);
    return measured.filter((x) => x.length).flatMap((x) => [x[0], x[x.length - 1]]);
  });
  return { kind: state.axis, domain: ends.length ? [Math.min(...ends), Math.max(...ends)] : null };
}

/** A measured curve: the mean strong and the raw one faint, which is read out only if it is alone. */
function measured(run, name, label) {
  const raw = run.train[name], smooth = run.smooth[name];
  if (!smooth) return [curve(run, raw, label)];
  const alone = visible().length === 1;
  return [curve(run, raw, alone ? say("rawOf") : null, { raw: true }), curve(run, smooth, label, { strong: true })];
}

function marks() {
  return visible().flatMap((run) => run.alarms.map((alarm) => ({
    x: alarm[state.axis], level: alarm.level, text: (several ? `${run.name}: ` : "") + alarm[language],
  })));
}

// ---- What was trained

function whatWasTrained(run) {
  const c = run.model;
  const parts = [say(c.experts ? "moe" : "dense")];
  if (c.layers && c.hidden) parts.push(say("shape", { layers: c.layers, hidden: whole(c.hidden) }));
  if (c.experts) {
    const shared = c.shared_experts ? (language === "zh" ? "，" : ", ") + say("shared", { shared: c.shared_experts }) : "";
    parts.push(say("experts", { experts: c.experts, top: c.top_k ?? 1 }) + shared);
  }
  if (c.context) parts.push(say("context", { context: whole(c.context) }));
  if (c.vocab) parts.push(say("vocabulary", { vocab: whole(c.vocab) }));
  return parts.join(" · ");
}

const lossText = (s) => (s.loss === null ? say("diverged") : short(s.loss, 4));

function figures(run) {
  const s = run.summary;
  const cell = (title, value, ...notes) =>
    el("div", {}, el("dt", {}, title), el("dd", {}, value, ...notes.filter(Boolean).map((n) => el("small", {}, n))));
  return el("dl", { class: "figures" },
    cell(say("finalLoss"), lossText(s), say("finalLossNote")),
    Object.entries(s.evals).map(([name, e]) => cell(say("heldOut", { name }), short(e.loss, 4),
      e.bits_per_byte === null ? null : say("bitsPerByte", { value: short(e.bits_per_byte, 4) }))),
    cell(say("trainingTokens"), short(s.tokens), say("stepCount", { count: whole(s.step) })),
    cell(say("parameters"), short(s.parameters), say("active", { value: short(s.active_parameters) })),
    cell(say("trainedFor"), duration(s.seconds), s.processes > 1 ? say("processes", { count: s.processes }) : null),
    cell(say("speed"), short(s.tokens_per_second), s.peak_share === null ? null : say("peak", { value: percent(s.peak_share, 2) })),
    cell(say("memory"), bytes(s.memory_bytes)));
}

function origin(run) {
  const { start } = run;
  return el("dl", { class: "origin" },
    el("dt", {}, say("command")), el("dd", {}, el("code", {}, start.command)),
    el("dt", {}, say("version")), el("dd", {}, `${start.version}, `, start.commit ? say("commit", { commit: start.commit.slice(0, 12) }) : say("noCommit")),
    el("dt", {}, say("begun")), el("dd", {}, moment(start.time)));
}

function runTable() {
  const heads = [say("run"), say("finalLoss"), ...evalNames.map((name) => say("heldOut", { name })), say("trainingTokens"),
    say("trainingSteps"), say("parameters"), say("trainedFor"), say("speed"), say("alarms")];
  const rows = runs.map((run) => {
    const s = run.summary;
    const evals = evalNames.map((name) => {
      const e = s.evals[name];
      if (!e) return el("td", {}, "–");
      return el("td", {}, short(e.loss, 4), e.bits_per_byte === null ? null : el("small", {}, say("bitsPerByte", { value: short(e.bits_per_byte, 3) })));
    });
    return el("tr", {}, el("th", { scope: "row" }, key(run), ` ${run.name}`), el("td", {}, lossText(s)), evals,
      el("td", {}, short(s.tokens)), el("td", {}, whole(s.step)),
      el("td", {}, short(s.parameters), el("small", {}, say("active", { value: short(s.active_parameters) }))),
      el("td", {}, duration(s.seconds)), el("td", {}, short(s.tokens_per_second)), el("td", {}, whole(s.alarms)));
  });
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, rows)));
}

function head(tongue) {
  let lead = [...new Set(runs.map(whatWasTrained))];
  if (lead.length > 1) lead = runs.map((run) => `${run.name}: ${whatWasTrained(run)}`);
  return el("header", {}, el("p", { class: "kind" }, say("report")), tongue,
    el("h1", {}, several ? runs.map((run) => run.name).join(language === "zh" ? "、" : ", ") : runs[0].name),
    lead.map((line) => el("p", { class: "lead" }, line)));
}

// ---- Alarms

function alarmList() {
  const bad = runs.filter((run) => run.summary.not_finite).map((run) =>
    el("li", { class: "stop" }, el("b", {}, say("diverged")), el("span", {}, ""), el("div", {}, say("notFinite", { run: run.name, count: whole(run.summary.not_finite.count), step: whole(run.summary.not_finite.step) }))));
  const items = runs.flatMap((run) => run.alarms.map((alarm) => el("li", { class: alarm.level },
    el("b", {}, say(alarm.level)), el("span", {}, language === "zh" ? `第 ${whole(alarm.step)} 步` : `step ${whole(alarm.step)}`),
    el("div", {}, several ? `${run.name}: ` : "", alarm[language]))));
  const left = runs.reduce((sum, run) => sum + run.summary.alarms - run.alarms.length, 0);
  const list = [...bad, ...items];
  return el("section", { id: "alarms" }, el("div", { class: "top" }, el("h2", {}, say("alarms"))),
    list.length ? el("ul", { class: "alarms" }, list) : el("p", { class: "about" }, say("noAlarms")),
    left > 0 ? el("p", { class: "about" }, say("alarmsLeft", { count: whole(left) })) : null);
}

// ---- Curves

function lossSection(redraw) {
  const lines = visible().flatMap((run) => measured(run, "loss", several ? run.name : say("training")));
  const points = visible().flatMap((run) => Object.entries(run.evals).map(([name, found]) =>
    curve(run, found.loss, several ? `${run.name}, ${name}` : name, { shape: SHAPE_NAMES[evalNames.indexOf(name) % SHAPE_NAMES.length] })));
  const window = Math.max(...runs.map((run) => run.window));
  const about = window > 1 ? say("lossAbout", { window: whole(window) }) : say("lossAboutRaw");
  return el("section", { id: "loss" },
    el("div", { class: "top" }, el("h2", {}, say("loss")),
      el("div", { class: "push" }, choice(say("yScale"), [[true, say("logarithmic")], [false, say("linear")]], state.lossLog, (v) => { state.lossLog = v; redraw(); })),
      choice(say("axis"), [["step", say("steps")], ["tokens", say("tokens")], ["seconds", say("time")]], state.axis, (v) => { state.axis = v; redraw(); })),
    el("p", { class: "about" }, about),
    legend(redraw),
    chart({ title: say("loss"), note: say("lossUnit"), height: 380, x: xAxis(), y: { log: state.lossLog }, lines, points, marks: marks() }));
}

function legend(redraw) {
  const toggles = several ? runs.map((run) => el("li", {}, el("button", {
    type: "button", "aria-pressed": String(!state.hidden.has(run.name)), title: say("hide", { run: run.name }),
    onclick: () => { if (!state.hidden.delete(run.name)) state.hidden.add(run.name); redraw(); },
  }, key(run), run.name))) : [el("li", {}, key(runs[0]), say("training"))];
  const shapes = evalNames.map((name, i) => el("li", {}, key({ color: several ? "var(--quiet)" : runs[0].color, shape: SHAPE_NAMES[i % SHAPE_NAMES.length] }), say("heldOut", { name })));
  return el("ul", { class: "legend" }, toggles, shapes);
}

const KNOWN = [
  ["learning_rate", { y: { zero: true }, set: true }],
  ["grad_norm", { y: { log: true }, note: "beforeClipping" }],
  ["tokens_per_second", { y: { zero: true } }],
  ["peak_share", { y: { zero: true, format: percent } }],
  ["memory_bytes", { y: { zero: true, format: bytes } }],
  ["balance_loss", { y: {} }],
  ["z_loss", { y: {} }],
  ["accuracy", { y: { format: percent } }],
];
const ELSEWHERE = ["loss", "expert_learning_rate"];

function courseSection() {
  const named = new Map(KNOWN);
  const others = [...new Set(runs.flatMap((run) => Object.keys(run.train)))].filter((name) => !named.has(name) && !ELSEWHERE.includes(name)).sort();
  const charts = [...KNOWN, ...others.map((name) => [name, { y: {} }])].flatMap(([name, { y, note, set }]) => {
    const having = visible().filter((run) => run.train[name]);
    if (!having.length) return [];
    const split = name === "learning_rate" && having.some((run) => run.train.expert_learning_rate);
    const lines = having.flatMap((run) => {
      const own = several ? run.name : split ? say("rest") : texts[language][name] ?? name;
      if (!set) return measured(run, name, own);
      const rates = [curve(run, run.train[name], own, { strong: true })];
      const routed = run.train.expert_learning_rate;
      if (routed) rates.push(curve(run, routed, several ? `${run.name}, ${say("routed")}` : say("routed"), { dash: "1 4", strong: true }));
      return rates;
    });
    const about = split ? el("span", {}, key({ color: "var(--quiet)", dash: "" }), ` ${say("rest")}  `, key({ color: "var(--quiet)", dash: "1 4" }), ` ${say("routed")}`) : note ? say(note) : null;
    return [chart({ title: texts[language][name] ?? name, note: about, x: xAxis(), y, lines, marks: marks() })];
  });
  const bits = visible().flatMap((run) => Object.entries(run.evals).filter(([, found]) => found.bits_per_byte).map(([name, found]) =>
    curve(run, found.bits_per_byte, several ? `${run.name}, ${name}` : name, { shape: SHAPE_NAMES[evalNames.indexOf(name) % SHAPE_NAMES.length] })));
  // The points are read out; the lines between them only lead the eye.
  const between = bits.map((p) => ({ ...p, name: null, raw: true }));
  if (bits.length) charts.unshift(chart({ title: say("bits_per_byte"), x: xAxis(), y: {}, lines: between, points: bits, marks: marks() }));
  return el("section", { id: "course" }, el("div", { class: "top" }, el("h2", {}, say("course"))),
    runs.some((run) => run.window > 1) ? el("p", { class: "about" }, say("courseAbout")) : null, el("div", { class: "grid" }, charts));
}

// ---- Experts

const BALANCE = [
  ["max_violation", { zero: true }], ["dead", { zero: true, top: 1 }], ["router_entropy", { zero: true, top: 1 }],
  ["load_entropy", { zero: true, top: 1 }], ["dropped", { zero: true, format: percent }], ["recycled", { zero: true, format: percent }],
  ["recycled_weight", { zero: true }], ["top1_weight", { zero: true, top: 1 }], ["balance_loss", {}], ["similarity", {}],
];

function balanceCharts() {
  const having = visible().filter((run) => run.moe);
  const alone = having.length === 1;
  return BALANCE.flatMap(([name, y]) => {
    const those = having.filter((run) => run.moe[`${name}.mean`]);
    if (!those.length) return [];
    const lines = [], bands = [];
    for (const run of those) {
      const low = run.moe[`${name}.low`], high = run.moe[`${name}.high`];
      lines.push(curve(run, run.moe[`${name}.mean`], several ? run.name : say(name === "dead" ? "allLayers" : "mean")));
      if (!alone || !low) continue;
      bands.push({ color: run.color, x: low.at[state.axis], low: low.y, xHigh: high.at[state.axis], high: high.y });
      for (const [found, label] of [[high, "greatest"], [low, "least"]]) lines.push(curve(run, found, say(label), { raw: true }));
    }
    const title = say(name === "balance_loss" ? "expert_balance_loss" : name);
    return [chart({ title, x: xAxis(), y, lines, bands, marks: marks() })];
  });
}

function finalMap(heat) {
  const every = Math.max(Math.ceil(heat.layers.length / 32), 1);
  const rowHeight = Math.max(Math.min(26, Math.floor(420 / heat.layers.length)), 5);
  const map = heatMap({
    label: say("finalLoad"), rows: heat.layers.length, columns: heat.experts, rowHeight,
    load: (r, c) => heat.final[r][c], tell: (r, c) => say("expertCell", { layer: heat.layers[r], expert: c }),
  });
  const rows = el("div", { class: "rows", style: { "grid-template-rows": `repeat(${heat.layers.length}, ${rowHeight}px)` } },
    heat.layers.map((layer, i) => el("span", {}, i % every === 0 && rowHeight * every >= 12 ? String(layer) : "")));
  return el("div", { class: "final" }, rows, map, el("div", { class: "columns" }, el("span", {}, "0"), el("span", {}, String(heat.experts - 1))));
}

function expertSection(redraw) {
  const having = runs.filter((run) => run.experts);
  if (!having.length) return null;
  const run = having.find((r) => r.name === state.shown) ?? having[0];
  const { heat } = run.experts;
  const last = heat.columns - 1;
  const rowHeight = Math.max(Math.min(8, Math.floor(110 / heat.experts)), 2);
  const maps = heat.layers.map((layer, l) => heatMap({
    caption: say("layer", { layer }), rows: heat.experts, columns: heat.columns, rowHeight,
    load: (r, c) => loadOfCode(run.codes[(l * heat.experts + r) * heat.columns + c]),
    tell: (r, c) => `${say("expertCell", { layer, expert: r })} · ${placeOf(heat, c)}`,
  }));
  const pick = having.length > 1 ? choice(say("run"), having.map((r) => [r.name, r.name]), run.name, (v) => { state.shown = v; redraw(); }) : null;
  return el("section", { id: "experts" },
    el("div", { class: "top" }, el("h2", {}, say("expertsTitle")), pick),
    el("p", { class: "about" }, say("expertsAbout")), heatLegend(),
    el("h3", {}, say("finalLoad")), el("p", { class: "about" }, say("finalLoadAt", { step: whole(heat.step[last]) })), finalMap(heat),
    el("h3", {}, say("overTime")), el("p", { class: "about" }, say("overTimeAbout", { first: whole(heat.first_step), last: whole(heat.step[last]), columns: whole(heat.columns) })),
    el("div", { class: "maps" }, maps),
    el("h3", {}, say("balance")), el("p", { class: "about" }, say("balanceAbout")), el("div", { class: "grid" }, balanceCharts()));
}

// ---- The rest

function recipeSection() {
  const folds = runs.flatMap((run) => [
    run.recipe === null ? null : el("details", {}, el("summary", {}, say("recipeOf", { run: run.name })), el("pre", { tabindex: "0" }, run.recipe)),
    el("details", {}, el("summary", {}, say("configOf", { run: run.name })), several ? origin(run) : null, el("pre", { tabindex: "0" }, run.config)),
  ]);
  return el("section", { id: "recipe" }, el("div", { class: "top" }, el("h2", {}, say("recipe"))), folds);
}

present((tongue, redraw) => [
  head(tongue),
  several ? runTable() : el("div", {}, figures(runs[0]), origin(runs[0])),
  alarmList(),
  lossSection(redraw),
  courseSection(),
  expertSection(redraw),
  recipeSection(),
  el("footer", {}, say("madeBy", { version: data.version, made: moment(Date.parse(data.made) / 1000) })),
].filter(Boolean));
