/* Elements, the language of the page, and numbers as people of that language write them. */

const data = JSON.parse(document.getElementById("data").textContent);
let language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";

/** The string `key` of the page, in its language now. */
const say = (key, values = {}) =>
  texts[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, v] of Object.entries(value)) { if (v !== null) node.style.setProperty(key, v); }
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** Buttons of which one is pressed: `choices` are [value, label]. */
function choice(label, choices, chosen, choose) {
  const buttons = choices.map(([value, text]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text));
  return el("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

const formats = new Map();
function format(value, options) {
  const key = language + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en", options));
  return formats.get(key).format(value);
}

/** Every digit of a count: 12,345. */
const whole = (value) => format(value, { maximumFractionDigits: 0 });

/** About `digits` figures: 1.23M or 123万, 0.512, 3e-4. */
function short(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e15) return Number(value.toPrecision(digits)).toExponential().replace("e+", "e");
  if (size >= (language === "zh" ? 10000 : 1000))
    return format(value, { notation: "compact", maximumSignificantDigits: digits });
  if (size >= 0.001 || size === 0) return format(value, { maximumSignificantDigits: digits });
  return String(Number(value.toPrecision(digits)).toExponential());
}
const percent = (value, digits = 3) =>
  value === null || value === undefined ? "–"
    : format(value, { style: "percent", maximumSignificantDigits: digits });
const bytes = (value) => {
  if (value === null || value === undefined) return "–";
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), 4);
  return format(value / 1000 ** power, { maximumSignificantDigits: 3 }) + " " + ["B", "kB", "MB", "GB", "TB"][power];
};
/** Seconds as people say them: 42 s, 12 min, 3.5 h, 2.1 d. */
function duration(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? ["second", 1];
  return `${format(seconds / size, { maximumSignificantDigits: 3 })} ${say(unit)}`;
}
const moment = (seconds) =>
  new Date(seconds * 1000).toLocaleString(language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" });

/** The language button, the document's language, and the first drawing of the page. */
function present(draw) {
  const page = document.getElementById("page");
  const turn = () => { language = language === "zh" ? "en" : "zh"; all(); };
  function all() {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    const tongue = el("button", { type: "button", class: "tongue", onclick: turn }, say("otherLanguage"));
    page.replaceChildren(...draw(tongue, all));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
}
