/** Write: documents at the side, one on the canvas, what was found about it on the right. */

import { html, useEffect, useMemo, useRef, useState } from '../vendor/preact.js';
import { api } from '../lib/api.js';
import { moment, number } from '../lib/i18n.js';
import { SideList, useListing } from '../lib/listing.js';
import { Markdown } from '../lib/markdown.js';
import { GoodFor } from '../lib/model.js';
import { level, measure } from '../lib/readability.js';
import { copyText, Details, download, EmptyState, Menu, modalOpen, Notice, Page, Progress, Segmented, Spinner, Button, Tabs, toast, useAsync, useLatest } from '../lib/ui.js';
import { deleteLater } from '../lib/undo.js';
import { t } from '../texts/write.js';
import { ActionBar, ActionForm, nameOf, useAction } from './write/actions.js';
import { useDocument } from './write/document.js';
import { readingTime, Result, Statistics, Versions } from './write/panels.js';
import { Review } from './write/review.js';

const ROOT = '/workbench/write';
const titleOf = (one) => one.title || t('untitled');
const failed = (error) => toast(error.message, { kind: 'error' });

export default function Screen({ route, navigate }) {
  const listing = useListing(ROOT, 'documents');
  const draft = useDocument(route.id, ({ id, title, version, text }) =>
    listing.upsert({ id, title, version, characters: text.length, updated: Date.now() / 1000 }),
  );
  const [panel, setPanel] = useState(null);
  const [panelOpen, setPanelOpen] = useState(false);

  const make = async (body = {}, then = '') => {
    try {
      const made = await api.post(ROOT, body);
      listing.refresh();
      navigate(`write/${made.id}${then}`);
    } catch (error) {
      failed(error);
    }
  };
  const newKey = useLatest((event) => {
    if (!(event.ctrlKey || event.metaKey) || !event.shiftKey || event.key.toLowerCase() !== 'o') return;
    event.preventDefault();
    make();
  });
  useEffect(() => {
    addEventListener('keydown', newKey);
    return () => removeEventListener('keydown', newKey);
  }, []);

  const rename = async (item, title) => {
    if (draft && item.id === draft.id) return draft.set({ title });
    try {
      const { version } = await api.get(`${ROOT}/${item.id}`);
      await api.put(`${ROOT}/${item.id}`, { version, title });
      listing.refresh();
    } catch (error) {
      failed(error);
    }
  };
  const remove = (item) => {
    deleteLater({
      id: item.id,
      text: t('deleted', { name: titleOf(item) }),
      run: (options) => api.delete(`${ROOT}/${item.id}`, {}, options),
      back: listing.refresh,
    });
    listing.refresh();
    if (item.id === route.id) navigate('write');
  };
  const side = html`<${SideList}
    listing=${listing}
    current=${route.id}
    link=${(item) => `write/${item.id}`}
    name=${titleOf}
    note=${(item) => `${moment(item.updated)} · ${t('characterCount', { n: number(item.characters) })}`}
    menu=${(item, edit) => [
      { icon: 'edit', label: t('rename'), run: edit },
      { icon: 'trash', label: t('delete'), danger: true, run: () => remove(item) },
    ]}
    onRename=${rename}
    searchLabel=${t('search')}
    newLabel=${t('newDocument')}
    onNew=${() => make()}
    emptyText=${t('noneYet')}
  />`;
  const examples = [
    { label: t('example1'), text: t('example1Text'), run: () => make({}, '?do=draft') },
    { label: t('example2'), text: t('example2Text'), run: () => make({ title: t('example2Title'), text: t('example2Body') }, '?do=polish') },
    { label: t('example3'), text: t('example3Text'), run: () => make({ title: t('example3Title'), text: t('example3Body') }, '?do=translate') },
  ];
  const ready = draft && !draft.error;
  return html`<${Page}
    bare
    name="write"
    title=${ready ? html`<${Title} draft=${draft} />` : t('title')}
    side=${side}
    sideLabel=${t('documents')}
    details=${ready && panel}
    detailsLabel=${t('about')}
    detailsOpen=${panelOpen}
    onDetails=${setPanelOpen}
    actions=${ready && html`<${SaveState} draft=${draft} /><${Export} draft=${draft} />`}
  >
    ${!route.id && html`<div class="page-body"><${EmptyState} icon="write" title=${t('emptyTitle')} text=${t('emptyText')} examples=${examples}>
      <${GoodFor} place="write" />
      <${Button} kind="primary" icon="plus" onClick=${() => make()}>${t('newDocument')}</>
    </></div>`}
    ${route.id && !draft && html`<div class="canvas-wait"><${Spinner} /></div>`}
    ${draft?.error && html`<div class="column"><${Notice} kind="error" text=${draft.error.message} action=${{ label: t('newDocument'), run: () => make() }} /></div>`}
    ${ready && html`<${Canvas} key=${draft.id} draft=${draft} todo=${route.query.do} navigate=${navigate} setPanel=${setPanel} openPanel=${() => setPanelOpen(true)} />`}
  </>`;
}

