/** Training runs: all of them with their losses, or one with everything it wrote down. */

import { html, useEffect, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { bytes, language, moment, number, percent } from '../../lib/i18n.js';
import { useModel } from '../../lib/model.js';
import { Button, Check, EmptyState, Notice, Progress, Section, Segmented, Select, Spinner, useAsync, useKept } from '../../lib/ui.js';
import { t } from '../../texts/models.js';
import { compact, Curves, duration } from './curves.js';
import { Heat } from './heat.js';
import { LayerHeat } from './loaded.js';
import { checkpointName, switchToCheckpoint, useWork } from './work.js';

const ROOT = '/workbench/runs';
const EVERY = 4000;
const MOST = 6;

/** One run, read on while it is live. */
function useRun(id) {
  const [state, setState] = useState({ run: null, error: null });
  useEffect(() => {
    if (!id) return undefined;
    const controller = new AbortController();
    let timer = null;
    let offset = 0;
    const look = async () => {
      let again = true;
      if (!document.hidden) {
        try {
          const news = await api.get(`${ROOT}/${id}?after=${offset}`, { signal: controller.signal });
          offset = news.offset;
          again = news.live || news.empty;
          setState((old) => ({ run: news.changed ? news : old.run && { ...old.run, live: news.live }, error: null }));
        } catch (error) {
          if (error.name === 'AbortError') return;
          setState((old) => ({ ...old, error }));
          again = error.status === 0;
        }
      }
      if (again && !controller.signal.aborted) timer = setTimeout(look, EVERY);
    };
    setState({ run: null, error: null });
    look();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [id]);
  return state;
}

export function Runs({ route, navigate }) {
  const open = route.rest[0] ?? null;
  return open ? html`<${OneRun} id=${open} key=${open} navigate=${navigate} />` : html`<${AllRuns} navigate=${navigate} />`;
}

function AllRuns({ navigate }) {
  const listing = useAsync((signal) => api.get(ROOT, { signal }), []);
  const [chosen, setChosen] = useState(null);
  const [axis, setAxis] = useKept('runs.axis', 'step');
  const [log, setLog] = useKept('runs.log', false);
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && listing.reload(), EVERY * 2);
    return () => clearInterval(timer);
  }, []);
  if (listing.error && !listing.value) return html`<${Notice} kind="error" text=${listing.error.message} />`;
  if (!listing.value) return html`<${Spinner} />`;
  const { runs } = listing.value;
  if (!runs.length) return html`<${EmptyState} icon="chart" title=${t('noRuns')} text=${t('noRunsText')} />`;
  const shown = chosen ?? runs.filter(({ step }) => step !== null).slice(0, 1).map(({ id }) => id);
  const toggle = (id, on) => setChosen(on ? [...shown, id].slice(-MOST) : shown.filter((one) => one !== id));
  return html`
    <div class="section-head">
      <h2>${t('lossTitle')}</h2>
      <${ChartTools} ...${{ axis, setAxis, log, setLog }} />
    </div>
    <${Compared} ids=${shown} runs=${runs} axis=${axis} log=${log} />
    <p class="field-hint">${t('drag')}</p>
    <div class="table-frame" tabindex="0" role="region" aria-label=${t('runs')}>
      <table>
        <thead><tr>
          <th>${t('compare')}</th><th>${t('run')}</th><th class="number">${t('step')}</th><th class="number">${t('loss')}</th>
          <th class="number">${t('tokensSeen')}</th><th class="number">${t('parameters')}</th><th class="number">${t('progress')}</th><th>${t('updated')}</th>
        </tr></thead>
        <tbody>
          ${runs.map((run) => html`<tr key=${run.id}>
            <td><input type="checkbox" aria-label=${`${t('compare')}: ${run.name}`} checked=${shown.includes(run.id)} onChange=${(event) => toggle(run.id, event.target.checked)} /></td>
            <td><a href=${`#/models/runs/${run.id}`}>${run.name}</a> ${run.live && html`<span class="badge on">${t('live')}</span>`}</td>
            <td class="number">${run.step === null ? '–' : number(run.step)}</td>
            <td class="number">${run.loss === null ? '–' : number(run.loss, 4)}</td>
            <td class="number">${run.tokens === null ? '–' : compact(run.tokens)}</td>
            <td class="number">${run.parameters === null ? '–' : compact(run.parameters)}</td>
            <td class="number">${run.progress === null ? '–' : percent(run.progress)}</td>
            <td>${moment(run.updated)}</td>
          </tr>`)}
        </tbody>
      </table>
    </div>`;
}

