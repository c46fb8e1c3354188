/** Files that go with a question: being read, read, or refused. */

import { html, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { bytes, number } from '../../lib/i18n.js';
import { Button, Dialog, Icon, Notice, Spinner, toast, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/chat.js';

const ROOT = '/workbench/chat/attachments';

/** The files of a question being written -> {items, add(files), remove(item), clear, ready, busy}. */
export function useAttachments() {
  const [items, setItems] = useState([]);
  const count = useRef(0);
  const change = (key, part) => setItems((all) => all.map((one) => (one.key === key ? { ...one, ...part } : one)));

  const add = (files) => {
    for (const file of files) {
      const key = ++count.current;
      const controller = new AbortController();
      setItems((all) => [...all, { key, name: file.name, controller, attachment: null, part: 0 }]);
      api
        .upload(`${ROOT}?name=${encodeURIComponent(file.name)}`, file, {
          signal: controller.signal,
          onProgress: (sent, total) => change(key, { part: sent / total }),
        })
        .then(
          (attachment) => change(key, { attachment }),
          (error) => {
            setItems((all) => all.filter((one) => one.key !== key));
            if (error.name !== 'AbortError') toast(`${file.name}: ${error.message}`, { kind: 'error', seconds: 8 });
          },
        );
    }
  };
  const remove = (item) => {
    if (item.attachment) api.delete(`${ROOT}/${item.attachment.id}`).catch(() => {});
    else item.controller.abort();
    setItems((all) => all.filter((one) => one !== item));
  };
  return {
    items,
    add,
    remove,
    clear: () => setItems([]),
    ready: items.filter(({ attachment }) => attachment).map(({ attachment }) => attachment),
    busy: items.some(({ attachment }) => !attachment),
  };
}

/** A file with what is known of it; a click shows the text that the model reads. */
export function AttachmentChip({ attachment, name, onRemove }) {
  const [open, setOpen] = useState(false);
  if (!attachment)
    return html`<span class="chip"><${Spinner} /><span class="chip-name">${t('uploading', { name })}</span>
      <${Button} kind="quiet" size="small" icon="close" label=${t('remove', { name })} onClick=${onRemove} /></span>`;
  const facts = t('fileFacts', {
    pages: attachment.pages && number(attachment.pages),
    tokens: attachment.tokens && number(attachment.tokens),
    size: bytes(attachment.size),
  });
  return html`<span class="chip">
    <button type="button" class="chip-open" onClick=${() => setOpen(true)}>
      <${Icon} name="file" size=${18} /><span class="chip-name">${attachment.name}</span><small>${facts}</small>
    </button>
    ${onRemove && html`<${Button} kind="quiet" size="small" icon="close" label=${t('remove', { name: attachment.name })} onClick=${onRemove} />`}
    ${open && html`<${Reader} attachment=${attachment} onClose=${() => setOpen(false)} />`}
  </span>`;
}

function Reader({ attachment, onClose }) {
  const { value, error } = useAsync((signal) => api.get(`${ROOT}/${attachment.id}`, { signal }), [attachment.id]);
  return html`<${Dialog} title=${attachment.name} onClose=${onClose}>
    ${(value?.notices ?? []).map((text) => html`<${Notice} kind="warning" text=${text.text ?? text} />`)}
    ${error && html`<${Notice} kind="error" text=${error.message} />`}
    ${value ? html`<div class="reader" tabindex="0">${value.text}</div>` : !error && html`<${Spinner} />`}
  </>`;
}
