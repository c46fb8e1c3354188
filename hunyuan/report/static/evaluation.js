/* The page of evaluations: tables, bars, a profile, parts and mistakes. */

const runColor = (i) => `var(--run${i % 6})`;
const titleOf = (name) => data.benchmarks[name].title;
const percentOf = (value) => format(100 * value, { maximumFractionDigits: 1, minimumFractionDigits: 1 });

function sizeOf(result) {
  const count = result.items === result.of ? say("items", { items: whole(result.items) })
    : say("sample", { items: whole(result.items), of: whole(result.of) });
  const cut = result.truncated ? [say("cut", { count: whole(result.truncated) })] : [];
  const several = result.repeats > 1 ? [say("repeats", { count: result.repeats })] : [];
  return [say("shots", { shots: result.shots }), count, ...several, ...cut].join(" · ");
}

function measuredCell(name, result) {
  if (!result) return el("td", { class: "measured" }, "–");
  if (data.benchmarks[name].lower)
    return el("td", { class: "measured" }, short(result.value, 4), el("small", {}, sizeOf(result)));
  const spread = result.stderr === null ? "" : ` ± ${percentOf(1.96 * result.stderr)}`;
  return el("td", { class: "measured" }, el("b", {}, percentOf(result.value)), spread, el("small", {}, sizeOf(result)));
}

function scoreTable(rows, models, runs) {
  // What was measured stands first: on a narrow screen the published columns are scrolled to.
  const head = el("tr", {}, el("th", {}, say("benchmark")),
    runs.map((run) => el("th", { class: "measured" }, el("i", { style: { background: runColor(data.runs.indexOf(run)) } }), run.name, el("small", {}, say("measured")))),
    models.map((model) => el("th", {}, model)));
  const body = Object.entries(rows).map(([name, figures]) => el("tr", {}, el("th", { scope: "row" }, titleOf(name)),
    runs.map((run) => measuredCell(name, run.results[name])),
    figures.map((value) => el("td", {}, value === null ? "–" : format(value, { minimumFractionDigits: 1 })))));
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
}

function warningSection() {
  const found = data.runs.flatMap((run) => Object.values(run.results).filter((result) => result.warning)
    .map((result) => el("li", {}, data.runs.length > 1 ? el("b", {}, `${run.name}: `) : null, result.warning[language])));
  return found.length ? [el("section", {}, el("div", { class: "top" }, el("h2", {}, say("warnings"))), el("ul", { class: "notes" }, found))] : [];
}

function tableSections() {
  const rest = new Set(data.runs.flatMap((run) => Object.keys(run.results)));
  const sections = Object.values(data.published).map((table) => {
    const runs = data.runs.filter((run) => run.described.plan.chat === table.chat);
    Object.keys(table.rows).forEach((name) => rest.delete(name));
    return el("section", {}, el("div", { class: "top" }, el("h2", {}, table[language === "zh" ? "title_zh" : "title_en"])),
      el("p", { class: "about" }, say("source", { source: table.source })), scoreTable(table.rows, table.models, runs));
  });
  if (rest.size)
    sections.push(el("section", {}, el("div", { class: "top" }, el("h2", {}, say("measuredOnly"))),
      scoreTable(Object.fromEntries(Object.keys(data.benchmarks).filter((name) => rest.has(name)).map((name) => [name, []])), [], data.runs)));
  return sections;
}

/** Horizontal bars with whiskers: rows are [label, [{value, stderr, color}]], values from 0 to 1. */
function bars(rows) {
  const list = rows.map(([label, values]) => el("div", { class: "bar-row" }, el("span", { class: "bar-label", title: label }, label),
    el("div", { class: "bar-tracks" }, values.map(({ value, stderr, color }) => {
      if (value === null || value === undefined) return el("div", { class: "bar-track" });
      const low = Math.max(0, value - 1.96 * (stderr ?? 0)), high = Math.min(1, value + 1.96 * (stderr ?? 0));
      return el("div", { class: "bar-track" }, el("div", { class: "bar", style: { width: `${100 * value}%`, background: color } }),
        stderr ? el("div", { class: "whisker", style: { left: `${100 * low}%`, width: `${100 * (high - low)}%` } }) : null,
        el("span", { class: "bar-value", style: { left: `${100 * Math.max(high, value)}%` } }, percentOf(value)));
    }))));
  return el("div", { class: "bars" }, list);
}

function scored() {
  return Object.keys(data.benchmarks).filter((name) => !data.benchmarks[name].lower && data.runs.some((run) => run.results[name]));
}