function ChartTools({ axis, setAxis, log, setLog, children }) {
  return html`<div class="chart-tools">
    ${children}
    <${Check} checked=${log} onChange=${setLog}>${t('logScale')}</>
    <${Segmented} label=${t('axis')} value=${axis} onChange=${setAxis} options=${['step', 'tokens', 'seconds'].map((value) => ({ value, label: t(`axis_${value}`) }))} />
  </div>`;
}

/** The losses of several runs in one chart, each read by a component of its own. */
function Compared({ ids, runs, axis, log }) {
  const [loaded, setLoaded] = useState({});
  const take = (id, run) => setLoaded((old) => (old[id] === run ? old : { ...old, [id]: run }));
  const curves = ids.flatMap((id, i) => {
    const run = loaded[id];
    if (!run?.train) return [];
    const { loss } = run.train;
    const { loss: smooth } = run.smooth;
    const name = runs.find((one) => one.id === id)?.name ?? id;
    const raw = { name: t('unsmoothed'), x: loss[axis], y: loss.y, faint: true, colour: i };
    return [...(ids.length === 1 && differ(loss, smooth) ? [raw] : []), { name, x: smooth[axis], y: smooth.y, colour: i }];
  });
  return html`
    ${ids.map((id) => html`<${Followed} key=${id} id=${id} onRun=${take} />`)}
    ${curves.length ? html`<${Curves} curves=${curves} axis=${axis} log=${log} label=${t('lossTitle')} />` : html`<div class="curves-wait">${ids.some((id) => !loaded[id]) ? html`<${Spinner} />` : ids.length > 0 && html`<p class="field-hint">${t('empty')}</p>`}</div>`}`;
}

/** Whether smoothing changed anything: of a short run it does not. */
const differ = (raw, smooth) => raw.y.length !== smooth.y.length || raw.y.some((value, i) => value !== smooth.y[i]);

function Followed({ id, onRun }) {
  const { run, error } = useRun(id);
  useEffect(() => {
    if (run) onRun(id, run);
  }, [run]);
  return error ? html`<${Notice} kind="error" text=${error.message} />` : null;
}

function OneRun({ id, navigate }) {
  const { run, error } = useRun(id);
  const [axis, setAxis] = useKept('runs.axis', 'step');
  const [log, setLog] = useKept('runs.log', false);
  const [figure, setFigure] = useState('loss');
  const back = html`<div><${Button} kind="quiet" icon="left" onClick=${() => navigate('models/runs')}>${t('back')}</></div>`;
  if (error && !run) return html`${back}<${Notice} kind="error" text=${error.message} />`;
  if (!run) return html`${back}<${Spinner} />`;
  if (run.empty) return html`${back}<h2>${run.name}</h2><${Notice} text=${t('empty')} />`;
  const figures = Object.keys(run.train);
  const chosen = figures.includes(figure) ? figure : 'loss';
  const raw = run.train[chosen];
  const smoothed = chosen === 'loss' && differ(raw, run.smooth.loss);
  const curves = [
    { name: chosen, x: raw[axis], y: raw.y, faint: smoothed, colour: 0 },
    ...(smoothed ? [{ name: t('smoothed'), x: run.smooth.loss[axis], y: run.smooth.loss.y, colour: 0 }] : []),
  ];
  const { summary } = run;
  const facts = [
    [t('finalLoss'), summary.loss === null ? '–' : number(summary.loss, 4)],
    [t('step'), number(summary.step)],
    [t('tokensSeen'), compact(summary.tokens)],
    [t('duration'), duration(summary.seconds ?? 0)],
    [t('speed'), summary.tokens_per_second && `${t('perSecond', { n: compact(summary.tokens_per_second) })}${summary.peak_share ? ` · ${percent(summary.peak_share)} ${t('peak')}` : ''}`],
    [t('parameters'), `${compact(summary.parameters)}${summary.active_parameters !== summary.parameters ? ` (${compact(summary.active_parameters)} ${t('active')})` : ''}`],
    [t('memory'), summary.memory_bytes && bytes(summary.memory_bytes)],
  ].filter(([, value]) => value);
  const evals = Object.entries(run.evals);
  return html`
    ${back}
    <div class="section-head"><h2>${run.name} ${run.live && html`<span class="badge on">${t('live')}</span>`}</h2></div>
    <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${run.alarms.length > 0 && html`<${Alarms} alarms=${run.alarms} />`}
    <section>
      <${ChartTools} ...${{ axis, setAxis, log, setLog }}>
        <${Select} label=${t('curve')} value=${chosen} options=${figures.map((value) => ({ value, label: value }))} onChange=${setFigure} />
      </>
      <${Curves} curves=${curves} axis=${axis} log=${log} label=${chosen} />
      <p class="field-hint">${t('drag')}</p>
    </section>
    ${evals.length > 0 && html`<section>
      <h3>${t('heldOut')}</h3>
      <${Curves} curves=${evals.map(([name, curve], i) => ({ name, x: curve.loss[axis], y: curve.loss.y, colour: i }))} axis=${axis} log=${log} height=${220} label=${t('heldOut')} />
    </section>`}
    ${run.experts && html`<${RunExperts} experts=${run.experts} axis=${axis} />`}
    <${Checkpoints} run=${run} />
    <${Section} title=${t('about')} open=${false}>
      <dl class="facts">
        <div class="whole"><dt>${t('command')}</dt><dd><code>${run.start.command}</code></dd></div>
        <div><dt>${t('started')}</dt><dd>${moment(run.start.time)}</dd></div>
        <div><dt>${t('version')}</dt><dd>${[run.start.version, run.start.commit].filter(Boolean).join(' · ')}</dd></div>
        <div><dt>${t('processes')}</dt><dd>${summary.processes}</dd></div>
      </dl>
    </>
    ${run.recipe && html`<${Section} title=${t('recipe')} open=${false}><pre class="recipe" tabindex="0">${run.recipe}</pre></>`}`;
}

