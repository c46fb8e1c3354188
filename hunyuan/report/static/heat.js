/* Heat maps of expert load: blue below the even share, orange above, a colour of its own for none.

   Blue and orange stay apart for every common kind of colour blindness; lightness says how far. The
   colour runs over two octaves to each side, a quarter to four times the even share. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const REACH = 2;
const RAMPS = {
  light: [[38, 76, 158], [133, 170, 221], [236, 232, 225], [236, 163, 112], [164, 54, 12]],
  dark: [[118, 182, 255], [56, 92, 144], [46, 45, 42], [150, 84, 42], [255, 168, 108]],
};
const DEAD = { light: [24, 20, 28], dark: [255, 255, 255] };

function colorOfLoad(load) {
  const theme = dark.matches ? "dark" : "light";
  if (load <= 0) return DEAD[theme];
  const at = (Math.min(Math.max(Math.log2(load) / REACH, -1), 1) + 1) * 2;
  const i = Math.min(Math.floor(at), 3);
  return RAMPS[theme][i].map((v, c) => Math.round(v + (RAMPS[theme][i + 1][c] - v) * (at - i)));
}

const loadOfCode = (code) => (code === 0 ? 0 : 2 ** ((code - 128) * 6 / 127));
const times = (load) => (load === 0 ? say("noTokens") : `${format(load, { maximumSignificantDigits: 3 })}×`);

/** One map: `load(row, column)` gives the value, `tell(row, column)` the words beside it. */
function heatMap({ caption, label, rows, columns, rowHeight, load, tell }) {
  const canvas = el("canvas", { width: columns, height: rows, role: "img", "aria-label": label ?? caption, style: { height: `${rows * rowHeight}px` } });
  const pixels = new ImageData(columns, rows);
  for (let r = 0; r < rows; r += 1) for (let c = 0; c < columns; c += 1)
    pixels.data.set([...colorOfLoad(load(r, c)), 255], (r * columns + c) * 4);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const tip = el("div", { class: "tip", hidden: "" });
  const figure = el("figure", {}, caption ? el("figcaption", {}, caption) : null, canvas, tip);
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.min(Math.max(Math.floor((event.clientX - box.left) / box.width * columns), 0), columns - 1);
    const r = Math.min(Math.max(Math.floor((event.clientY - box.top) / box.height * rows), 0), rows - 1);
    tip.replaceChildren(el("p", {}, tell(r, c)), el("b", {}, times(load(r, c))));
    tip.hidden = false;
    const x = event.clientX - box.left;
    tip.style.left = `${x + 14 + tip.offsetWidth <= box.width ? x + 14 : Math.max(x - 14 - tip.offsetWidth, 0)}px`;
    tip.style.top = `${event.clientY - figure.getBoundingClientRect().top + 16}px`;
  };
  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  return figure;
}

/** What the colours mean. */
function heatLegend() {
  const wide = 128;
  const canvas = el("canvas", { width: wide, height: 1, "aria-hidden": "true" });
  const pixels = new ImageData(wide, 1);
  for (let i = 0; i < wide; i += 1) pixels.data.set([...colorOfLoad(2 ** ((i / (wide - 1) * 2 - 1) * REACH)), 255], i * 4);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const labels = ["≤ ¼×", "½×", "1×", "2×", "≥ 4×"].map((text) => el("span", {}, text));
  return el("div", { class: "scale" }, el("span", {}, say("loadScale")),
    el("div", { class: "ramp" }, canvas, el("div", {}, labels)),
    el("span", {}, el("i", { style: { background: `rgb(${colorOfLoad(0)})` } }), say("noTokens")));
}

/** Codes of all layers, by layer, expert and column. */
function codesOf(heat) {
  const text = atob(heat.codes);
  const codes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) codes[i] = text.charCodeAt(i);
  return codes;
}
