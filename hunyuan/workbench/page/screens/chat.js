/** Chat: conversations at the side, the one that is open in the middle, its settings on the right. */

import { html, useEffect, useRef, useState } from '../vendor/preact.js';
import { api } from '../lib/api.js';
import { SideList, useListing } from '../lib/listing.js';
import { GoodFor } from '../lib/model.js';
import { copyText, download, EmptyState, Icon, Menu, modalOpen, Notice, Page, Spinner, toast, useAsync, useLatest } from '../lib/ui.js';
import { deleteLater } from '../lib/undo.js';
import { t } from '../texts/chat.js';
import { useAttachments } from './chat/attachments.js';
import { Composer } from './chat/composer.js';
import { begin, sessionOf, useSession } from './chat/session.js';
import { Settings } from './chat/settings.js';
import { Thread } from './chat/thread.js';

const ROOT = '/workbench/chat';
const nameOf = (conversation) => conversation.title ?? t('untitled');

export default function Screen({ route, navigate }) {
  const listing = useListing(ROOT, 'conversations');
  const session = route.id ? sessionOf(route.id) : null;
  const [draft, setDraft] = useState({ system: null, settings: {} });
  useSession(session);
  const start = () => {
    setDraft({ system: null, settings: {} });
    navigate('chat');
  };
  useNewKey(start);

  const conversation = session?.conversation ?? null;
  // The list follows what happens in the conversation: its title, its time.
  useEffect(() => {
    if (conversation) listing.upsert(conversation);
  }, [conversation]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else listing.refresh();
  }, [conversation?.messages]);

  const menu = (item, rename) => [
    { icon: 'edit', label: t('rename'), run: rename },
    { icon: 'pin', label: t(item.pinned ? 'unpin' : 'pin'), run: () => change(item, { pinned: !item.pinned }) },
    null,
    { icon: 'download', label: t('exportMarkdown'), run: () => save(item, 'markdown') },
    { icon: 'download', label: t('exportJson'), run: () => save(item, 'json') },
    null,
    { icon: 'trash', label: t('delete'), danger: true, run: () => remove(item) },
  ];
  const change = (item, part) =>
    (item.id === session?.id ? session.patch(part) : api.patch(`${ROOT}/${item.id}`, part)).then(listing.refresh, failed);
  const remove = (item) => {
    deleteLater({
      id: item.id,
      text: t('deleted', { name: nameOf(item) }),
      run: (options) => api.delete(`${ROOT}/${item.id}`, {}, options),
      back: listing.refresh,
    });
    listing.refresh();
    if (item.id === route.id) navigate('chat');
  };
  const side = html`<${SideList}
    ...${{ listing, menu }}
    current=${route.id}
    link=${(item) => `chat/${item.id}`}
    name=${nameOf}
    onRename=${(item, title) => change(item, { title })}
    searchLabel=${t('search')}
    newLabel=${t('newChat')}
    onNew=${start}
    emptyText=${t('noneYet')}
    extra=${html`<${ListMenu} onImported=${(made) => { listing.refresh(); navigate(`chat/${made.id}`); }} />`}
  />`;
  const value = conversation ?? draft;
  const settings = html`<${Settings}
    key=${conversation?.id}
    value=${value}
    onChange=${(part) => (session ? session.patch(part).catch(failed) : setDraft((old) => ({ ...old, ...part })))}
  />`;
  return html`<${Page}
    bare
    name="chat"
    title=${conversation ? nameOf(conversation) : t('newChat')}
    side=${side}
    sideLabel=${t('conversations')}
    details=${settings}
    detailsLabel=${t('details')}
    actions=${conversation && html`<${Menu} trigger=${{ icon: 'more', label: t('more') }} items=${pageMenu(session, menu)} />`}
  >
    <${Conversation} key=${route.id ?? 'new'} session=${session} draft=${draft} navigate=${navigate} />
  </>`;
}

const failed = (error) => toast(error.message, { kind: 'error' });

function pageMenu(session, menu) {
  const all = () => session.branch().map(({ message }) => `${t(message.role === 'user' ? 'you' : 'model')}:\n${message.content}`).join('\n\n');
  return [{ icon: 'copy', label: t('copyAll'), run: () => copyText(all()) }, ...menu(session.conversation).slice(1)];
}

async function save(item, format) {
  try {
    const reply = await api.raw(`${ROOT}/${item.id}/export?format=${format}`);
    const ending = format === 'json' ? 'json' : 'md';
    download(`${nameOf(item).replace(/[\\/:*?"<>|\s]+/g, ' ').trim().slice(0, 60)}.${ending}`, await reply.blob());
  } catch (error) {
    failed(error);
  }
}

/** Import, and what was rated. */
function ListMenu({ onImported }) {
  const picker = useRef(null);
  const { value } = useAsync((signal) => api.get(`${ROOT}/feedback`, { signal }), []);
  const pairs = value?.pairs ?? 0;
  const read = async () => {
    const [file] = picker.current.files;
    picker.current.value = '';
    try {
      onImported(await api.post(`${ROOT}/import`, JSON.parse(await file.text())));
    } catch (error) {
      failed(error);
    }
  };
  const exportPairs = async () => {
    try {
      download('preferences.jsonl', await (await api.raw(`${ROOT}/feedback/pairs`)).blob());
    } catch (error) {
      failed(error);
    }
  };
  return html`<input ref=${picker} type="file" hidden accept=".json,application/json" aria-label=${t('import')} onChange=${read} />
    <${Menu}
      trigger=${{ icon: 'more', label: t('more') }}
      items=${[
        { icon: 'upload', label: t('import'), run: () => picker.current.click() },
        { icon: 'download', label: pairs ? t('exportPairs', { pairs }) : t('noPairs'), disabled: !pairs, run: exportPairs },
      ]}
    />`;
}

