/**
 * Charts from checked data: `<${Chart} spec=${spec} height=${320} />`, and `chartMenu(spec)`.
 *
 * A spec is what hunyuan/charts/spec.py describes. Nothing else reaches the drawing library: labels
 * are drawn as text on a canvas, never as HTML.
 */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js';
import { api } from './api.js';
import { language, number, texts } from './i18n.js';
import { onTheme, token } from './theme.js';
import { copyText, download, Menu, Spinner, toast } from './ui.js';

const t = texts({
  en: {
    chart: 'Chart: {title}',
    copyVega: 'Copy as Vega-Lite',
    csv: 'CSV (the data)',
    export: 'Export',
    png: 'PNG (picture)',
    svg: 'SVG (vector)',
    table: '{n} points',
  },
  zh: {
    chart: '图表：{title}',
    copyVega: '复制为 Vega-Lite',
    csv: 'CSV（数据）',
    export: '导出',
    png: 'PNG（图片）',
    svg: 'SVG（矢量图）',
    table: '{n} 个点',
  },
});

const SERIES = 6;
let loading = null;

/** ECharts, at the first chart. */
const library = () => (loading ??= import('../vendor/echarts.js'));

/** A chart; `onZoom(low, high)` is told when the reader has chosen a part of a function's axis. */
export function Chart({ spec, height = 320 }) {
  const target = useRef(null);
  const drawn = useRef(null);
  const [echarts, setEcharts] = useState(null);
  const [theme, setTheme] = useState(0);

  useEffect(() => {
    let here = true;
    library().then((module) => here && setEcharts(module));
    return () => {
      here = false;
    };
  }, []);
  useEffect(() => onTheme(() => setTheme((n) => n + 1)), []);
  useLayoutEffect(() => {
    target.current.style.height = `${height}px`;
    if (!echarts) return undefined;
    const chart = echarts.init(target.current, null, { renderer: 'canvas' });
    drawn.current = chart;
    const observer = new ResizeObserver(() => chart.resize());
    observer.observe(target.current);
    return () => {
      observer.disconnect();
      chart.dispose();
      drawn.current = null;
    };
  }, [echarts, height]);
  useLayoutEffect(() => {
    drawn.current?.setOption(optionsOf(spec, colours()), true);
  }, [echarts, spec, theme, language(), height]);
  return html`<figure class="chart" role="img" aria-label=${summary(spec)}>
    ${!echarts && html`<div class="chart-wait"><${Spinner} /></div>`}
    <div class="chart-ground" ref=${target}></div>
  </figure>`;
}

function summary(spec) {
  const points = spec.cells?.length ?? spec.series.reduce((sum, s) => sum + s.points.length, 0);
  return `${t('chart', { title: spec.title })} – ${t('table', { n: number(points) })}`;
}

/** The menu that exports a chart as PNG, SVG, CSV or Vega-Lite. */
export function ChartMenu({ spec, size = 'small' }) {
  const failed = (error) => toast(error.message, { kind: 'error' });
  const name = fileName(spec.title);
  return html`<${Menu}
    trigger=${{ icon: 'download', text: t('export'), label: t('export'), size }}
    items=${[
      { label: t('png'), run: () => exportPicture(spec, 'png').then((blob) => download(`${name}.png`, blob), failed) },
      { label: t('svg'), run: () => exportPicture(spec, 'svg').then((blob) => download(`${name}.svg`, blob), failed) },
      {
        label: t('csv'),
        run: () =>
          api.post('/workbench/charts/export', { chart: spec, form: 'csv' }).then(
            // Excel takes UTF-8 for what it is only with a mark at the start.
            ({ text }) => download(`${name}.csv`, `\ufeff${text}`, 'text/csv;charset=utf-8'),
            failed,
          ),
      },
      {
        label: t('copyVega'),
        run: () =>
          api.post('/workbench/charts/export', { chart: spec, form: 'vega-lite' }).then(
            ({ document: made }) => copyText(JSON.stringify(made, null, 2)),
            failed,
          ),
      },
    ]}
  />`;
}

const fileName = (title) => title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 40) || 'chart';

/** A chart as a Blob, 1200 x 750, on the ground of the page. */
export async function exportPicture(spec, form) {
  const echarts = await library();
  const svg = form === 'svg';
  const host = svg ? null : document.createElement('div');
  const chart = echarts.init(host, null, { renderer: svg ? 'svg' : 'canvas', ssr: svg, width: 1200, height: 750 });
  try {
    const palette = colours();
    chart.setOption({ ...optionsOf(spec, palette), animation: false, backgroundColor: palette.ground, title: { text: spec.title, left: 'center', top: 12, textStyle: { color: palette.text, fontSize: 18, fontWeight: 600 } } });
    if (svg) return new Blob([chart.renderToSVGString()], { type: 'image/svg+xml' });
    const data = chart.getDataURL({ type: 'png', pixelRatio: 2, backgroundColor: palette.ground });
    const bytes = Uint8Array.from(atob(data.slice(data.indexOf(',') + 1)), (c) => c.charCodeAt(0));
    return new Blob([bytes], { type: 'image/png' });
  } finally {
    chart.dispose();
  }
}

