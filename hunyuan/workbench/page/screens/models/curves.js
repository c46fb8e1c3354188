/** Curves of training runs: uPlot, with the colours and words of the page. */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../../vendor/preact.js';
import uPlot from '../../vendor/uplot.js';
import { language, number } from '../../lib/i18n.js';
import { stylesheet } from '../../lib/styles.js';
import { onTheme, token } from '../../lib/theme.js';
import { t } from '../../texts/models.js';

const SERIES = 6;

/**
 * `curves` [{name, x: [...], y: [...], faint, dashed, colour}], `colour` the number of a series.
 * `axis` is 'step', 'tokens' or 'seconds'; `log` for a logarithmic height. Dragging enlarges.
 */
export function Curves({ curves, axis, log = false, height = 280, label }) {
  const target = useRef(null);
  const [width, setWidth] = useState(0);
  const [theme, setTheme] = useState(0);

  useLayoutEffect(() => {
    stylesheet('/static/vendor/uplot.css');
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(target.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => onTheme(() => setTheme((n) => n + 1)), []);

  const names = curves.map((curve) => curve.name).join('\n');
  const plot = useRef(null);
  const data = () => uPlot.join(curves.map(({ x, y }) => [x, log ? y.map((value) => (value > 0 ? value : null)) : y]));
  // A new plot for what changes its looks; new numbers alone keep the part that is enlarged.
  useLayoutEffect(() => {
    if (!width || !curves.length) return undefined;
    plot.current = new uPlot(options({ curves, axis, log, width, height }), data(), target.current);
    return () => {
      plot.current.destroy();
      plot.current = null;
    };
  }, [width, names, axis, log, theme, language(), height]);
  useLayoutEffect(() => {
    if (!plot.current) return;
    const { min, max } = plot.current.scales.x;
    const old = plot.current.data[0];
    const whole = min <= old[0] && max >= old.at(-1);
    plot.current.setData(data(), whole);
    if (!whole) plot.current.setScale('x', { min, max });
  }, [curves]);
  return html`<figure class="curves" ref=${target} aria-label=${label}></figure>`;
}

function options({ curves, axis, log, width, height }) {
  const ink = { stroke: token('--muted'), grid: { stroke: token('--line'), width: 1 }, ticks: { stroke: token('--line'), width: 1, size: 4 }, font: '11px system-ui, sans-serif' };
  const readX = reader(axis);
  return {
    width,
    height,
    cursor: { drag: { x: true, y: false }, points: { size: 6 } },
    legend: { live: true },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [
      { ...ink, values: (_, all) => all.map(readX), space: 70 },
      { ...ink, size: 56, values: (_, all) => all.map((value) => (value === null ? '' : number(value, 4))) },
    ],
    series: [
      { label: t(`axis_${axis}`), value: (_, value) => (value === null ? '–' : readX(value)) },
      ...curves.map((curve) => ({
        label: curve.name,
        stroke: token(`--series-${(curve.colour % SERIES) + 1}`),
        width: curve.faint ? 1 : 2,
        alpha: curve.faint ? 0.35 : 1,
        dash: curve.dashed ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: curve.y.length < 40 && !curve.faint, size: 5 },
        value: (_, value) => (value === null || value === undefined ? '–' : number(value, 4)),
      })),
    ],
  };
}

/** How places along an axis are written. */
export function reader(axis) {
  if (axis === 'seconds') return duration;
  if (axis === 'tokens') return compact;
  return (value) => number(value, 0);
}

/** 1,200,000 -> 1.2M, 120万. */
export const compact = (value) =>
  new Intl.NumberFormat(language() === 'zh' ? 'zh-CN' : 'en', { notation: 'compact', maximumSignificantDigits: 3 }).format(value);

/** Seconds as 1:05 or 2:10:00. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}
