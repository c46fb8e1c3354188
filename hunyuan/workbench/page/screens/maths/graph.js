/** A graph of functions whose part can be moved and enlarged; each part is computed anew. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { Chart, ChartMenu } from '../../lib/chart.js';
import { Button, Notice } from '../../lib/ui.js';
import { t } from '../../texts/maths.js';

export function Graph({ answer }) {
  const [chart, setChart] = useState(answer.chart);
  const [functions, setFunctions] = useState(answer.call.arguments.expressions);
  const [ends, setEnds] = useState(() => domain(answer.chart).map(String));
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const controller = useRef(null);
  useEffect(() => () => controller.current?.abort(), []);

  const draw = async (lower, upper) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    setBusy(true);
    try {
      const reply = await api.post('/workbench/charts/function', { expressions: functions, lower, upper }, { signal: own.signal });
      setChart(reply.chart);
      setEnds(domain(reply.chart).map(String));
      setError(null);
    } catch (failure) {
      if (failure.name !== 'AbortError') setError(failure.message);
    } finally {
      if (own === controller.current) setBusy(false);
    }
  };
  /** A part of the axis: `scale` times as wide, moved by `shift` widths. */
  const part = (scale, shift) => {
    const [low, high] = domain(chart);
    const [middle, half] = [(low + high) / 2 + shift * (high - low), (scale * (high - low)) / 2];
    draw(rounded(middle - half, half), rounded(middle + half, half));
  };
  const set = (index) => (event) => setEnds(ends.map((end, i) => (i === index ? event.target.value : end)));
  return html`<div class="maths-graph">
    <${Chart} spec=${chart} height=${340} />
    <div class="maths-actions">
      <${Button} size="small" icon="left" label=${t('moveLeft')} onClick=${() => part(1, -0.25)} />
      <${Button} size="small" icon="right" label=${t('moveRight')} onClick=${() => part(1, 0.25)} />
      <${Button} size="small" label=${t('zoomIn')} aria-label=${t('zoomIn')} onClick=${() => part(0.5, 0)}>+</>
      <${Button} size="small" label=${t('zoomOut')} aria-label=${t('zoomOut')} onClick=${() => part(2, 0)}>−</>
      <${ChartMenu} spec=${chart} />
    </div>
    <form
      class="maths-domain"
      onSubmit=${(event) => {
        event.preventDefault();
        draw(...ends);
      }}
    >
      <input class="maths-functions" aria-label=${t('functions')} value=${functions} maxlength="1000" onInput=${(event) => setFunctions(event.target.value)} spellcheck="false" />
      <span class="maths-ends">
        <span>${t('from')}</span><input class="maths-end" aria-label=${t('from')} value=${ends[0]} maxlength="40" onInput=${set(0)} />
        <span>${t('to')}</span><input class="maths-end" aria-label=${t('to')} value=${ends[1]} maxlength="40" onInput=${set(1)} />
        <${Button} size="small" type="submit" busy=${busy}>${t('draw')}</>
      </span>
    </form>
    ${error && html`<${Notice} kind="error" text=${error} />`}
    <footer class="maths-foot"><span>${t('computedBy', { by: chart.computed_by })} · ${chart.source}</span></footer>
  </div>`;
}

const domain = (chart) => [Math.min(...chart.series.map((s) => s.points[0][0])), Math.max(...chart.series.map((s) => s.points.at(-1)[0]))];

/** A number short enough to read, exact enough for the width of the part. */
const rounded = (value, half) => {
  const step = 10 ** (Math.floor(Math.log10(half)) - 2);
  return String(Number((Math.round(value / step) * step).toPrecision(10)));
};