/** The checkpoints that were kept, each a click from answering. */
function Checkpoints({ run }) {
  const { current } = useModel();
  const work = useWork();
  return html`<section class="checkpoints">
    <h3>${t('checkpoints')}</h3>
    ${!run.checkpoints.length && html`<p class="field-hint">${t('none')}</p>`}
    <ul>${run.checkpoints.map((step) => {
      const name = checkpointName(run, step);
      const loading = work.load?.name === name ? work.load : null;
      return html`<li key=${step}>
        <span>${t('step')} ${number(step)}</span>
        ${current?.id === name
          ? html`<span class="badge on">${t('isLoaded')}</span>`
          : loading
            ? html`<${Progress} value=${loading.event?.done ?? 0} max=${loading.event?.total ?? 0} text=${t('phase_loading')} onCancel=${loading.stop} />`
            : html`<${Button} disabled=${Boolean(work.load)} onClick=${() => switchToCheckpoint(run, step)} aria-label=${`${t('load')}: ${t('step')} ${number(step)}`}>${t('load')}</>`}
      </li>`;
    })}</ul>
  </section>`;
}

function Alarms({ alarms }) {
  const last = alarms.at(-1);
  return html`<${Notice} kind=${last.level === 'stop' ? 'error' : 'warning'}>
    <ul class="alarms">${alarms.slice(-3).reverse().map((alarm, i) => html`<li key=${i}><small>${t('step')} ${number(alarm.step)}</small> ${alarm[language()]}</li>`)}</ul>
  </>`;
}

function RunExperts({ experts, axis }) {
  const [layer, setLayer] = useState(0);
  const [figure, setFigure] = useState('max_violation');
  const names = Object.keys(experts.figures).filter((name) => !name.includes('.'));
  const chosen = names.includes(figure) ? figure : names[0];
  const curves = [chosen, `${chosen}.low`, `${chosen}.high`]
    .filter((name) => experts.figures[name])
    .map((name, i) => ({ name, x: experts.figures[name][axis], y: experts.figures[name].y, colour: 0, faint: i > 0 }));
  const history = experts.history.load[layer];
  return html`<section aria-label=${t('expertsRun')}>
    <h3>${t('expertsRun')}</h3>
    <p class="field-hint">${t('expertsText')}</p>
    <h4>${t('atEnd')}</h4>
    <${LayerHeat} rows=${experts.final} layers=${experts.layers} label=${t('atEnd')} />
    <div class="section-head">
      <h4>${t('overTime', { layer: experts.layers[layer] })}</h4>
      <${Select} label=${t('whichLayer')} value=${layer} options=${experts.layers.map((name, i) => ({ value: i, label: `${t('layer')} ${name}` }))} onChange=${(value) => setLayer(Number(value))} />
    </div>
    <${Heat}
      rows=${history}
      rowName=${t('expert')}
      columnName=${t('step')}
      rowLabels=${history.map((_, i) => i)}
      columnLabels=${experts.history.step.map((step) => compact(step))}
      label=${t('overTime', { layer: experts.layers[layer] })}
      say=${(row, column, load) => t('cellStep', { step: number(experts.history.step[column]), expert: row, load })}
    />
    <div class="section-head">
      <h4>${t('figures')}</h4>
      <${Select} label=${t('curve')} value=${chosen} options=${names.map((value) => ({ value, label: value }))} onChange=${setFigure} />
    </div>
    <${Curves} curves=${curves} axis=${axis} height=${200} label=${t('figures')} />
  </section>`;
}
