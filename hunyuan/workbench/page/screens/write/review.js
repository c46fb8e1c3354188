/** A text as it was and as it is proposed to be; each change is accepted or rejected. */

import { html, useEffect, useMemo, useRef, useState } from '../../vendor/preact.js';
import { applied, changes } from '../../lib/diff.js';
import { Button, Notice, Segmented, useKept, useMedia } from '../../lib/ui.js';
import { t } from '../../texts/write.js';

/**
 * `before` and `after` are compared; `lead` and `tail` stand around them. `onApply(text, taken)`
 * when every change is decided, `onAgain` asks the model once more. `look` true: nothing can be
 * accepted, `extra` stands instead of the buttons.
 */
export function Review({ title, before, after, lead = '', tail = '', notes = [], onApply, onAgain, onClose, look = false, extra }) {
  const parts = useMemo(() => changes(before, after), [before, after]);
  const all = parts.filter(({ id }) => id !== undefined);
  const [decided, setDecided] = useState(() => new Map());
  const [current, setCurrent] = useState(all[0]?.id ?? null);
  const [kept, setView] = useKept('write.view', 'inline');
  const roomy = useMedia('(min-width: 48rem)');
  const view = roomy ? kept : 'inline';
  const box = useRef(null);
  const left = all.filter(({ id }) => !decided.has(id)).length;
  const at = all.findIndex(({ id }) => id === current);

  useEffect(() => {
    box.current.querySelector('.change.current')?.scrollIntoView({ block: 'nearest' });
  }, [current, view]);

  const finish = (all) => onApply(applied(parts, (id) => all.get(id)), [...all.values()].filter(Boolean).length);
  const decide = (id, take) => {
    const next = new Map(decided).set(id, take);
    setDecided(next);
    if (next.size === all.length) {
      finish(next);
      return;
    }
    const order = [...all.slice(at + 1), ...all.slice(0, at + 1)];
    setCurrent(order.find((one) => !next.has(one.id)).id);
  };
  const decideRest = (take) => finish(new Map(all.map(({ id }) => [id, decided.get(id) ?? take])));
  const step = (by) => setCurrent(all[(at + by + all.length) % all.length].id);
  const press = (event) => {
    if (event.target.closest('button') || look || current === null) return;
    const run = { Enter: () => decide(current, true), Delete: () => decide(current, false), Backspace: () => decide(current, false), ArrowDown: () => step(1), ArrowUp: () => step(-1) }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  };
  const mark = (change) => {
    const take = decided.get(change.id);
    return {
      change,
      state: take === undefined ? 'open' : take ? 'taken' : 'left',
      current: change.id === current && !look,
      number: all.indexOf(change) + 1,
      count: all.length,
      choose: () => setCurrent(change.id),
    };
  };
  const context = (text) => text && html`<span class="around">${text}</span>`;
  const status = all.length === 0 ? t('noChanges') : look ? t('changeCount', { n: all.length }) : t('changesLeft', { left, all: all.length });
  return html`<section class="review" aria-label=${title}>
    <header class="review-head">
      <h2>${title}</h2>
      <span class="review-status" role="status">${status}</span>
      ${roomy && html`<${Segmented} label=${t('view')} value=${kept} onChange=${setView} options=${[{ value: 'inline', label: t('inline') }, { value: 'side', label: t('sideBySide') }]} />`}
      <${Button} kind="quiet" icon="close" label=${t('close')} onClick=${onClose} />
    </header>
    ${notes.map((note) => html`<${Notice} key=${note.code + note.part} kind="warning" text=${note.text} />`)}
    <div class="review-body" ref=${box} tabindex="0" onKeyDown=${press}>
      ${view === 'inline'
        ? html`<div class="review-text">${context(lead)}${parts.map((part) => (part.id === undefined ? part.same : html`<${Inline} key=${part.id} ...${mark(part)} />`))}${context(tail)}</div>`
        : html`<${SideBySide} parts=${parts} mark=${mark} />`}
    </div>
    <footer class="review-foot">
      ${look
        ? extra
        : html`${all.length > 0 && html`<span class="review-one">
            <${Button} kind="quiet" icon="up" label=${t('previousChange')} onClick=${() => step(-1)} />
            <${Button} kind="quiet" icon="down" label=${t('nextChange')} onClick=${() => step(1)} />
            <${Button} icon="check" onClick=${() => decide(current, true)}>${t('accept')}</>
            <${Button} icon="close" onClick=${() => decide(current, false)}>${t('reject')}</>
          </span>`}
          <span class="review-all">
            ${onAgain && html`<${Button} kind="quiet" icon="retry" onClick=${onAgain}>${t('again')}</>`}
            ${all.length > 0
              ? html`<${Button} onClick=${() => decideRest(false)}>${t(decided.size ? 'rejectRest' : 'rejectAll')}</>
                  <${Button} kind="primary" onClick=${() => decideRest(true)}>${t(decided.size ? 'acceptRest' : 'acceptAll')}</>`
              : html`<${Button} kind="primary" onClick=${onClose}>${t('done')}</>`}
          </span>`}
    </footer>
  </section>`;
}

function Inline({ change, state, current, number, count, choose }) {
  const { removed, added } = change;
  return html`<span class=${`change ${state} ${current ? 'current' : ''}`} onClick=${choose} role="group" aria-label=${t('changeLabel', { n: number, all: count })} aria-current=${current ? 'true' : undefined}>
    ${removed && state !== 'taken' && html`<del aria-label=${t('removedLabel', { text: removed })}>${removed}</del>`}
    ${added && state !== 'left' && html`<ins aria-label=${t('addedLabel', { text: added })}>${added}</ins>`}
  </span>`;
}

/** Two columns in rows that begin where both texts begin a line. */
function SideBySide({ parts, mark }) {
  const rows = [{ left: [], right: [] }];
  for (const part of parts) {
    if (part.id !== undefined) {
      const props = mark(part);
      if (part.removed) rows.at(-1).left.push(html`<${Half} ...${props} text=${part.removed} name="del" />`);
      if (part.added) rows.at(-1).right.push(html`<${Half} ...${props} text=${part.added} name="ins" />`);
      continue;
    }
    part.same.split(/(?<=\n)/).forEach((line, i) => {
      if (i > 0) rows.push({ left: [], right: [] });
      rows.at(-1).left.push(line);
      rows.at(-1).right.push(line);
    });
  }
  return html`<div class="review-columns">
    <div class="review-row names"><span>${t('before')}</span><span>${t('after')}</span></div>
    ${rows.map(({ left, right }, i) => html`<div class="review-row" key=${i}><div>${left}</div><div>${right}</div></div>`)}
  </div>`;
}

function Half({ name, text, state, current, choose }) {
  const inside = name === 'del' ? html`<del>${text}</del>` : html`<ins>${text}</ins>`;
  return html`<span class=${`change ${state} ${current ? 'current' : ''}`} onClick=${choose}>${inside}</span>`;
}