function useNewKey(run) {
  const press = useLatest((event) => {
    if (!(event.ctrlKey || event.metaKey) || !event.shiftKey || event.key.toLowerCase() !== 'o') return;
    event.preventDefault();
    run();
  });
  useEffect(() => {
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
}

/** The open conversation, or the place where one begins. */
function Conversation({ session, draft, navigate }) {
  const [text, setText] = useState('');
  const [refusal, setRefusal] = useState(null);
  const [starting, setStarting] = useState(false);
  const attachments = useAttachments();
  const drop = useDrop(attachments.add);

  /** Do something that asks the model; what is refused is said above the composer. */
  const attempt = async (run, back = () => {}) => {
    setRefusal(null);
    const close = () => setRefusal(null);
    try {
      await run({});
    } catch (error) {
      back();
      const tooLong = error.code === 'context_length_exceeded';
      setRefusal({ message: error.message, close, retry: tooLong && (() => attempt(() => run({ overflow: 'trim' }), back)) });
    }
  };

  const send = (written) =>
    attempt(
      async (options) => {
        const sent = attachments.items;
        setText('');
        attachments.clear();
        if (session) {
          await session.ask(written, sent.map(({ attachment }) => attachment), options);
        } else {
          setStarting(true);
          const made = await begin(draft).finally(() => setStarting(false));
          // The answer goes on while the screen changes to the conversation's own address.
          const asking = made.ask(written, sent.map(({ attachment }) => attachment), options);
          navigate(`chat/${made.id}`, { replace: true });
          await asking;
          return entitle(made);
        }
        return entitle(session);
      },
      () => setText((now) => now || written),
    );

  const act = useLatest((name, ...args) => acts[name](...args));
  const acts = {
    edit: (message, content) => attempt((options) => session.edit(message.id, content, options)),
    regenerate: (message) => attempt((options) => session.regenerate(message.id, options)),
    goOn: (message) => attempt((options) => session.goOn(message.id, options)),
    choose: (id) => session.choose(id).catch(failed),
  };
  const stable = useState(() => Object.fromEntries(['edit', 'regenerate', 'goOn', 'choose'].map((name) => [name, (...args) => act(name, ...args)])))[0];

  const stop = useLatest(() => session?.stop());
  useEffect(() => {
    const press = (event) => event.key === 'Escape' && !event.isComposing && !modalOpen() && stop();
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);

  const loaded = session?.conversation;
  const empty = !session || (loaded && session.messages.size === 0 && !session.answering);
  const examples = [1, 2, 3].map((n) => ({
    label: t(`example${n}`),
    text: t(`example${n}Text`),
    run: () => send(t(`example${n}Text`)),
  }));
  return html`<div class="chat" ...${drop.on}>
    ${session?.error && html`<div class="chat-problem"><${Notice} kind="error" text=${session.error.message} action=${{ label: t('newChat'), run: () => navigate('chat') }} /></div>`}
    ${session && !loaded && !session.error && html`<div class="chat-wait"><${Spinner} /></div>`}
    ${empty && html`<div class="chat-empty"><${EmptyState} icon="chat" title=${t('emptyTitle')} text=${t('emptyText')} examples=${examples}><${GoodFor} place="chat" /></></div>`}
    ${loaded && !empty && html`<${Thread} session=${session} act=${stable} />`}
    ${(!session || loaded) &&
    html`<${Composer}
      ...${{ text, setText, attachments, refusal }}
      conversation=${loaded ?? null}
      system=${draft.system}
      answering=${Boolean(session?.answering) || starting}
      onSend=${send}
      onStop=${stop}
    />`}
    <p class="unseen" role="status">${session?.answering ? t('answering') : ''}</p>
    ${drop.over && html`<div class="drop"><${Icon} name="attach" size=${28} />${t('dropHere')}</div>`}
  </div>`;
}

/** A conversation gets its title after the first whole answer. */
function entitle(session) {
  const whole = [...session.messages.values()].some(({ role, status }) => role === 'assistant' && status === 'complete');
  if (session.conversation.title === null && whole) session.title().catch(() => {});
}

/** Files dragged over an element: {on: handlers, over: whether there are any now}. */
function useDrop(take) {
  const [over, setOver] = useState(false);
  const depth = useRef(0);
  const files = (event) => event.dataTransfer?.types.includes('Files');
  const move = (step) => (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth.current += step;
    setOver(depth.current > 0);
  };
  return {
    over,
    on: {
      onDragEnter: move(1),
      onDragLeave: move(-1),
      onDragOver: (event) => files(event) && event.preventDefault(),
      onDrop: (event) => {
        if (!files(event)) return;
        event.preventDefault();
        depth.current = 0;
        setOver(false);
        take(event.dataTransfer.files);
      },
    },
  };
}
