/** Result files as tables. */

import { html } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language, number } from '../../lib/i18n.js';
import { EmptyState, Notice, Section, Spinner, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/models.js';

export function Benchmarks() {
  const results = useAsync((signal) => api.get('/workbench/benchmarks', { signal }), [language()]);
  if (results.error) return html`<${Notice} kind="error" text=${results.error.message} />`;
  if (!results.value) return html`<${Spinner} />`;
  const { files } = results.value;
  if (!files.length) return html`<${EmptyState} icon="chart" title=${t('noResults')} text=${t('noResultsText')} />`;
  return html`<div class="results">${files.map((file, i) => html`<${Section} key=${file.title} title=${file.title} open=${i === 0}><${File} file=${file} /></>`)}</div>`;
}

function File({ file }) {
  if (file.problem) return html`<${Notice} kind="warning" text=${t('unreadable', { text: file.problem })} />`;
  return html`
    ${file.facts.length > 0 && html`<dl class="facts small">${file.facts.map(([name, value]) => html`<div key=${name}><dt>${readable(name)}</dt><dd>${shown(value)}</dd></div>`)}</dl>`}
    ${file.tables.map((table) => html`<figure key=${table.name} class="result">
      <figcaption>${readable(table.name)}</figcaption>
      <div class="table-frame" tabindex="0" role="region" aria-label=${readable(table.name)}>
        <table>
          <thead><tr>${table.columns.map((name, i) => html`<th key=${i} class=${i ? 'number' : ''}>${readable(name)}</th>`)}</tr></thead>
          <tbody>${table.rows.map((row, i) => html`<tr key=${i}>${row.map((cell, j) => html`<td key=${j} class=${typeof cell === 'number' || (j && isNumeric(cell)) ? 'number' : ''}>${shown(cell)}</td>`)}</tr>`)}</tbody>
        </table>
      </div>
      ${table.left_out.rows > 0 && html`<p class="field-hint">${t('leftOut', { n: table.left_out.rows })}</p>`}
    </figure>`)}`;
}

const readable = (name) => name.replaceAll('_', ' ');
const isNumeric = (cell) => typeof cell === 'string' && /^[-\d.]/.test(cell);

function shown(value) {
  if (value === null) return '–';
  if (value === true) return '✓';
  if (value === false) return '✗';
  if (typeof value === 'number') return Number.isInteger(value) ? number(value) : Math.abs(value) < 1e-3 ? value.toExponential(2) : number(value, 4);
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(value)) return new Date(value).toLocaleString(language() === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'medium', timeStyle: 'short' });
  return value;
}
