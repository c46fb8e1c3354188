/** Where a question is written. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { number } from '../../lib/i18n.js';
import { Button, Notice, TextArea, useLatest } from '../../lib/ui.js';
import { t } from '../../texts/chat.js';
import { AttachmentChip } from './attachments.js';

/**
 * `onSend(text)`, `onStop()`. `conversation` null: not made yet. `refusal` {message, retry}: what
 * the server said of the last question, and how to ask it all the same.
 */
export function Composer({ conversation, system, answering, attachments, refusal, text, setText, onSend, onStop }) {
  const area = useRef(null);
  const picker = useRef(null);
  const count = useCount(conversation, system, text, attachments.ready, answering);
  const canSend = !answering && !attachments.busy && text.trim() !== '';
  useEffect(() => {
    // On a touch screen focus would open the keyboard over the page.
    if (matchMedia('(pointer: fine)').matches) area.current.focus();
  }, [conversation?.id]);

  const send = () => canSend && onSend(text);
  const press = (event) => {
    // While an input method composes, Enter chooses a candidate; Safari ends the composition before
    // the key arrives and marks the key with code 229.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send();
  };
  const paste = (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    attachments.add(event.clipboardData.files);
  };
  const pick = () => {
    attachments.add(picker.current.files);
    picker.current.value = '';
  };
  return html`<form class="composer" onSubmit=${(event) => { event.preventDefault(); send(); }}>
    ${refusal && html`<${Notice} kind="warning" text=${refusal.message} action=${refusal.retry && { label: t('trim'), run: refusal.retry }} onClose=${refusal.close} />`}
    <div class="composer-box">
      ${attachments.items.length > 0 &&
      html`<ul class="attachments">
        ${attachments.items.map((item) => html`<li key=${item.key}><${AttachmentChip} attachment=${item.attachment} name=${item.name} onRemove=${() => attachments.remove(item)} /></li>`)}
      </ul>`}
      <${TextArea} inputRef=${area} value=${text} onInput=${setText} most=${280} aria-label=${t('message')} placeholder=${t('ask')} onKeyDown=${press} onPaste=${paste} />
      <div class="composer-line">
        <input ref=${picker} type="file" multiple hidden accept=".txt,.md,.markdown,.pdf,text/*,application/pdf" aria-label=${t('attach')} onChange=${pick} />
        <${Button} kind="quiet" icon="attach" label=${t('attach')} onClick=${() => picker.current.click()} />
        <${Count} count=${count} />
        ${answering
          ? html`<${Button} kind="primary" class="send" icon="stop" label=${t('stop')} onClick=${onStop} />`
          : html`<${Button} kind="primary" class="send" type="submit" icon="send" label=${t('send')} disabled=${!canSend} />`}
      </div>
    </div>
  </form>`;
}

/** How much of the context the conversation and the draft would fill, asked when typing rests. */
function useCount(conversation, system, text, attachments, answering) {
  const [count, setCount] = useState(null);
  const ids = attachments.map(({ id }) => id);
  const ask = useLatest(async (signal) => {
    const body = { conversation: conversation?.id ?? null, content: text, attachments: ids };
    if (!conversation) body.system = system || null;
    const answer = await api.post('/workbench/chat/count', body, { signal }).catch(() => null);
    if (answer && !signal.aborted) setCount(answer);
  });
  useEffect(() => {
    if (answering) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(() => ask(controller.signal), 400);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [conversation?.id, conversation?.active, conversation?.system, system, text, ids.join(), answering]);
  return count;
}

function Count({ count }) {
  if (!count || count.tokens === null) return html`<span class="count"></span>`;
  const { tokens, context } = count;
  const over = context !== null && tokens >= context;
  const near = context !== null && tokens > 0.85 * context;
  const shown = context === null ? t('tokensOnly', { tokens: number(tokens) }) : t('tokens', { tokens: number(tokens), context: number(context) });
  return html`<span class=${`count ${over ? 'over' : near ? 'near' : ''}`} title=${over ? t('tooLong') : t('tokensTitle')}>${shown}</span>`;
}
