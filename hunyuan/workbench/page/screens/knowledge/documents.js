/** The documents of a collection: sending, reading, deleting, and how far each is. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { bytes } from '../../lib/i18n.js';
import { Button, Dialog, Icon, Progress, toast } from '../../lib/ui.js';
import { t } from '../../texts/knowledge.js';

const AT_ONCE = 2;
let ids = 0;

/** {list, uploads, add(files), cancel(upload), remove(document)}; `list` is null at first. */
export function useDocuments(root, collection, onChange) {
  const [list, setList] = useState(null);
  const [uploads, setUploads] = useState([]);
  const [turn, setTurn] = useState(0);
  const queue = useRef([]);
  const running = useRef(0);

  useEffect(() => {
    const controller = new AbortController();
    const watch = async () => {
      try {
        const path = `${root}/collections/${collection}/progress`;
        for await (const event of api.events(path, undefined, { method: 'GET', signal: controller.signal }))
          if (event.type === 'progress') setList(event.documents);
        if (turn) onChange();
      } catch (error) {
        if (error.name === 'AbortError') return;
        toast(error.message, { kind: 'error' });
        setList((old) => old ?? []);
      }
    };
    watch();
    return () => controller.abort();
  }, [collection, turn]);

  const change = (id, part) => setUploads((all) => all.map((one) => (one.id === id ? { ...one, ...part } : one)));
  const drop = (id) => setUploads((all) => all.filter((one) => one.id !== id));
  const next = () => {
    if (running.current >= AT_ONCE || !queue.current.length) return;
    const upload = queue.current.shift();
    running.current += 1;
    api
      .upload(`${root}/collections/${collection}/documents?name=${encodeURIComponent(upload.file.name)}`, upload.file, {
        signal: upload.controller.signal,
        onProgress: (sent, total) => change(upload.id, { sent, total }),
      })
      .then(
        ({ document, new: fresh }) => {
          if (!fresh) toast(t('duplicate', { name: document.name }));
          setList((old) => [...(old ?? []).filter((one) => one.id !== document.id), document]);
          setTurn((n) => n + 1);
        },
        (error) => error.name !== 'AbortError' && toast(error.message, { kind: 'error', seconds: 8 }),
      )
      .finally(() => {
        running.current -= 1;
        drop(upload.id);
        next();
      });
    next();
  };
  const add = (files) => {
    const more = files.map((file) => ({ id: ++ids, file, sent: 0, total: file.size, controller: new AbortController() }));
    setUploads((all) => [...all, ...more]);
    queue.current.push(...more);
    next();
  };
  const cancel = (upload) => {
    queue.current = queue.current.filter((one) => one.id !== upload.id);
    upload.controller.abort();
    drop(upload.id);
  };
  const remove = async (document) => {
    try {
      await api.delete(`${root}/documents/${document.id}`);
    } catch (error) {
      if (error.status !== 404) return toast(error.message, { kind: 'error' });
    }
    setList((old) => old.filter((one) => one.id !== document.id));
    setTurn((n) => n + 1);
  };
  return { list, uploads, add, cancel, remove };
}

/** The list with its drop zone. */
export function Documents({ documents, suffixes, size, over, folded, onOpen }) {
  const picker = useRef(null);
  const [asked, setAsked] = useState(null);
  const [open, setOpen] = useState(!folded);
  useEffect(() => setOpen(!folded), [folded]);
  const { list, uploads } = documents;
  const many = (list?.length ?? 0) + uploads.length;
  return html`<section class="documents" aria-label=${t('documents')}>
    <div class=${`drop ${over ? 'over' : ''} ${many ? 'small' : ''}`}>
      <${Icon} name="upload" size=${many ? 18 : 24} />
      <p>
        ${over ? t('dropNow') : html`<span class="drop-words">${t('dropHere')}</span><button type="button" class="link" onClick=${() => picker.current.click()}>${t('choose')}</button>`}
      </p>
      ${many > 0 && html`<${Button} kind="quiet" size="small" icon=${open ? 'up' : 'down'} aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>${t('documents')} (${many})</>`}
      ${!many && html`<p class="drop-kinds">${t('kinds', { size })}</p>`}
      <input
        ref=${picker}
        class="unseen"
        type="file"
        multiple
        tabindex="-1"
        aria-label=${t('addFiles')}
        accept=${suffixes.join(',')}
        onChange=${(event) => {
          documents.add([...event.target.files]);
          event.target.value = '';
        }}
      />
    </div>
    ${uploads.map(
      (one) => html`<div key=${one.id} class="upload">
        <${Progress} value=${one.sent} max=${one.total} text=${t('uploading', { name: one.file.name })} onCancel=${() => documents.cancel(one)} />
      </div>`,
    )}
    ${open && list?.length > 0 && html`<ul class="document-list">
      ${list.map((one) => html`<${DocumentRow} key=${one.id} document=${one} onOpen=${onOpen} onRemove=${() => (one.busy && one.state !== 'ready' ? documents.remove(one) : setAsked(one))} />`)}
    </ul>`}
    ${asked && html`<${Dialog}
      title=${t('deleteDocument')}
      onClose=${() => setAsked(null)}
      actions=${html`<${Button} onClick=${() => setAsked(null)}>${t('keepIt')}</><${Button} kind="danger" onClick=${() => { documents.remove(asked); setAsked(null); }}>${t('delete')}</>`}
    >${t('deleteDocumentText', { name: asked.name })}</>`}
  </section>`;
}

function DocumentRow({ document, onOpen, onRemove }) {
  const { state, pages_read: read, pages } = document;
  const busy = state === 'waiting' || state === 'reading';
  const text = {
    waiting: () => t('waiting'),
    reading: () => (pages ? t('readingPages', { n: read, of: pages }) : t('reading')),
    ready: () => (document.busy ? t('embedding', { n: document.embedded, of: document.chunks }) : t('ready', document)),
    failed: () => t('failed'),
  }[state]();
  return html`<li class=${`document ${state}`}>
    <${Icon} name=${state === 'failed' ? 'warning' : 'file'} size=${18} />
    <div class="document-text">
      ${state === 'ready' ? html`<button type="button" class="link plain" onClick=${() => onOpen(document)}>${document.name}</button>` : html`<span>${document.name}</span>`}
      ${busy ? html`<${Progress} value=${read} max=${pages} text=${text} onCancel=${onRemove} />` : html`<small>${state === 'failed' ? document.error : `${text} · ${bytes(document.bytes)}`}</small>`}
      ${document.textless > 0 && state === 'ready' && html`<small class="textless">${t('textless', { n: document.textless })}</small>`}
    </div>
    ${!busy && html`<${Button} kind="quiet" size="small" icon="trash" label=${`${t('delete')}: ${document.name}`} onClick=${onRemove} />`}
  </li>`;
}
