/** A map of loads: cold below an even share, warm above it, crossed out where nothing came. */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../../vendor/preact.js';
import { number } from '../../lib/i18n.js';
import { onTheme, token } from '../../lib/theme.js';
import { t } from '../../texts/models.js';

const OCTAVES = 2; // a quarter of the even share, four times it
const LEFT = 44;
const BELOW = 22;

/**
 * `rows` of loads (1 is even), drawn with the first at the top. `rowName`, `columnName` are what
 * they are called, `rowLabels`, `columnLabels` their numbers; `say(row, column, load)` the words for
 * one cell.
 */
export function Heat({ rows, rowName, columnName, rowLabels, columnLabels, say, label }) {
  const canvas = useRef(null);
  const frame = useRef(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState(null);
  const [, redraw] = useState(0);
  const columns = rows[0]?.length ?? 0;
  const cell = Math.max(6, Math.min(22, Math.floor(320 / rows.length)));
  const height = rows.length * cell + BELOW;

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => onTheme(() => redraw((n) => n + 1)), []);
  useLayoutEffect(() => {
    if (width) draw(canvas.current, { rows, width, height, cell, columns, rowName, columnName, rowLabels, columnLabels });
  });

  const point = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * columns);
    const row = Math.floor((event.clientY - box.top) / cell);
    setAt(rows[row]?.[column] === undefined ? null : { row, column });
  };
  const move = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = { row: (at?.row ?? 0) + step[0] * Boolean(at), column: (at?.column ?? 0) + step[1] * Boolean(at) };
    if (rows[next.row]?.[next.column] !== undefined) setAt(next);
  };
  return html`<div class="heat" ref=${frame}>
    <canvas
      ref=${canvas}
      role="img"
      aria-label=${label}
      tabindex="0"
      onPointerMove=${point}
      onPointerDown=${point}
      onPointerLeave=${() => setAt(null)}
      onKeyDown=${move}
    ></canvas>
    <div class="heat-foot">
      <span class="heat-says" aria-live="polite">${at && rows[at.row]?.[at.column] !== undefined ? say(at.row, at.column, number(rows[at.row][at.column], 2)) : t('pointAt')}</span>
      <span class="heat-scale" aria-hidden="true"><span>${t('scaleDead')}</span><i></i><span>${t('scaleFull')}</span></span>
    </div>
  </div>`;
}

function draw(canvas, { rows, width, height, cell, columns, rowName, columnName, rowLabels, columnLabels }) {
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  const cold = parts(token('--series-3'));
  const warm = parts(token('--series-2'));
  const even = parts(token('--sunken'));
  const gap = cell > 9 && (width - LEFT) / columns > 9 ? 1 : 0;
  const step = (width - LEFT) / columns;
  rows.forEach((loads, row) => {
    loads.forEach((load, column) => {
      const [x, y] = [LEFT + column * step, row * cell];
      pen.fillStyle = colour(load, cold, even, warm);
      pen.fillRect(x, y, step - gap, cell - gap);
      if (load === 0) cross(pen, x, y, step - gap, cell - gap);
    });
  });
  pen.fillStyle = token('--muted');
  pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  pen.textBaseline = 'middle';
  pen.textAlign = 'right';
  const every = Math.ceil(14 / cell);
  rows.forEach((_, row) => row % every === 0 && pen.fillText(rowLabels[row], LEFT - 6, row * cell + cell / 2));
  pen.textBaseline = 'top';
  pen.textAlign = 'center';
  const stride = Math.max(1, Math.ceil(46 / step));
  for (let column = 0; column < columns; column += stride) pen.fillText(columnLabels[column], LEFT + (column + 0.5) * step, rows.length * cell + 5);
  pen.textAlign = 'left';
  pen.fillText(rowName, 0, rows.length * cell + 5);
  pen.textAlign = 'right';
  if (columns > stride * 3) pen.fillText('', width, rows.length * cell + 5);
  canvas.title = `${rowName} × ${columnName}`;
}

/** Between cold, even and warm, by the logarithm of the load. */
function colour(load, cold, even, warm) {
  const octaves = load > 0 ? Math.max(-OCTAVES, Math.min(OCTAVES, Math.log2(load))) : -OCTAVES;
  const end = octaves < 0 ? cold : warm;
  const share = Math.abs(octaves) / OCTAVES;
  return `rgb(${even.map((value, i) => Math.round(value + (end[i] - value) * share)).join(' ')})`;
}

function cross(pen, x, y, width, height) {
  pen.strokeStyle = token('--surface');
  pen.beginPath();
  pen.moveTo(x + 2, y + 2);
  pen.lineTo(x + width - 2, y + height - 2);
  pen.stroke();
}

const parts = (rgb) => rgb.match(/[\d.]+/g).slice(0, 3).map(Number);
