/** The list at the side of a screen: searched, in pages, with a menu to each entry. */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js';
import { api } from './api.js';
import { moment, texts } from './i18n.js';
import { isGone } from './undo.js';
import { Button, Icon, Menu, Notice } from './ui.js';

const t = texts({
  en: { actions: 'Actions for {name}', more: 'Show more', nothing: 'Nothing found', rename: 'New name' },
  zh: { actions: '“{name}”的操作', more: '显示更多', nothing: '没有找到', rename: '新名称' },
});

/**
 * The entries of `GET path?query=&after=` under `field`, latest first ->
 * {items, query, setQuery, hasMore, more, error, refresh, upsert}. `upsert(item)` puts a changed or
 * new one in its place without asking the server.
 */
export function useListing(path, field) {
  const [query, setQuery] = useState('');
  const [items, setItems] = useState(null);
  const [next, setNext] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  const asked = useRef(0);

  const load = async (after) => {
    const mine = ++asked.current;
    try {
      const search = new URLSearchParams({ ...(query.trim() && { query: query.trim() }), ...(after && { after }) });
      const page = await api.get(`${path}?${search}`);
      if (mine !== asked.current) return;
      setItems((old) => (after ? [...old, ...page[field].filter(({ id }) => !old.some((one) => one.id === id))] : page[field]));
      setNext(page.next ?? null);
      setError(null);
    } catch (problem) {
      if (mine === asked.current) setError(problem);
    }
  };
  useEffect(() => {
    const timer = setTimeout(load, query ? 200 : 0);
    return () => clearTimeout(timer);
  }, [query, turn]);

  const upsert = (item) =>
    setItems((old) => {
      if (old === null) return old;
      const at = old.findIndex(({ id }) => id === item.id);
      if (at < 0) return query.trim() ? old : [item, ...old];
      const merged = { ...old[at], ...item };
      return old.map((one, i) => (i === at ? merged : one));
    });
  return {
    items: items?.filter(({ id }) => !isGone(id)) ?? null,
    query,
    setQuery,
    hasMore: next !== null,
    more: () => load(next),
    error,
    refresh: () => setTurn((n) => n + 1),
    upsert,
  };
}

/**
 * Draw a listing. `link(item)` is where an entry leads, `name(item)` its title, `note(item)` the
 * small line, `menu(item, rename)` its actions; `rename()` starts to edit the name, which ends in
 * `onRename(item, name)`. `head` stands above, `newLabel` and `onNew` make an entry.
 */
export function SideList({ listing, current, link, name, note, menu, onRename, searchLabel, newLabel, onNew, emptyText, extra }) {
  const [renaming, setRenaming] = useState(null);
  const { items, query, setQuery, error } = listing;
  return html`<div class="list-head">
      <span class="list-search">
        <${Icon} name="search" size=${16} />
        <input type="search" aria-label=${searchLabel} placeholder=${searchLabel} autocomplete="off" value=${query} onInput=${(event) => setQuery(event.target.value)} />
      </span>
      <${Button} icon="plus" label=${newLabel} onClick=${onNew} />
      ${extra}
    </div>
    <div class="list">
      ${error && html`<${Notice} kind="error" text=${error.message} />`}
      ${items?.length === 0 && html`<p class="list-note">${query.trim() ? t('nothing') : emptyText}</p>`}
      <ul>
        ${items?.map((item) => {
          const title = name(item);
          return html`<li key=${item.id} class=${`list-item ${item.id === current ? 'current' : ''}`}>
            ${renaming === item.id
              ? html`<${Rename}
                  title=${title}
                  onDone=${(text) => {
                    setRenaming(null);
                    if (text && text !== title) onRename(item, text);
                  }}
                />`
              : html`<a href=${`#/${link(item)}`} aria-current=${item.id === current ? 'page' : undefined} title=${title}>
                    <span>${item.pinned && html`<${Icon} name="pin" size=${14} />`}${title}</span>
                    <small>${item.match ? html`<${Match} match=${item.match} />` : note ? note(item) : moment(item.updated)}</small>
                  </a>
                  <${Menu} trigger=${{ icon: 'more', size: 'small', label: t('actions', { name: title }) }} items=${menu(item, () => setRenaming(item.id))} />`}
          </li>`;
        })}
      </ul>
      ${listing.hasMore && html`<${Button} kind="quiet" onClick=${listing.more}>${t('more')}</>`}
    </div>`;
}

/** A piece of text with the found places marked. */
function Match({ match: { text, spans } }) {
  const parts = [];
  let at = 0;
  for (const [start, end] of spans) {
    parts.push(text.slice(at, start), html`<mark>${text.slice(start, end)}</mark>`);
    at = end;
  }
  return [...parts, text.slice(at)];
}

/** A name being edited in place: Enter or leaving takes it, Escape leaves it as it was. */
export function Rename({ title, onDone }) {
  const ref = useRef(null);
  const done = useRef(false);
  useLayoutEffect(() => ref.current.select(), []);
  const end = (text) => {
    if (done.current) return;
    done.current = true;
    onDone(text);
  };
  const press = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter') end(event.target.value.trim());
    if (event.key === 'Escape') {
      event.stopPropagation();
      end(null);
    }
  };
  return html`<input class="rename" ref=${ref} aria-label=${t('rename')} defaultValue=${title} maxlength="200" onKeyDown=${press} onBlur=${(event) => end(event.target.value.trim())} />`;
}
