/** Evaluations: all of them with their scores, or one as its report shows it. */

import { html } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language, moment, number } from '../../lib/i18n.js';
import { stylesheet } from '../../lib/styles.js';
import { EmptyState, Notice, Section, Spinner, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/evaluations.js';

const ROOT = '/workbench/evaluations';
const Z = 1.96;

const tenths = (value) => value.toFixed(1);
const hundred = (value) => tenths(100 * value);
const plain = (part) => part.replace(/^(mmlu_pro|mmlu|cmmlu|ceval-valid|bbh_cot_fewshot|math)_/, '').replaceAll('_', ' ');

export function Evaluations({ route }) {
  const open = route.rest[0] ?? null;
  const style = useAsync(() => stylesheet('/static/styles/evaluations.css').then(() => true), []);
  if (!style.value) return html`<${Spinner} />`;
  return open ? html`<${One} id=${open} key=${open} />` : html`<${All} />`;
}

function All() {
  const listing = useAsync((signal) => api.get(ROOT, { signal }), []);
  if (listing.error) return html`<${Notice} kind="error" text=${listing.error.message} />`;
  if (!listing.value) return html`<${Spinner} />`;
  const { evaluations } = listing.value;
  if (!evaluations.length) return html`<${EmptyState} icon="chart" title=${t('none')} text=${t('noneText')} />`;
  return html`<div class="table-frame" tabindex="0" role="region" aria-label=${t('evaluations')}>
    <table>
      <thead><tr><th>${t('name')}</th><th>${t('model')}</th><th>${t('scores')}</th><th>${t('updated')}</th></tr></thead>
      <tbody>${evaluations.map((each) => html`<tr key=${each.id}>
        <td><a href=${`#/models/evaluations/${each.id}`}>${each.name}</a>
          ${each.warnings > 0 && html`<div class="field-hint">${t('warned', { n: each.warnings })}</div>`}</td>
        <td>${each.model ?? '–'}</td>
        <td><ul class="eval-scores">${each.scores.map((score) => html`<li key=${score.title}>${score.title} <b>${shown(score)}</b></li>`)}</ul></td>
        <td>${moment(each.updated)}</td>
      </tr>`)}</tbody>
    </table>
  </div>`;
}

const shown = ({ lower, value }) => (lower ? number(value, 2) : hundred(value));

function One({ id }) {
  const found = useAsync((signal) => api.get(`${ROOT}/${id}`, { signal }), [id, language()]);
  if (found.error) return html`<${Notice} kind="error" text=${found.error.message} /><${Back} />`;
  if (!found.value) return html`<${Spinner} />`;
  const { name, runs: [run], published, benchmarks } = found.value;
  const title = (benchmark) => benchmarks[benchmark].title;
  const names = Object.keys(run.results);
  const tables = Object.values(published).filter((table) => table.chat === run.described.plan.chat);
  const rest = names.filter((each) => !tables.some((table) => each in table.rows));
  const several = names.filter((each) => Object.keys(run.results[each].more).length > 0);
  const divided = names.filter((each) => Object.keys(run.results[each].parts).length > 1 && !benchmarks[each].lower);
  const wrong = names.filter((each) => run.results[each].examples.length > 0);
  return html`
    <${Back} />
    <h2 class="eval-name">${name}</h2>
    ${names.filter((each) => run.results[each].warning).map((each) => html`<${Notice} key=${each} kind="warning" text=${run.results[each].warning[language()]} />`)}
    ${tables.map((table) => html`<${Scores} key=${table.source} heading=${table[language() === 'zh' ? 'title_zh' : 'title_en']} note=${t('source', { source: table.source })}
      columns=${table.models} names=${names.filter((each) => each in table.rows)} figures=${table.rows} ...${{ run, benchmarks, title }} />`)}
    ${rest.length > 0 && html`<${Scores} heading=${t('measuredOnly')} columns=${[]} names=${rest} figures=${{}} ...${{ run, benchmarks, title }} />`}
    <p class="field-hint">${t('interval')}</p>
    ${several.map((each) => html`<${Section} key=${each} title=${t('ofSeveral', { title: title(each) })} open=${false}><${Bars} rows=${Object.entries(run.results[each].more)} /></>`)}
    ${divided.map((each) => html`<${Section} key=${each} title=${t('parts', { title: title(each) })} open=${false}>
      <${Bars} rows=${Object.entries(run.results[each].parts).sort(([, a], [, b]) => b[0] - a[0]).map(([part, values]) => [plain(part), values])} />
    </>`)}
    ${wrong.map((each) => html`<${Section} key=${each} title=${t('wrong', { title: title(each) })} open=${false}>${run.results[each].examples.map((example) => html`<${Example} key=${example.task} example=${example} />`)}</>`)}
    <${Section} title=${t('origin')} open=${false}><${Origin} described=${run.described} /></>`;
}

const Back = () => html`<p><a href="#/models/evaluations">${t('back')}</a></p>`;

function Scores({ heading, note, columns, names, figures, run, benchmarks, title }) {
  return html`<section class="eval-table">
    <h3>${heading}</h3>
    ${note && html`<p class="field-hint">${note}</p>`}
    <div class="table-frame" tabindex="0" role="region" aria-label=${heading}>
      <table>
        <thead><tr><th>${t('benchmark')}</th><th class="number measured">${t('measured')}</th>${columns.map((name) => html`<th key=${name} class="number">${name}</th>`)}</tr></thead>
        <tbody>${names.map((each) => html`<tr key=${each}>
          <th scope="row">${title(each)}</th>
          <td class="number measured"><${Measured} result=${run.results[each]} lower=${benchmarks[each].lower} /></td>
          ${columns.map((name, i) => html`<td key=${name} class="number">${figures[each][i] === null ? '–' : tenths(figures[each][i])}</td>`)}
        </tr>`)}</tbody>
      </table>
    </div>
  </section>`;
}

function Measured({ result, lower }) {
  const about = [
    t('shots', { n: result.shots }),
    result.items === result.of ? t('items', { n: number(result.items) }) : t('sample', { n: number(result.items), of: number(result.of) }),
    ...(result.repeats > 1 ? [t('repeats', { n: result.repeats })] : []),
    ...(result.truncated ? [t('cut', { n: number(result.truncated) })] : []),
  ];
  const range = lower || result.stderr === null ? '' : ` ± ${hundred(Z * result.stderr)}`;
  return html`<b>${lower ? number(result.value, 2) : hundred(result.value)}</b>${range}
    ${!lower && html`<${Bar} value=${result.value} stderr=${result.stderr} />`}
    <small>${about.join(' · ')}</small>`;
}

// By the element's own property: the page's policy allows no style attribute.
function place(mark, from, to) {
  if (!mark) return;
  mark.style.left = `${100 * from}%`;
  mark.style.width = `${100 * (to - from)}%`;
}

function Bar({ value, stderr }) {
  const low = Math.max(0, value - Z * (stderr ?? 0));
  const high = Math.min(1, value + Z * (stderr ?? 0));
  return html`<div class="eval-bar" aria-hidden="true">
    <i ref=${(mark) => place(mark, 0, value)}></i>${stderr ? html`<s ref=${(mark) => place(mark, low, high)}></s>` : null}
  </div>`;
}

function Bars({ rows }) {
  return html`<dl class="eval-bars">${rows.map(([label, [value, stderr]]) => html`<div key=${label}>
    <dt>${label}</dt><dd><${Bar} value=${value} stderr=${stderr} /><span>${hundred(value)}</span></dd>
  </div>`)}</dl>`;
}

function Example({ example }) {
  return html`<div class="eval-example">
    <p class="field-hint">${example.task}</p>
    ${['prompt', 'reference', 'answer'].map((key) => html`<h4 key=${`${key}-name`}>${t(key === 'prompt' ? 'question' : key)}</h4><pre key=${key} tabindex="0">${example[key]}</pre>`)}
  </div>`;
}

function Origin({ described }) {
  const { model, command, started, version, packages, notes } = described;
  const rows = [
    [t('model'), model.name ?? model.pretrained],
    [t('hash'), model.sha256],
    [t('command'), command],
    [t('begun'), moment(started)],
    ['hunyuan', [version, ...Object.entries(packages).map(([name, value]) => `${name} ${value}`)].join(', ')],
    ...Object.entries(notes).map(([name, list]) => [t('data'), `${name}: ${list.join('; ')}`]),
  ];
  return html`<dl class="facts small">${rows.filter(([, value]) => value).map(([name, value], i) => html`<div key=${i} class="whole"><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}
