/** Knowledge: collections at the side, documents and questions in the middle, sources on the right. */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js';
import { api } from '../lib/api.js';
import { bytes } from '../lib/i18n.js';
import { Button, Dialog, EmptyState, Menu, Notice, Page, Spinner, toast, useAsync, useLatest } from '../lib/ui.js';
import { t } from '../texts/knowledge.js';
import { Documents, useDocuments } from './knowledge/documents.js';
import { Source } from './knowledge/source.js';
import { AskBox, Thread, useThread } from './knowledge/thread.js';

const ROOT = '/workbench/knowledge';
const ALONE = 'alone';
const failed = (error) => error.name !== 'AbortError' && toast(error.message, { kind: 'error' });

export default function Screen({ route, navigate }) {
  const overview = useAsync((signal) => api.get(ROOT, { signal }), []);
  const [source, setSource] = useState(null);
  const [sourceOpen, setSourceOpen] = useState(false);
  const [asked, setAsked] = useState(null);
  const picker = useRef(null);
  const collections = overview.value?.collections ?? [];
  const current = collections.find((one) => one.id === route.id);
  const alone = route.id === ALONE;
  useEffect(() => setSourceOpen(false), [route.id]);

  const reload = overview.reload;
  const create = async (name, files = [], question = null) => {
    try {
      const made = await api.post(`${ROOT}/collections`, { name });
      overview.set((old) => ({ ...old, collections: [...old.collections, made] }));
      pending.set(made.id, { files, question });
      navigate(`knowledge/${made.id}`);
    } catch (error) {
      failed(error);
    }
  };
  const samples = async () => {
    const there = collections.find((one) => one.name === t('sampleName'));
    if (there) return navigate(`knowledge/${there.id}`);
    const files = await Promise.all(
      ['silk-road.en.md', 'silk-road.zh.md'].map(async (name) => new File([await (await api.raw(`/static/samples/knowledge/${name}`)).blob()], name)),
    ).catch((error) => failed(error) ?? null);
    return files && create(t('sampleName'), files, t('sampleQuestion1'));
  };
  const show = (place) => {
    setSource(place);
    setSourceOpen(true);
  };
  const removing = asked?.remove;
  const confirm = async () => {
    setAsked(null);
    try {
      await api.delete(`${ROOT}/collections/${removing.id}`);
      overview.set((old) => ({ ...old, collections: old.collections.filter((one) => one.id !== removing.id) }));
      if (removing.id === route.id) navigate('knowledge');
    } catch (error) {
      failed(error);
    }
  };
  const rename = async (collection, name) => {
    setAsked(null);
    if (!name.trim() || name === collection.name) return;
    try {
      const renamed = await api.patch(`${ROOT}/collections/${collection.id}`, { name });
      overview.set((old) => ({ ...old, collections: old.collections.map((one) => (one.id === renamed.id ? renamed : one)) }));
    } catch (error) {
      failed(error);
    }
  };
  const menu = (collection) => [
    { icon: 'edit', label: t('rename'), run: () => setAsked({ rename: collection }) },
    { icon: 'trash', label: t('delete'), danger: true, run: () => setAsked({ remove: collection }) },
  ];
  const side = html`<${Collections}
    collections=${collections}
    current=${route.id}
    menu=${menu}
    onNew=${() => setAsked({ create: true })}
  />`;
  const details = source && html`<${Source} root=${ROOT} place=${source} onMove=${setSource} />`;
  return html`<${Page}
    bare
    name="knowledge"
    title=${current?.name ?? (alone ? t('uncitedTitle') : t('title'))}
    subtitle=${current && t('counts', current)}
    actions=${current && html`<${Menu} trigger=${{ icon: 'more', label: current.name }} items=${menu(current)} />`}
    side=${side}
    sideLabel=${t('collections')}
    details=${details}
    detailsLabel=${t('source')}
    detailsOpen=${sourceOpen}
    onDetails=${setSourceOpen}
  >
    ${overview.error && html`<div class="column"><${Notice} kind="error" text=${overview.error.message} action=${{ label: t('retry'), run: reload }} /></div>`}
    ${!overview.value && !overview.error && html`<div class="knowledge-wait"><${Spinner} /></div>`}
    ${overview.value && !route.id && html`<div class="page-body">
      <${EmptyState}
        icon="knowledge"
        title=${t('emptyTitle')}
        text=${t('emptyText')}
        examples=${[
          { label: t('example1'), text: t('example1Text'), run: samples },
          { label: t('example2'), text: t('example2Text'), run: () => picker.current.click() },
          { label: t('example3'), text: t('example3Text'), run: () => navigate(`knowledge/${ALONE}`) },
        ]}
      />
      <input
        ref=${picker}
        class="unseen"
        type="file"
        multiple
        tabindex="-1"
        aria-label=${t('addFiles')}
        accept=${overview.value.limits.suffixes.join(',')}
        onChange=${(event) => event.target.files.length && create(t('defaultName'), [...event.target.files])}
      />
      <div class="column"><${Meaning} embedding=${overview.value.embedding} /></div>
    </div>`}
    ${overview.value && route.id && !current && !alone && html`<div class="column"><${Notice} kind="warning" text=${t('gone')} action=${{ label: t('backToAll'), run: () => navigate('knowledge') }} /></div>`}
    ${overview.value && current && html`<${Collection} key=${current.id} collection=${current} overview=${overview.value} onChange=${reload} onShow=${show} />`}
    ${overview.value && alone && html`<${Alone} />`}
    ${asked?.create && html`<${NameDialog} title=${t('newCollection')} name="" onClose=${() => setAsked(null)} onName=${(name) => { setAsked(null); create(name); }} />`}
    ${asked?.rename && html`<${NameDialog} title=${t('rename')} name=${asked.rename.name} onClose=${() => setAsked(null)} onName=${(name) => rename(asked.rename, name)} />`}
    ${removing && html`<${Dialog}
      title=${t('deleteCollection')}
      onClose=${() => setAsked(null)}
      actions=${html`<${Button} onClick=${() => setAsked(null)}>${t('keepIt')}</><${Button} kind="danger" onClick=${confirm}>${t('delete')}</>`}
    >${t('deleteCollectionText', { name: removing.name, n: removing.documents })}</>`}
  </>`;
}

