/** The messages of a conversation, and what can be done with each. */

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../../vendor/preact.js';
import { language, number } from '../../lib/i18n.js';
import { Markdown } from '../../lib/markdown.js';
import { Button, copyText, Field, Icon, Menu, Notice, Spinner, TextArea, toast, useLatest } from '../../lib/ui.js';
import { deleteLater, isGone } from '../../lib/undo.js';
import { t } from '../../texts/chat.js';
import { AttachmentChip } from './attachments.js';

/** Messages drawn at first, and how many more when the reader comes near the first of them. */
const STEP = 40;
const NEAR = 48;

/**
 * The scrolling part. Who reads the end is taken along as it grows; nobody else is moved. Of a long
 * conversation only the end is drawn, and more when the reader goes up.
 */
export function Thread({ session, act }) {
  const whole = session.branch();
  const gone = whole.findIndex(({ message }) => isGone(message.id));
  const branch = gone < 0 ? whole : whole.slice(0, gone);
  const [count, setCount] = useState(STEP);
  const [atEnd, setAtEnd] = useState(true);
  const box = useRef(null);
  const inside = useRef(null);
  const first = useRef(null);
  const stick = useRef(true);
  const height = useRef(0);
  const hidden = Math.max(0, branch.length - count);

  const toEnd = () => {
    stick.current = true;
    box.current.scrollTop = box.current.scrollHeight;
  };
  const scrolled = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current;
    stick.current = scrollHeight - scrollTop - clientHeight < NEAR;
    setAtEnd(stick.current);
  };
  // A question of one's own is always followed.
  const asked = branch.findLast(({ message }) => message.role === 'user')?.message.id;
  useLayoutEffect(toEnd, [session, asked]);
  useEffect(() => {
    const observer = new ResizeObserver(() => stick.current && toEnd());
    observer.observe(inside.current);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  // Earlier messages come in above; what the reader sees stays where it is.
  const more = useLatest(() => {
    height.current = box.current.scrollHeight - box.current.scrollTop;
    setCount((n) => n + STEP);
  });
  useLayoutEffect(() => {
    if (height.current) box.current.scrollTop = box.current.scrollHeight - height.current;
    height.current = 0;
  }, [count]);
  useEffect(() => {
    if (!hidden) return undefined;
    const watcher = new IntersectionObserver((seen) => seen[0].isIntersecting && more(), { root: box.current, rootMargin: '600px' });
    watcher.observe(first.current);
    return () => watcher.disconnect();
  }, [hidden]);

  return html`<div class="thread-frame">
    <div class="thread" ref=${box} onScroll=${scrolled} tabindex="0" role="log" aria-label=${t('conversations')} aria-busy=${String(Boolean(session.answering))}>
      <ol class="messages" ref=${inside}>
        ${hidden > 0 && html`<li class="earlier" ref=${first}><${Button} kind="quiet" size="small" onClick=${more}>${t('earlier')}</></li>`}
        ${branch.slice(hidden).map(
          ({ message, siblings }, i) => html`<${Message}
            key=${message.id}
            message=${message}
            siblings=${siblings}
            last=${hidden + i === branch.length - 1}
            writing=${session.answering?.id === message.id}
            busy=${Boolean(session.answering)}
            act=${act}
            session=${session}
          />`,
        )}
        ${session.answering && session.answering.id === null && html`<li class="message assistant" key="waiting"><${Waiting} /></li>`}
      </ol>
    </div>
    ${!atEnd && html`<${Button} class="to-end" icon="bottom" label=${t('toEnd')} onClick=${toEnd} />`}
  </div>`;
}

function Waiting() {
  return html`<p class="waiting"><${Spinner} />${t('waiting')}</p>`;
}

/** Drawn anew only if something of it changed: the other thousand messages cost nothing. */
function Message({ message, siblings, last, writing, busy, act, session }) {
  const [editing, setEditing] = useState(false);
  const [commenting, setCommenting] = useState(false);
  return useMemo(
    () => html`<li class=${`message ${message.role} ${last ? 'last' : ''}`} aria-busy=${String(writing)}>
      <span class="unseen">${t(message.role === 'user' ? 'you' : 'model')}</span>
      ${message.attachments.length > 0 &&
      html`<ul class="attachments">${message.attachments.map((one) => html`<li key=${one.id}><${AttachmentChip} attachment=${one} /></li>`)}</ul>`}
      ${message.trimmed && html`<${Notice} kind="warning" text=${t('trimmed', message.trimmed)} />`}
      ${editing
        ? html`<${Editor} message=${message} onEnd=${() => setEditing(false)} onSave=${(text) => act.edit(message, text)} />`
        : html`<${Body} message=${message} writing=${writing} />`}
      ${!editing && !writing && html`<${Foot}
        ...${{ message, siblings, last, busy, act, session }}
        onEdit=${() => setEditing(true)}
        onRate=${(rating) => {
          setCommenting(rating !== null);
          session.feedback(message.id, rating, rating === null ? '' : (message.feedback?.comment ?? '')).catch((error) => toast(error.message, { kind: 'error' }));
        }}
      />`}
      ${commenting && message.feedback && html`<${Comment} message=${message} session=${session} onEnd=${() => setCommenting(false)} />`}
    </li>`,
    [message, siblings.join(), last, writing, busy, editing, commenting, language()],
  );
}

function Body({ message, writing }) {
  if (message.role === 'user') return html`<div class="bubble">${message.content}</div>`;
  const thinking = writing && !message.content;
  return html`
    ${message.reasoning &&
    html`<details class="reasoning" open=${thinking}>
      <summary>${t(thinking ? 'thinking' : 'thought')}<${Icon} name="down" size=${16} /></summary>
      <div>${message.reasoning}</div>
    </details>`}
    ${message.content ? html`<${Markdown} text=${message.content} streaming=${writing} />` : thinking && !message.reasoning && html`<${Waiting} />`}
  `;
}

/** How it ended, other versions, and the actions. */
function Foot({ message, siblings, last, busy, act, session, onEdit, onRate }) {
  const user = message.role === 'user';
  const at = siblings.indexOf(message.id);
  const rating = message.feedback?.rating ?? null;
  const rate = (value) => onRate(rating === value ? null : value);
  const cut = message.finish_reason === 'length' && message.status === 'complete';
  const canGoOn = !user && last && (cut || ['stopped', 'interrupted'].includes(message.status)) && message.content;
  const menu = [
    !user && { icon: 'edit', label: t('editAnswer'), run: onEdit, disabled: busy },
    { icon: 'trash', label: t('deleteFrom'), danger: true, disabled: busy, run: () => removeFrom(session, message) },
  ];
  return html`<div class="foot">
    ${message.status === 'failed' && html`<${Notice} kind="error" text=${message.error?.message ?? t('failed')} action=${{ label: t('regenerate'), run: () => act.regenerate(message) }} />`}
    <div class="foot-line">
      ${siblings.length > 1 &&
      html`<span class="versions">
        <${Button} kind="quiet" size="small" icon="left" label=${t('previous')} disabled=${at === 0 || busy} onClick=${() => act.choose(siblings[at - 1])} />
        <span aria-label=${t('versions', { n: at + 1, all: siblings.length })}>${at + 1}/${siblings.length}</span>
        <${Button} kind="quiet" size="small" icon="right" label=${t('next')} disabled=${at === siblings.length - 1 || busy} onClick=${() => act.choose(siblings[at + 1])} />
      </span>`}
      <span class="acts">
        ${message.content && html`<${Button} kind="quiet" size="small" icon="copy" label=${t('copy')} onClick=${() => copyText(message.content)} />`}
        ${user && html`<${Button} kind="quiet" size="small" icon="edit" label=${t('edit')} disabled=${busy} onClick=${onEdit} />`}
        ${!user && message.status !== 'failed' && html`<${Button} kind="quiet" size="small" icon="retry" label=${t('regenerate')} disabled=${busy} onClick=${() => act.regenerate(message)} />`}
        ${!user && message.content && html`
          <${Button} kind="quiet" size="small" icon="thumb-up" label=${t('good')} pressed=${rating === 'up'} onClick=${() => rate('up')} />
          <${Button} kind="quiet" size="small" icon="thumb-down" label=${t('bad')} pressed=${rating === 'down'} onClick=${() => rate('down')} />
        `}
        <${Menu} trigger=${{ icon: 'more', size: 'small', label: t('more') }} items=${menu} />
      </span>
      ${canGoOn && html`<${Button} size="small" icon="continue" disabled=${busy} onClick=${() => act.goOn(message)}>${t('continue')}</>`}
      ${!user && html`<span class="facts">${facts(message, cut)}</span>`}
    </div>
  </div>`;
}

function facts(message, cut) {
  const { usage, status } = message;
  const rate = usage?.tokens_per_second;
  return [
    status === 'stopped' && t('stopped'),
    status === 'interrupted' && t('interrupted'),
    cut && t('cut'),
    message.edited && t('edited'),
    usage && t('speed', { tokens: number(usage.completion_tokens), rate: rate ? number(rate) : null }),
  ]
    .filter(Boolean)
    .join(' · ');
}

function removeFrom(session, message) {
  deleteLater({
    id: message.id,
    text: t('messageDeleted'),
    run: () => session.remove(message.id),
    back: () => session.changed(),
  });
  session.changed();
}

function Editor({ message, onEnd, onSave }) {
  const [text, setText] = useState(message.content);
  const ref = useRef(null);
  useEffect(() => ref.current.focus(), []);
  const save = () => {
    onEnd();
    if (text.trim() && text !== message.content) onSave(text);
  };
  const press = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save();
    if (event.key === 'Escape') {
      event.stopPropagation();
      onEnd();
    }
  };
  return html`<div class="message-editor">
    <${TextArea} inputRef=${ref} value=${text} onInput=${setText} most=${480} aria-label=${t('edit')} onKeyDown=${press} />
    <div class="editor-actions">
      <${Button} kind="quiet" onClick=${onEnd}>${t('cancel')}</>
      <${Button} kind="primary" disabled=${!text.trim()} onClick=${save}>${t(message.role === 'user' ? 'saveAndAsk' : 'save')}</>
    </div>
  </div>`;
}

function Comment({ message, session, onEnd }) {
  const [text, setText] = useState(message.feedback.comment ?? '');
  const save = async (event) => {
    event.preventDefault();
    try {
      await session.feedback(message.id, message.feedback.rating, text.trim());
      toast(t('thanks'));
      onEnd();
    } catch (error) {
      toast(error.message, { kind: 'error' });
    }
  };
  return html`<form class="comment" onSubmit=${save}>
    <${Field} label=${t('comment')} hint=${t('commentHint')}>
      <input type="text" maxlength="2000" value=${text} onInput=${(event) => setText(event.target.value)} />
    </>
    <div class="editor-actions">
      <${Button} kind="quiet" onClick=${onEnd}>${t('close')}</>
      <${Button} type="submit" disabled=${!text.trim()}>${t('saveComment')}</>
    </div>
  </form>`;
}