function colours() {
  return {
    text: token('--text'),
    muted: token('--muted'),
    line: token('--line'),
    strong: token('--line-strong'),
    ground: token('--raised'),
    accent: token('--accent'),
    soft: token('--accent-soft'),
    series: Array.from({ length: SERIES }, (_, i) => token(`--series-${i + 1}`)),
  };
}

const short = (value) => {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(2);
  return String(Number(value.toPrecision(6)));
};

/** What ECharts is told; every text in it is drawn, none is markup. */
function optionsOf(spec, c) {
  const font = getComputedStyle(document.body).fontFamily;
  const base = {
    animationDuration: 250,
    textStyle: { fontFamily: font, color: c.text },
    color: c.series,
    aria: { enabled: false },
    tooltip: { renderMode: 'richText', backgroundColor: c.ground, borderColor: c.line, textStyle: { color: c.text, fontSize: 12 }, confine: true },
  };
  if (spec.kind === 'pie') return { ...base, ...pie(spec, c) };
  if (spec.kind === 'heatmap') return { ...base, ...heatmap(spec, c) };
  return { ...base, ...plane(spec, c) };
}

function axis(c, extra) {
  return {
    nameTextStyle: { color: c.muted, fontSize: 12 },
    axisLabel: { color: c.muted, fontSize: 11, hideOverlap: true },
    axisLine: { lineStyle: { color: c.strong } },
    axisTick: { lineStyle: { color: c.strong } },
    splitLine: { lineStyle: { color: c.line } },
    ...extra,
  };
}

function plane(spec, c) {
  const names = spec.x.categories;
  const several = spec.series.length > 1;
  const graph = spec.kind === 'function';
  const cut = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  const x = names
    ? axis(c, { type: 'category', data: names, name: spec.x.label, nameLocation: 'middle', nameGap: names.some((n) => n.length > 6) && names.length > 4 ? 52 : 30, axisLabel: { color: c.muted, fontSize: 11, formatter: cut, rotate: names.some((n) => n.length > 6) && names.length > 4 ? 30 : 0, hideOverlap: true } })
    : axis(c, { type: spec.x.scale === 'log' ? 'log' : 'value', name: spec.x.label, nameLocation: 'middle', nameGap: 30, ...xRange(spec), axisLabel: { color: c.muted, fontSize: 11, formatter: short, hideOverlap: true } });
  const range = graph ? yRange(spec) : {};
  return {
    grid: { left: 12, right: 24, top: several ? 44 : 20, bottom: 26, containLabel: true },
    legend: several ? { top: 4, type: 'scroll', icon: 'roundRect', itemWidth: 14, itemHeight: 3, textStyle: { color: c.text }, pageTextStyle: { color: c.muted } } : undefined,
    xAxis: x,
    yAxis: axis(c, { type: 'value', name: graph ? '' : spec.y.label, nameLocation: 'end', nameTextStyle: { color: c.muted, align: 'left' }, ...range, scale: spec.kind !== 'bar' && spec.kind !== 'histogram', axisLabel: { color: c.muted, fontSize: 11, formatter: short } }),
    tooltip: {
      renderMode: 'richText', backgroundColor: c.ground, borderColor: c.line, textStyle: { color: c.text, fontSize: 12 }, confine: true,
      trigger: spec.kind === 'scatter' ? 'item' : 'axis',
      axisPointer: { type: names ? 'shadow' : 'line', lineStyle: { color: c.strong }, shadowStyle: { opacity: 0.12 } },
      formatter: (found) => tip(Array.isArray(found) ? found : [found], spec),
    },
    dataZoom: !graph && names && names.length > 40 ? [{ type: 'inside', zoomOnMouseWheel: 'ctrl' }] : undefined,
    series: spec.series.map((one, i) => drawnSeries(spec, one, i, c)),
  };
}

function tip(found, spec) {
  const first = found[0];
  const at = spec.x.categories ? spec.x.categories[first.dataIndex] ?? first.name : short(first.value[0]);
  const lines = found.map((f) => `${f.seriesName || spec.y.label || 'y'}: ${short(Array.isArray(f.value) ? f.value[1] : f.value)}`);
  return [`${spec.x.label || 'x'} = ${at}`, ...lines].join('\n');
}

function drawnSeries(spec, one, i, c) {
  const colour = c.series[i % SERIES];
  const name = one.name;
  const data = spec.x.categories ? byPlace(one.points, spec.x.categories.length) : one.points;
  switch (spec.kind) {
    case 'bar':
      return { type: 'bar', name, data, itemStyle: { color: colour, borderRadius: [3, 3, 0, 0] }, barMaxWidth: 48 };
    case 'histogram':
      return { type: 'bar', name, data, itemStyle: { color: colour }, barCategoryGap: '4%' };
    case 'scatter':
      return { type: 'scatter', name, data: one.points, symbolSize: one.points.length > 500 ? 4 : 7, itemStyle: { color: colour, opacity: 0.75 } };
    case 'function':
      return { type: 'line', name, data, showSymbol: false, connectNulls: false, lineStyle: { width: 2, color: colour, type: i >= SERIES ? 'dashed' : 'solid' }, itemStyle: { color: colour }, markLine: i === 0 ? zeroLines(spec, c) : undefined, emphasis: { disabled: true } };
    default:
      return { type: 'line', name, data, showSymbol: data.length < 40, symbolSize: 5, connectNulls: false, lineStyle: { width: 2, color: colour }, itemStyle: { color: colour } };
  }
}