function Title({ draft }) {
  const press = (event) => {
    if (event.key !== 'Enter' || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    document.querySelector('.editor')?.focus();
  };
  return html`<input
    class="document-title"
    aria-label=${t('titleLabel')}
    placeholder=${t('untitled')}
    maxlength="200"
    value=${draft.title ?? ''}
    onInput=${(event) => draft.set({ title: event.target.value })}
    onKeyDown=${press}
  />`;
}

function SaveState({ draft }) {
  const said = draft.state === 'waiting' ? t('waiting', { text: draft.problem?.message ?? '' }) : t(draft.state === 'conflict' ? 'changed' : draft.state);
  return html`<span class=${`save-state ${draft.state}`} role="status">${said}</span>`;
}

function Export({ draft }) {
  const save = (ending, type) => download(`${titleOf(draft).replace(/[\\/:*?"<>|\s]+/g, ' ').trim().slice(0, 60)}.${ending}`, draft.text, type);
  return html`<${Menu}
    trigger=${{ icon: 'download', label: t('more') }}
    items=${[
      { icon: 'download', label: t('exportMarkdown'), run: () => save('md', 'text/markdown;charset=utf-8') },
      { icon: 'download', label: t('exportText'), run: () => save('txt', 'text/plain;charset=utf-8') },
      { icon: 'copy', label: t('copyAll'), run: () => copyText(draft.text) },
    ]}
  />`;
}

/** The editor with what stands over and under it. */
function Canvas({ draft, todo, navigate, setPanel, openPanel }) {
  const area = useRef(null);
  const [mode, setMode] = useState('edit');
  const [selection, setSelection] = useState([0, 0]);
  const [form, setForm] = useState(null);
  const [compared, setCompared] = useState(null); // a version, or 'conflict'
  const [tab, setTab] = useState('statistics');
  const { value } = useAsync((signal) => api.get(`${ROOT}/actions`, { signal }), []);
  const actions = value?.actions ?? [];
  const kindOf = (name) => actions.find(({ action }) => action === name)?.result;
  const action = useAction();
  const { running, result } = action;
  const busy = running?.action ?? result?.action;
  const aside = busy && ['beside', 'items'].includes(kindOf(busy));

  useSelection(area, setSelection);
  const selected = selection[1] > selection[0];
  const run = (name, fields) => {
    setForm(null);
    const kind = kindOf(name);
    if (!draft.text.trim() && !['draft', 'brainstorm'].includes(name)) return toast(t('nothing'));
    const span = selected || kind === 'insert' ? selection : null;
    if (['beside', 'items'].includes(kind)) {
      setTab('result');
      openPanel();
    }
    return action.run(name, { text: draft.text, span, fields });
  };
  // What an example wants done with the document it made.
  useEffect(() => {
    if (!todo || !actions.length) return;
    navigate(`write/${draft.id}`, { replace: true });
    if (todo === 'draft') setForm('draft');
    else run(todo, {});
  }, [todo, actions.length]);

  /** Put text into the editor as typing would, so that undo takes it back. */
  const type = (text, [start, end], author) => {
    setMode('edit');
    action.clear();
    // The editor must be on the screen again before it can be typed into.
    requestAnimationFrame(() => {
      typeInto(area.current, text, start, end);
      draft.set({ text: area.current.value }, author);
    });
  };
  const apply = (text, count) => {
    if (!count) {
      action.clear();
      toast(t('nothingApplied'));
      return;
    }
    type(text, result.span, result.action);
    toast(t('applied', { n: count }));
  };
  const again = () => action.run(result.action, { text: draft.text, span: result.span, fields: result.fields });
  const insert = (text) => type(text, [selection[1], selection[1]], 'user');
  const restore = (n) =>
    draft.restore(n).then(() => {
      setCompared(null);
      toast(t('restored', { n }));
    }, failed);

  useEffect(() => {
    const results = html`<${Result}
      running=${aside && running}
      result=${aside && result}
      onInsert=${insert}
      onTitle=${(title) => { draft.set({ title }); toast(t('titleSet')); }}
      onClose=${action.clear}
      onAgain=${again}
    />`;
    const shown = { result: () => results, versions: () => html`<${Versions} draft=${draft} onCompare=${(one) => setCompared(one)} onRestore=${restore} />`, statistics: () => html`<${Statistics} text=${draft.text} />` };
    setPanel(html`<${Details} title=${t('about')}>
      <${Tabs} label=${t('about')} current=${tab} onChange=${setTab} tabs=${['result', 'versions', 'statistics'].map((id) => ({ id, label: t(id) }))} />
      ${shown[tab]()}
    </>`);
  }, [tab, running, result, draft.version, draft.text, selection, t('title')]);

  const stop = useLatest(() => running && action.stop());
  useEffect(() => {
    const press = (event) => event.key === 'Escape' && !event.isComposing && !modalOpen() && stop();
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);

  const reviewing = result && !aside;
  const covered = Boolean(compared || reviewing || (running && !aside));
  const formOf = actions.find((one) => one.action === form);
  return html`<div class="canvas">
    <${ActionBar} actions=${actions} disabled=${covered || Boolean(running)} form=${form} onRun=${run} onForm=${(name) => setForm(form === name ? null : name)} />
    ${draft.state === 'conflict' && html`<${Conflict} draft=${draft} onCompare=${() => setCompared('conflict')} />`}
    ${action.error && html`<div class="canvas-notice"><${Notice} kind="error" text=${action.error.message} onClose=${action.clear} /></div>`}
    ${formOf && html`<${ActionForm} key=${form} action=${formOf} initial=${todoBrief(form, draft)} onRun=${(fields) => run(form, fields)} onClose=${() => setForm(null)} />`}
    ${running && html`<div class="canvas-notice"><${Progress} value=${(running.progress?.part ?? 1) - 1} max=${running.progress?.parts > 1 ? running.progress.parts : 0} text=${progressText(running)} onCancel=${action.stop} /></div>`}
    ${running && !aside && html`<${Preview} running=${running} text=${draft.text} />`}
    ${compared === 'conflict' && draft.conflict
      ? html`<${Review} title=${t('reviewConflict')} before=${draft.conflict.text} after=${draft.text} onClose=${() => setCompared(null)} onApply=${(text) => { draft.settle(text); setCompared(null); }} />`
      : compared && compared !== 'conflict'
        ? html`<${Review}
            look
            title=${t('reviewVersion', { n: compared.version })}
            before=${compared.text}
            after=${draft.text}
            onClose=${() => setCompared(null)}
            extra=${html`<span class="review-all"><${Button} onClick=${() => setCompared(null)}>${t('close')}</><${Button} kind="primary" icon="undo" onClick=${() => restore(compared.version)}>${t('restore')}</></span>`}
          />`
        : reviewing && html`<${Review}
            key=${result.replacement}
            title=${result.span[0] === result.span[1] ? t('reviewInsert') : `${t('review')}: ${nameOf(result.action)}`}
            before=${draft.text.slice(...result.span)}
            after=${result.replacement}
            lead=${draft.text.slice(0, result.span[0])}
            tail=${draft.text.slice(result.span[1])}
            notes=${result.notes}
            onApply=${apply}
            onAgain=${again}
            onClose=${action.clear}
          />`}
    ${mode === 'preview' && !covered && html`<div class="preview" tabindex="0"><${Markdown} text=${draft.text} /></div>`}
    <textarea
      ref=${area}
      class="editor"
      hidden=${covered || mode === 'preview'}
      aria-label=${t('textLabel')}
      placeholder=${t('placeholder')}
      spellcheck="true"
      value=${draft.text}
      onInput=${(event) => draft.set({ text: event.target.value })}
    ></textarea>
    ${!covered && html`<${Foot} text=${draft.text} selection=${selected ? selection : null} mode=${mode} setMode=${setMode} onOpen=${() => { setTab('statistics'); openPanel(); }} />`}
  </div>`;
}

const todoBrief = (form, draft) => (form === 'draft' && !draft.text && !draft.title ? { brief: t('example1Text') } : {});

function progressText({ action, progress }) {
  const name = nameOf(action);
  if (progress?.stage === 'read') return t('stage_read', progress);
  if (progress?.stage === 'combine') return t('stage_combine');
  return progress?.parts > 1 ? t('workingPart', { ...progress, action: name }) : t('working', { action: name });
}

/** What the model is writing, where it will stand. */
function Preview({ running, text }) {
  const [start, end] = running.span ?? [0, text.length];
  const box = useRef(null);
  useEffect(() => {
    const end = box.current.querySelector('.growing');
    end.scrollIntoView({ block: 'end' });
  }, [running.text]);
  return html`<div class="review-body" ref=${box} aria-busy="true"><div class="review-text">
    <span class="around">${text.slice(0, start)}</span><span class="growing">${running.text || '…'}</span><span class="around">${text.slice(end)}</span>
  </div></div>`;
}

function Conflict({ draft, onCompare }) {
  return html`<div class="canvas-notice"><${Notice} kind="warning" text=${t('conflictTitle')}>
    <div class="panel-actions">
      <${Button} size="small" onClick=${onCompare}>${t('compare')}</>
      <${Button} size="small" onClick=${() => draft.settle(draft.text)}>${t('keepMine')}</>
      <${Button} size="small" onClick=${() => draft.settle(draft.conflict.text)}>${t('takeTheirs')}</>
    </div>
  </></div>`;
}

/** Counts at the foot, of the selection where there is one; typing is not kept waiting for them. */
function Foot({ text, selection, mode, setMode, onOpen }) {
  const counted = useRested(selection ? text.slice(...selection) : text);
  const found = useMemo(() => measure(counted), [counted]);
  const judged = level(found);
  const said = [
    selection && t('selection'),
    t('wordCount', { n: number(found.words) }),
    t('characterCount', { n: number(found.characters) }),
    found.words > 0 && readingTime(found.minutes),
    judged && t(`level_${judged}`),
  ];
  return html`<footer class="canvas-foot">
    <${Segmented} label=${t('view')} value=${mode} onChange=${setMode} options=${[{ value: 'edit', label: t('edit') }, { value: 'preview', label: t('preview') }]} />
    <button type="button" class="counts" title=${t('statistics')} onClick=${onOpen}>${said.filter(Boolean).join(' · ')}</button>
  </footer>`;
}

/** A value a moment after it stopped changing. */
function useRested(value) {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), 250);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}

/** Follow what is selected in the editor, also after it has lost the focus. */
function useSelection(area, set) {
  useEffect(() => {
    const look = () => {
      const { current } = area;
      if (current && document.activeElement === current) set([current.selectionStart, current.selectionEnd]);
    };
    document.addEventListener('selectionchange', look);
    // Older browsers tell of it only here.
    area.current.addEventListener('select', look);
    return () => document.removeEventListener('selectionchange', look);
  }, []);
}

/** Replace a span of a text area by typing, which its undo knows. */
function typeInto(area, text, start, end) {
  area.focus();
  area.setSelectionRange(start, end);
  const done = text === '' ? start === end || document.execCommand('delete') : document.execCommand('insertText', false, text);
  if (!done) area.setRangeText(text, start, end, 'end');
}