function radar(names) {
  const size = 360, center = size / 2, radius = 118;
  const at = (i, share) => {
    const angle = (2 * Math.PI * i) / names.length - Math.PI / 2;
    return [center + radius * share * Math.cos(angle), center + radius * share * Math.sin(angle)];
  };
  const ring = (share) => svg("polygon", { class: "grid-line", fill: "none", points: names.map((_, i) => at(i, share).join(",")).join(" ") });
  const labels = names.map((name, i) => {
    const [x, y] = at(i, 1.14);
    const anchor = Math.abs(x - center) < 12 ? "middle" : x > center ? "start" : "end";
    return svg("text", { x, y: y + 4, "text-anchor": anchor }, titleOf(name));
  });
  const shapes = data.runs.map((run, index) => svg("polygon", {
    style: { fill: runColor(index), stroke: runColor(index) }, "fill-opacity": 0.12, "stroke-width": 1.7,
    points: names.map((name, i) => at(i, run.results[name]?.value ?? 0).join(",")).join(" "),
  }));
  return svg("svg", { class: "plot radar", viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": say("radar") },
    [0.25, 0.5, 0.75, 1].map(ring), names.map((_, i) => { const [x, y] = at(i, 1); return svg("line", { class: "grid-line", x1: center, y1: center, x2: x, y2: y }); }), shapes, labels);
}

function chartSection() {
  const names = scored();
  if (!names.length) return [];
  const rows = names.map((name) => [titleOf(name), data.runs.map((run, i) => ({ ...run.results[name], color: runColor(i) }))]);
  const profile = names.length > 2 ? el("figure", {}, el("figcaption", {}, say("radar")), radar(names)) : null;
  const legend = el("ul", { class: "legend" }, data.runs.map((run, i) => el("li", {}, el("i", { class: "swatch", style: { background: runColor(i) } }), run.name)));
  return [el("section", {}, el("div", { class: "top" }, el("h2", {}, say("scores"))), el("p", { class: "about" }, say("scoresAbout")), legend,
    el("div", { class: profile ? "charts" : null }, el("figure", {}, bars(rows)), profile))];
}

function severalSections() {
  return Object.keys(data.benchmarks).filter((name) => data.runs.some((run) => Object.keys(run.results[name]?.more ?? {}).length)).map((name) => {
    const figures = new Set(data.runs.flatMap((run) => Object.keys(run.results[name]?.more ?? {})));
    const rows = [...figures].map((figure) => [figure, data.runs.map((run, i) => {
      const found = run.results[name]?.more[figure];
      return { value: found?.[0] ?? null, stderr: found?.[1] ?? null, color: runColor(i) };
    })]);
    return el("section", {}, el("div", { class: "top" }, el("h2", {}, say("several", { title: titleOf(name) }))), el("p", { class: "about" }, say("severalAbout")), bars(rows));
  });
}

function partSections() {
  return scored().filter((name) => data.runs.some((run) => Object.keys(run.results[name]?.parts ?? {}).length > 1)).map((name) => {
    const parts = new Set(data.runs.flatMap((run) => Object.keys(run.results[name]?.parts ?? {})));
    const plain = (part) => part.replace(/^(mmlu_pro|mmlu|cmmlu|ceval-valid|bbh_cot_fewshot|math)_/, "").replaceAll("_", " ");
    const first = (part) => data.runs[0].results[name]?.parts[part]?.[0] ?? 0;
    const rows = [...parts].sort((a, b) => first(b) - first(a)).map((part) => [plain(part), data.runs.map((run, i) => {
      const found = run.results[name]?.parts[part];
      return { value: found?.[0] ?? null, stderr: found?.[1] ?? null, color: runColor(i) };
    })]);
    return el("section", {}, el("details", {}, el("summary", {}, el("h2", {}, say("parts", { title: titleOf(name) }))), el("p", { class: "about" }, say("partsAbout")), bars(rows)));
  });
}

function exampleSection() {
  const blocks = data.runs.flatMap((run) => Object.entries(run.results).filter(([, result]) => result.examples.length).map(([name, result]) =>
    el("details", {}, el("summary", {}, `${titleOf(name)} · ${run.name}`), result.examples.map((example) => el("div", { class: "example" },
      el("p", { class: "about" }, example.task), el("h3", {}, say("question")), el("pre", {}, example.prompt),
      el("h3", {}, say("reference")), el("pre", {}, example.reference), el("h3", {}, say("answer")), el("pre", {}, example.answer))))));
  return blocks.length ? [el("section", {}, el("div", { class: "top" }, el("h2", {}, say("examples"))), blocks)] : [];
}

function originSection() {
  return el("section", {}, el("div", { class: "top" }, el("h2", {}, say("origin"))), data.runs.map((run) => {
    const { model, plan, command, started, version, commit, packages, notes, trained_on: trained } = run.described;
    const { chat_template: template, sha256, dtype, ...named } = model;
    const rows = [["model", JSON.stringify(named)], ["hash", sha256], ["dtype", dtype], ["command", command], ["when", moment(started)],
      ["versions", [`hunyuan ${version}${commit ? ` (${commit})` : ""}`, ...Object.entries(packages).map(([name, value]) => `${name} ${value}`)].join(", ")],
      ["settings", JSON.stringify(plan)], ["trainedOn", trained ? JSON.stringify(trained) : say("unknown")], ...Object.entries(notes).map(([name, list]) => ["data", `${name}: ${list.join("; ")}`])];
    return el("div", {}, el("h3", {}, run.name),
      el("dl", { class: "origin" }, rows.filter(([, value]) => value).map(([key, value]) => [el("dt", {}, say(key)), el("dd", {}, el("code", {}, value))])),
      template ? el("details", {}, el("summary", {}, say("template")), el("pre", {}, template)) : null);
  }));
}

present((tongue) => [
  el("header", {}, el("p", { class: "kind" }, say("kind")), tongue, el("h1", {}, data.runs.map((run) => run.name).join(", ")), el("p", { class: "lead" }, say("lead"))),
  warningSection(), tableSections(), chartSection(), severalSections(), partSections(), exampleSection(), originSection(),
  el("footer", {}, say("made", { when: moment(Date.parse(data.made) / 1000), version: data.version })),
].flat(Infinity));