const byPlace = (points, length) => {
  const values = Array(length).fill(null);
  for (const [place, value] of points) values[place] = value;
  return values;
};

/** The axes through the origin, where they are in the picture. */
function zeroLines(spec, c) {
  const xs = xRange(spec);
  const data = [{ yAxis: 0 }];
  if (xs.min < 0 && xs.max > 0) data.push({ xAxis: 0 });
  return { silent: true, symbol: 'none', label: { show: false }, lineStyle: { color: c.strong, width: 1, type: 'solid' }, data };
}

function xRange(spec) {
  if (spec.kind !== 'function') return spec.kind === 'scatter' || spec.kind === 'line' ? { scale: true } : {};
  const xs = spec.series.flatMap((s) => [s.points[0][0], s.points.at(-1)[0]]);
  return { min: Math.min(...xs), max: Math.max(...xs) };
}

/** The heights at even steps: where a graph bends it has more points, which must not weigh more. */
function even(points) {
  const [start, end] = [points[0][0], points.at(-1)[0]];
  const step = (end - start) / 300;
  const heights = [];
  let next = start;
  for (const [x, y] of points) {
    if (y === null || x < next) continue;
    heights.push(y);
    next = x + step;
  }
  return heights;
}

/** The height that shows most of the graph; what shoots up at a pole is cut off. */
function yRange(spec) {
  const ys = spec.series.flatMap((s) => even(s.points)).sort((a, b) => a - b);
  if (!ys.length) return {};
  const at = (part) => ys[Math.min(ys.length - 1, Math.floor(part * ys.length))];
  let [low, high] = [ys[0], ys.at(-1)];
  const [inner, outer] = [at(0.06), at(0.94)];
  const middle = outer - inner;
  if (middle > 0 && high - low > 5 * middle) [low, high] = [Math.max(low, inner - middle), Math.min(high, outer + middle)];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const nice = 10 ** Math.floor(Math.log10(high - low || 1)) / 5;
  return { min: Math.floor((low - margin) / nice) * nice, max: Math.ceil((high + margin) / nice) * nice };
}

function pie(spec, c) {
  const [one] = spec.series;
  const data = one.points.map(([place, value], i) => ({ name: spec.x.categories[place], value, itemStyle: { color: c.series[i % SERIES], opacity: 1 - 0.22 * (Math.floor(i / SERIES) % 4) } }));
  return {
    series: [{ type: 'pie', name: one.name, radius: ['32%', '68%'], center: ['50%', '52%'], data, label: { color: c.text, formatter: ({ name, percent }) => `${name.length > 18 ? `${name.slice(0, 17)}…` : name}  ${percent} %` }, labelLine: { lineStyle: { color: c.strong } }, itemStyle: { borderColor: c.ground, borderWidth: 2 } }],
    tooltip: { renderMode: 'richText', backgroundColor: c.ground, borderColor: c.line, textStyle: { color: c.text, fontSize: 12 }, confine: true, trigger: 'item', formatter: ({ name, value, percent }) => `${name}: ${short(value)} (${percent} %)` },
  };
}

function heatmap(spec, c) {
  const values = spec.cells.map((cell) => cell[2]).filter((v) => v !== null);
  const [xs, ys] = [spec.x.categories, spec.y.categories];
  return {
    grid: { left: 12, right: 24, top: 16, bottom: 64, containLabel: true },
    xAxis: axis(c, { type: 'category', data: xs, name: spec.x.label, nameLocation: 'middle', nameGap: 30, splitLine: { show: false } }),
    yAxis: axis(c, { type: 'category', data: ys, name: spec.y.label, splitLine: { show: false } }),
    visualMap: { min: Math.min(...values, 0), max: Math.max(...values), calculable: true, orient: 'horizontal', left: 'center', bottom: 4, textStyle: { color: c.muted }, formatter: short, inRange: { color: [c.soft, c.accent] } },
    tooltip: { renderMode: 'richText', backgroundColor: c.ground, borderColor: c.line, textStyle: { color: c.text, fontSize: 12 }, confine: true, trigger: 'item', formatter: ({ value }) => `${xs[value[0]]}, ${ys[value[1]]}: ${short(value[2])}` },
    series: [{ type: 'heatmap', data: spec.cells, label: { show: spec.cells.length <= 80, color: c.text, formatter: ({ value }) => short(value[2]) }, itemStyle: { borderColor: c.ground, borderWidth: 1 } }],
  };
}