/** What a new collection is to begin with, until its screen is drawn: files and a question. */
const pending = new Map();

function Collections({ collections, current, menu, onNew }) {
  return html`<div class="list-head">
      <${Button} icon="plus" class="collections-new" onClick=${onNew}>${t('newCollection')}</>
    </div>
    <nav class="list" aria-label=${t('collections')}>
      ${!collections.length && html`<p class="list-note">${t('noneYet')}</p>`}
      ${collections.map(
        (one) => html`<div key=${one.id} class=${`list-item ${one.id === current ? 'current' : ''}`}>
          <a href=${`#/knowledge/${one.id}`} aria-current=${one.id === current ? 'page' : undefined}>
            <span>${one.name}</span><small>${t('counts', one)}</small>
          </a>
          <${Menu} trigger=${{ icon: 'more', label: one.name, size: 'small' }} items=${menu(one)} />
        </div>`,
      )}
    </nav>`;
}

function NameDialog({ title, name, onClose, onName }) {
  const [value, setValue] = useState(name);
  const input = useRef(null);
  // Before the first key can arrive.
  useLayoutEffect(() => input.current.select(), []);
  const send = (event) => {
    event.preventDefault();
    if (value.trim()) onName(value.trim());
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="name-form" onSubmit=${send}>
      <input ref=${input} autofocus aria-label=${t('name')} placeholder=${t('defaultName')} maxlength="200" value=${value} onInput=${(event) => setValue(event.target.value)} />
      <${Button} kind="primary" type="submit" disabled=${!value.trim()}>${title}</>
    </form>
  </>`;
}

/** Says so where passages are found by words alone. */
function Meaning({ embedding }) {
  if (embedding.model) return null;
  return html`<${Notice} text=${html`<strong>${t('lexicalTitle')}</strong> ${embedding.error ?? t('lexicalText')}`} />`;
}

function Collection({ collection, overview, onChange, onShow }) {
  const documents = useDocuments(ROOT, collection.id, onChange);
  const thread = useThread(ROOT, collection.id);
  const [over, setOver] = useState(false);
  const later = useRef(null);
  const ask = useLatest((question, options) => thread.ask(question, options));
  useEffect(() => {
    const first = pending.get(collection.id);
    pending.delete(collection.id);
    if (!first) return;
    later.current = first.question;
    if (first.files.length) documents.add(first.files);
  }, []);
  const settled = documents.list?.length > 0 && !documents.uploads.length && documents.list.every((one) => !['waiting', 'reading'].includes(one.state));
  useEffect(() => {
    if (!settled || !later.current) return;
    ask(later.current);
    later.current = null;
  }, [settled]);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length) documents.add([...event.dataTransfer.files]);
  };
  const isSample = collection.name === t.table.en.sampleName || collection.name === t.table.zh.sampleName;
  const examples = isSample
    ? [1, 2, 3].map((n) => ({ label: t(`sampleQuestion${n}`), text: t(`sampleNote${n}`), run: () => thread.ask(t(`sampleQuestion${n}`)) }))
    : [];
  const empty = documents.list?.length === 0 && !documents.uploads.length;
  return html`<div
    class=${`knowledge ${over ? 'over' : ''}`}
    onDragOver=${(event) => {
      event.preventDefault();
      setOver(true);
    }}
    onDragLeave=${(event) => !event.currentTarget.contains(event.relatedTarget) && setOver(false)}
    onDrop=${drop}
  >
    <div class="page-body" tabindex="-1">
      <div class="column">
        <${Documents}
          documents=${documents}
          suffixes=${overview.limits.suffixes}
          size=${bytes(overview.limits.bytes)}
          over=${over}
          folded=${thread.turns.length > 0}
          onOpen=${(one) => onShow({ document: one.id, name: one.name, page: 1, span: null })}
        />
        <${Meaning} embedding=${overview.embedding} />
        ${!thread.turns.length && html`<${EmptyState}
          title=${t(empty ? 'askEmptyTitle' : 'askTitle')}
          text=${empty ? t('askEmptyText') : t('askText', { name: collection.name })}
          examples=${empty ? [] : examples}
        />`}
        <${Thread} thread=${thread} onShow=${onShow} busy=${documents.list?.some((one) => ['waiting', 'reading'].includes(one.state))} />
      </div>
    </div>
    <${AskBox} thread=${thread} placeholder=${t(empty ? 'placeholderAlone' : 'placeholder')} onAsk=${(question) => thread.ask(question, { alone: empty })} />
  </div>`;
}

/** Questions to the model itself. */
function Alone() {
  const thread = useThread(ROOT, null);
  return html`<div class="knowledge">
    <div class="page-body" tabindex="-1"><div class="column">
      ${!thread.turns.length && html`<${EmptyState} icon="knowledge" title=${t('uncitedTitle')} text=${t('example3Text')} />`}
      <${Thread} thread=${thread} onShow=${() => {}} />
    </div></div>
    <${AskBox} thread=${thread} placeholder=${t('placeholderAlone')} onAsk=${(question) => thread.ask(question)} />
  </div>`;
}
