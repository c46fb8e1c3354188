/** The model that answers: what it is, what it is doing, what it is good for. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { bytes, language, number, percent } from '../../lib/i18n.js';
import { useModel } from '../../lib/model.js';
import { Button, EmptyState, Notice, Progress, Segmented, Spinner } from '../../lib/ui.js';
import { t } from '../../texts/models.js';
import { compact } from './curves.js';
import { Heat } from './heat.js';
import { useWork } from './work.js';

const EVERY = 2000;
const KEPT = 60;
const PLACES = ['chat', 'write', 'maths', 'knowledge', 'code'];

/** What the server says of the model now, again and again while the page is looked at. */
function useLive() {
  const [live, setLive] = useState(null);
  const [rates, setRates] = useState([]);
  useEffect(() => {
    const controller = new AbortController();
    let timer = null;
    const look = async () => {
      if (!document.hidden) {
        try {
          const now = await api.get('/workbench/models/live', { signal: controller.signal });
          setLive(now);
          if (now.engine) setRates((old) => [...old.slice(1 - KEPT), now.engine.generation_tokens_per_second ?? 0]);
        } catch {
          // The shell says when the server is gone.
        }
      }
      if (!controller.signal.aborted) timer = setTimeout(look, EVERY);
    };
    look();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, []);
  return { live, rates };
}

export function Loaded({ navigate }) {
  const { known, current, models } = useModel();
  const { live, rates } = useLive();
  const { load } = useWork();
  if (!known) return html`<${Spinner} />`;
  if (load)
    return html`<${Progress} value=${load.event?.done ?? 0} max=${load.event?.total ?? 0} text=${t('loading', { name: load.name })} onCancel=${load.stop} />`;
  if (!current)
    return html`<${EmptyState} icon="models" title=${t('nothingLoaded')} text=${t('nothingLoadedText')} examples=${[{ label: t('toCatalogue'), run: () => navigate('models/catalogue') }]} />`;
  const larger = models.find((model) => model.fits_memory && model.fits_disk && !model.loaded && model.parameters > 1.5 * (current.parameters ?? Infinity));
  return html`
    <section class="model-now">
      <div class="model-head">
        <div>
          <p class="model-kicker">${t('answering')}</p>
          <h2>${current.title ?? current.id}</h2>
          ${current.title && current.title !== current.id && html`<code>${current.id}</code>`}
        </div>
      </div>
      <dl class="facts">
        ${current.parameters && html`<div><dt>${t('parameters')}</dt><dd>${compact(current.parameters)}</dd></div>`}
        ${current.context && html`<div><dt>${t('contextLength')}</dt><dd>${t('tokens', { n: number(current.context) })}</dd></div>`}
        ${current.languages && html`<div><dt>${t('languages')}</dt><dd>${current.languages.map(languageName).join(language() === 'zh' ? '、' : ', ')}</dd></div>`}
        <div><dt>${t('where')}</dt><dd>${t(current.local ? 'here' : 'elsewhere')}</dd></div>
        ${live?.engine?.memory_bytes && html`<div><dt>${t('memory')}</dt><dd>${bytes(live.engine.memory_bytes)}</dd></div>`}
      </dl>
    </section>
    <section aria-label=${t('now')}>
      <h3>${t('now')}</h3>
      ${live && !live.engine && html`<p class="field-hint">${t(current.local ? 'notYet' : 'notKnown')}</p>`}
      ${live?.engine && html`<${Engine} engine=${live.engine} rates=${rates} />`}
    </section>
    ${live?.experts && html`<${LiveExperts} experts=${live.experts} />`}
    <section aria-label=${t('goodFor')}>
      <h3>${t('goodFor')}</h3>
      <${GoodFor} words=${current.good_for} />
      ${larger && html`<${Notice} text=${html`<strong>${t('larger')}</strong> ${t('largerText', { title: larger.title })}`} action=${{ label: t('toCatalogue'), run: () => navigate('models/catalogue') }} />`}
    </section>`;
}

/** One line for each place. */
export function GoodFor({ words }) {
  return html`<dl class="good-for">
    ${PLACES.map((place) => words?.[place] && html`<div key=${place}><dt>${t(`place_${place}`)}</dt><dd>${words[place][language()]}</dd></div>`)}
  </dl>`;
}

/** The name of a language in the catalogue. */
export const languageName = (name) => (name === 'code' ? t('programming') : ['zh', 'en'].includes(name) ? t(name) : name);

function Engine({ engine, rates }) {
  const rate = (value) => (value === null || value === undefined ? '…' : value > 0 ? t('perSecond', { n: number(value, value < 10 ? 1 : 0) }) : t('idle'));
  return html`<div class="live">
    <div class="live-tile wide">
      <span>${t('writing')}</span>
      <strong>${rate(engine.generation_tokens_per_second)}</strong>
      <${Spark} values=${rates} label=${t('lately')} />
    </div>
    <div class="live-tile"><span>${t('reading')}</span><strong>${rate(engine.prompt_tokens_per_second)}</strong></div>
    <div class="live-tile"><span>${t('requests')}</span><strong>${t('runningWaiting', engine)}</strong></div>
    ${engine.cache_share !== undefined && engine.cache_share !== null && html`<div class="live-tile"><span>${t('cache')}</span><strong>${percent(engine.cache_share)}</strong><small>${t('ofTokens', { n: number(engine.cache_tokens) })}</small><${Meter} share=${engine.cache_share} /></div>`}
    ${engine.prefix_hit_share !== undefined && engine.prefix_hit_share !== null && html`<div class="live-tile"><span>${t('hits')}</span><strong>${percent(engine.prefix_hit_share)}</strong><${Meter} share=${engine.prefix_hit_share} /></div>`}
  </div>`;
}

function Meter({ share }) {
  const bar = useRef(null);
  useEffect(() => {
    bar.current.style.width = `${Math.min(100, 100 * share)}%`;
  });
  return html`<span class="meter" aria-hidden="true"><i ref=${bar}></i></span>`;
}

/** The last values as a line, the newest on the right. */
function Spark({ values, label }) {
  const [width, height] = [KEPT - 1, 24];
  const top = Math.max(...values, 1e-9);
  const at = (value, i) => `${KEPT - values.length + i},${(height - (value / top) * (height - 2) - 1).toFixed(1)}`;
  if (values.length < 2) return null;
  return html`<svg class="spark" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${label}>
    <polyline points=${values.map(at).join(' ')} />
  </svg>`;
}

function LiveExperts({ experts }) {
  const [chosen, setWhich] = useState(null);
  const which = chosen ?? (experts.recent ? 'recent' : 'total');
  const rows = which === 'recent' ? experts.recent : experts.total;
  return html`<section aria-label=${t('experts')}>
    <div class="section-head">
      <div><h3>${t('experts')}</h3><p class="field-hint">${t('expertsText')}</p></div>
      <${Segmented} label=${t('experts')} value=${which} onChange=${setWhich} options=${[{ value: 'recent', label: t('last') }, { value: 'total', label: t('total') }]} />
    </div>
    ${rows ? html`<${LayerHeat} rows=${rows} layers=${experts.layer_numbers} label=${t('experts')} />` : html`<p class="field-hint">${t('noTraffic')}</p>`}
  </section>`;
}

/** Layers downwards, experts across. */
export function LayerHeat({ rows, layers, label }) {
  const names = layers ?? rows.map((_, i) => i);
  return html`<${Heat}
    rows=${rows}
    rowName=${t('layer')}
    columnName=${t('expert')}
    rowLabels=${names}
    columnLabels=${rows[0].map((_, i) => i)}
    label=${label}
    say=${(row, column, load) => t('cell', { layer: names[row], expert: column, load })}
  />`;
}
