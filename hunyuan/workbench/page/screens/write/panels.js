/** The right-hand side of the write screen: results, versions, statistics. */

import { html } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { moment, number } from '../../lib/i18n.js';
import { Markdown } from '../../lib/markdown.js';
import { level, measure, splitSentences } from '../../lib/readability.js';
import { Button, copyText, Notice, Spinner, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/write.js';
import { nameOf } from './actions.js';

/** A summary or a list of ideas. `onInsert(text)`, `onTitle(text)`. */
export function Result({ running, result, onInsert, onTitle, onClose, onAgain }) {
  if (running) return html`<h3>${nameOf(running.action)}</h3>${running.text ? html`<${Markdown} text=${running.text} streaming actions=${false} />` : html`<${Spinner} />`}`;
  if (!result) return html`<p class="list-note">${t('noResult')}</p>`;
  const { action, items, replacement, notes } = result;
  return html`<h3>${nameOf(action)}</h3>
    ${notes.map((note) => html`<${Notice} key=${note.code + note.part} kind="warning" text=${note.text} />`)}
    ${items
      ? html`<ol class="ideas">
          ${items.map(
            (item, i) => html`<li key=${i}>
              <p>${item}</p>
              <div>
                ${action === 'title' ? html`<${Button} size="small" onClick=${() => onTitle(item)}>${t('useAsTitle')}</>` : html`<${Button} size="small" onClick=${() => onInsert(item)}>${t('insert')}</>`}
                <${Button} kind="quiet" size="small" icon="copy" label=${t('copy')} onClick=${() => copyText(item)} />
              </div>
            </li>`,
          )}
        </ol>`
      : html`<${Markdown} text=${replacement} actions=${false} />`}
    <div class="panel-actions">
      ${!items && html`<${Button} onClick=${() => onInsert(replacement)}>${t('insert')}</>`}
      <${Button} icon="copy" onClick=${() => copyText(replacement)}>${t('copy')}</>
      <${Button} kind="quiet" icon="retry" onClick=${onAgain}>${t('again')}</>
      <${Button} kind="quiet" onClick=${onClose}>${t('close')}</>
    </div>`;
}

/** The versions that are kept, latest first. `onCompare(version)`, `onRestore(n)`. */
export function Versions({ draft, onCompare, onRestore }) {
  const path = `/workbench/write/${draft.id}/versions`;
  const { value, error, loading } = useAsync((signal) => api.get(path, { signal }), [draft.id, draft.version]);
  if (error) return html`<${Notice} kind="error" text=${error.message} />`;
  if (!value) return loading && html`<${Spinner} />`;
  const compare = async (n) => onCompare(await api.get(`${path}/${n}`));
  return html`<ol class="version-list">
    ${value.versions.map(
      (one) => html`<li key=${one.version}>
        <div class="version-line">
          <strong>${t('version', { n: one.version })}</strong>
          <span>${one.version === draft.version ? t('current') : moment(one.created)}</span>
        </div>
        <small>${one.author === 'user' ? t('byUser') : authorOf(one.author)} · ${t('characterCount', { n: number(one.characters) })}</small>
        ${one.version !== draft.version && html`<div>
          <${Button} size="small" icon="split" onClick=${() => compare(one.version)}>${t('compare')}</>
          <${Button} size="small" kind="quiet" icon="undo" onClick=${() => onRestore(one.version)}>${t('restore')}</>
        </div>`}
      </li>`,
    )}
  </ol>`;
}

const AUTHORS = new Set(['draft', 'continue', 'polish', 'rewrite', 'shorten', 'expand', 'translate', 'restore']);
const authorOf = (author) => (AUTHORS.has(author) ? nameOf(author) : author);

/** Counts and readability. */
export function Statistics({ text }) {
  const found = measure(text);
  const judged = level(found);
  const rows = [
    ['stat_words', number(found.words)],
    found.han > 0 && ['stat_han', number(found.han)],
    ['stat_characters', number(found.characters)],
    ['stat_charactersWithoutSpaces', number(found.charactersWithoutSpaces)],
    ['stat_sentences', number(found.sentences)],
    ['stat_paragraphs', number(found.paragraphs)],
    ['stat_minutes', readingTime(found.minutes)],
    [found.language === 'zh' ? 'stat_sentenceLengthHan' : 'stat_sentenceLength', number(found.sentenceLength)],
    found.ease !== null && ['stat_ease', number(found.ease, 0)],
    judged && ['stat_level', t(`level_${judged}`)],
  ];
  const longest = splitSentences(text)
    .sort((a, b) => b.length - a.length)
    .slice(0, 3)
    .filter((sentence) => sentence.length > 60);
  return html`<dl class="statistics">
      ${rows.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${t(name)}</dt><dd>${value}</dd></div>`)}
    </dl>
    ${longest.length > 0 && html`<h3>${t('longSentences')}</h3><ul class="long-sentences">${longest.map((sentence) => html`<li key=${sentence}>${sentence}</li>`)}</ul>`}
    ${found.ease !== null && html`<p class="field-hint">${t('statsHint')}</p>`}`;
}

/** Minutes as a reader says them. */
export const readingTime = (minutes) => (minutes < 1 ? t('underMinute') : t('minutes', { n: number(minutes, 0) }));
