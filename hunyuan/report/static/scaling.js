/* The page of scaling fits. */

function interval(estimate, write) {
  if (!estimate.interval) return "";
  return ` (${say("interval", { low: write(estimate.interval[0]), high: write(estimate.interval[1]) })})`;
}
const figure = (estimate, write = (v) => short(v, 4)) => [write(estimate.value), el("small", {}, interval(estimate, write))];

const power = (estimate) => [el("sup", {}, short(estimate.value, 4)), el("small", {}, interval(estimate, (v) => short(v, 4)))];

function line(title, ...content) {
  return [el("dt", {}, title), el("dd", {}, ...content)];
}

function predictionLines(prediction) {
  if (!prediction) return [];
  const { size, tokens } = prediction;
  const title = say("prediction", { flops: short(data.flops) });
  return [...line(title, `N = `, figure(size, (v) => short(v))), ...line("", `D = `, figure(tokens, (v) => short(v)))];
}

function computeNote() {
  const form = data.compute.token ? say("computePaper") : say("compute6nd");
  const critical = data.critical_batch;
  return `${form}; ${say(!critical ? "noCmin" : critical.form === "printed" ? "cmin" : "cminInverse")}`.replace("; ", language === "zh" ? "；" : "; ");
}

const refused = (part) => el("p", { class: "about" }, say("notFitted", { reason: part.reason[language] }));

function budgetSection() {
  const part = data.budgets;
  const section = el("section", { id: "budgets" }, el("div", { class: "top" }, el("h2", {}, say("budgets"))), el("p", { class: "about" }, say("budgetsAbout")));
  if (part.reason) { section.append(refused(part)); return section; }
  const { parabolas, laws } = data.curves;
  const byName = new Map(data.runs.map((run) => [run.name, run]));
  const lines = [], points = [];
  const ramp = (i) => `color-mix(in oklab, var(--run0) ${Math.round(35 + 65 * i / Math.max(part.budgets.length - 1, 1))}%, var(--line))`;
  part.budgets.forEach((budget, i) => {
    const color = ramp(i);
    const name = say("budgetOf", { flops: short(budget.flops) });
    const runs = budget.runs.map((run) => byName.get(run)).sort((a, b) => a.parameters - b.parameters);
    lines.push({ name: null, color, ...parabolas[i] });
    points.push({ name, color, shape: "circle", x: runs.map((run) => run.parameters), y: runs.map((run) => run.loss) });
  });
  points.push({ name: say("lowest"), color: "var(--text)", shape: "diamond", ...ascending(part.budgets.map((b) => [b.size, b.loss])) });
  const law = (key, title, field) => chart({
    title, note: say("flops"), height: 260, x: { kind: "flops", log: true, title: say("flops") }, y: { log: true },
    lines: [{ name: say("fitted"), color: "var(--run0)", x: laws.x, y: laws[key].y }],
    bands: laws[key].low ? [{ color: "var(--run0)", x: laws.x, low: laws[key].low, high: laws[key].high }] : [],
    points: [{ name: say("lowest"), color: "var(--text)", shape: "diamond", ...ascending(part.budgets.map((b) => [b.least_flops, b[field]])) }],
  });
  const legend = el("ul", { class: "legend" }, part.budgets.map((b, i) => el("li", {}, key({ color: ramp(i), shape: "circle" }), say("budgetOf", { flops: short(b.flops) }))),
    el("li", {}, key({ color: "var(--text)", shape: "diamond" }), say("lowest")));
  section.append(
    el("dl", { class: "laws" },
      line(say("bestSize"), `N = ${short(part.a, 4)} · C`, power(part.alpha)),
      line(say("bestTokens"), `D = ${short(part.b, 4)} · C`, power(part.beta)),
      predictionLines(part.prediction)),
    part.alpha.interval ? "" : el("p", { class: "about" }, say("noInterval")),
    part.skipped.length ? el("ul", { class: "notes" }, part.skipped.map((why) => el("li", {}, why[language]))) : "",
    el("h3", {}, ""), legend,
    el("div", { class: "pair" },
      chart({ title: say("isoflop"), note: say("activeParameters"), height: 360, x: { kind: "size", log: true, title: say("activeParameters") }, y: {}, lines, points }),
      el("div", { class: "grid" }, law("size", say("bestSize"), "size"), law("tokens", say("bestTokens"), "tokens"))));
  return section;
}

function ascending(pairs) {
  pairs.sort((a, b) => a[0] - b[0]);
  return { x: pairs.map(([x]) => x), y: pairs.map(([, y]) => y) };
}

function surfaceSection() {
  const part = data.surface;
  const section = el("section", { id: "surface" }, el("div", { class: "top" }, el("h2", {}, say("surface"))), el("p", { class: "about" }, say("surfaceAbout")));
  if (part.reason) { section.append(refused(part)); return section; }
  const pairs = ascending(data.runs.map((run, i) => [data.curves.predicted[i], run.loss]));
  const ends = [Math.min(...pairs.x), Math.max(...pairs.x)];
  section.append(el("dl", { class: "laws" }, ["E", "A", "B", "a", "b"].map((name) => line(name, figure(part[name]))),
    line(say("bestSize"), "N ∝ C", power(part.alpha)), predictionLines(part.prediction)),
  el("h3", {}, ""),
  el("div", { class: "grid" }, chart({
    title: say("measuredBy"), note: say("predicted"), height: 300, x: { kind: "loss", title: say("predicted") }, y: {},
    lines: [{ name: null, color: "var(--quiet)", dash: "2 4", x: ends, y: ends }],
    points: [{ name: say("measured"), color: "var(--run0)", shape: "circle", ...pairs }],
  })));
  return section;
}

function runSection() {
  const heads = [say("run"), say("size"), say("trainingTokens"), say("compute"), say("lossOf")];
  const rows = data.runs.map((run) => el("tr", {}, el("th", { scope: "row" }, run.name), el("td", {}, short(run.parameters)),
    el("td", {}, short(run.tokens)), el("td", {}, short(run.flops)), el("td", {}, short(run.loss, 5))));
  return el("section", { id: "runs" }, el("div", { class: "top" }, el("h2", {}, say("runs"))),
    data.passed_over.length ? el("ul", { class: "notes" }, data.passed_over.map((why) => el("li", {}, why[language]))) : null,
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, rows))));
}

present((tongue) => {
  const sizes = data.runs.map((run) => run.parameters);
  return [
    el("header", {}, el("p", { class: "kind" }, "hunyuan"), tongue, el("h1", {}, say("scaling")),
      el("p", { class: "lead" }, say("scalingLead", { runs: whole(data.runs.length), low: short(Math.min(...sizes)), high: short(Math.max(...sizes)), loss: data.loss })),
      el("p", { class: "lead" }, computeNote()),
      data.fixed_share > 0.5 ? el("ul", { class: "notes" }, el("li", {}, say("fixedShare", { share: percent(data.fixed_share, 2) }))) : null),
    budgetSection(),
    surfaceSection(),
    runSection(),
    el("footer", {}, say("madeBy", { version: data.version, made: moment(Date.parse(data.made) / 1000) })),
  ];
});
