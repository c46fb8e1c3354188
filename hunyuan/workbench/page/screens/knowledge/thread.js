/** Questions and their answers: quotes first, the model's checked summary beneath. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { Markdown } from '../../lib/markdown.js';
import { useModel } from '../../lib/model.js';
import { Button, copyText, Icon, Notice, Progress, TextArea, useLatest } from '../../lib/ui.js';
import { t } from '../../texts/knowledge.js';

/** What was asked of each collection, for as long as the page is open. */
const threads = new Map();
let ids = 0;

/** {turns, running, ask(question, {alone}), stop(), clear()} of a collection, or of none. */
export function useThread(root, collection) {
  const key = collection ?? '';
  const [turns, setTurns] = useState(() => threads.get(key) ?? []);
  const running = useRef(null);
  const [busy, setBusy] = useState(false);
  const keep = (next) =>
    setTurns((old) => {
      const made = next(old);
      threads.set(key, made);
      return made;
    });
  const change = (id, part) => keep((all) => all.map((one) => (one.id === id ? { ...one, ...part(one) } : one)));
  useEffect(() => () => running.current?.abort(), []);

  const ask = async (question, { alone = false } = {}) => {
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    const id = ++ids;
    const history = turns.filter((one) => one.kind).slice(-4).map((one) => ({ question: one.question }));
    keep((all) => [...all, { id, question, alone, stage: 'search', text: '', answer: null, kind: null, error: null }]);
    setBusy(true);
    try {
      const body = { question, collection: alone ? null : collection, history };
      for await (const event of api.events(`${root}/ask`, body, { signal: controller.signal })) {
        if (event.type === 'progress') change(id, () => ({ stage: event.stage }));
        if (event.type === 'passages') change(id, () => ({ answer: event }));
        if (event.type === 'delta') change(id, (one) => ({ text: one.text + event.text }));
        if (event.type === 'result') change(id, () => ({ answer: event, kind: event.kind, stage: null }));
      }
    } catch (error) {
      change(id, () => ({ stage: null, error: error.name === 'AbortError' ? t('stopped') : error.message }));
    } finally {
      if (running.current === controller) setBusy(false);
    }
  };
  return {
    turns,
    busy,
    ask,
    stop: () => running.current?.abort(),
    clear: () => {
      running.current?.abort();
      keep(() => []);
    },
  };
}

/** All questions so far. */
export function Thread({ thread, onShow, busy }) {
  const last = useRef(null);
  useEffect(() => last.current?.scrollIntoView({ block: 'start', behavior: 'smooth' }), [thread.turns.length]);
  return html`<ol class="thread">
    ${thread.turns.map(
      (turn, i) => html`<li key=${turn.id} ref=${i === thread.turns.length - 1 ? last : undefined} class="turn">
        <h2 class="turn-question">${turn.question}</h2>
        <${Answer} turn=${turn} thread=${thread} onShow=${onShow} importing=${busy} />
      </li>`,
    )}
  </ol>`;
}

function Answer({ turn, thread, onShow, importing }) {
  const { answer, kind, stage } = turn;
  const passages = answer?.passages ?? [];
  const open = (number, span) => {
    const passage = passages[number - 1];
    onShow({ document: passage.document, name: passage.name, page: passage.page, span: span ?? passage.span });
  };
  const again = { label: t('retry'), run: () => thread.ask(turn.question, { alone: turn.alone }) };
  if (kind === 'uncited' || (turn.alone && turn.text))
    return html`<div class="answer" aria-busy=${String(!kind)}>
      <${Notice} kind="warning" text=${t('uncited')} />
      <${Markdown} text=${kind ? answer.text : turn.text} streaming=${!kind} />
      ${turn.error && html`<${Notice} kind="error" text=${turn.error} action=${again} />`}
    </div>`;
  return html`<div class="answer" aria-busy=${String(Boolean(stage))}>
    ${answer && answer.query !== turn.question && html`<p class="answer-note">${t('searchedFor', { query: answer.query })}</p>`}
    ${answer?.translation && html`<p class="answer-note">${t('translated', { query: answer.translation })}</p>`}
    ${answer?.notice && html`<${Notice} kind="warning" text=${answer.notice} />`}
    ${kind === 'not_found' && html`<${Notice} kind="info" text=${html`<strong>${t('notFound')}</strong> ${t(importing ? 'importing' : 'notFoundText')}`} />`}
    ${answer?.quotes?.length > 0 && html`<section class="quotes" aria-label=${t('fromDocuments')}>
      <h3>${t('fromDocuments')}</h3>
      ${answer.quotes.map((quote) => html`<${Quote} key=${quote.rank} quote=${quote} passage=${passages[quote.passage - 1]} onOpen=${() => open(quote.passage, quote.span)} />`)}
    </section>`}
    ${(kind === 'cited' || (answer && !kind)) && html`<${Summary} turn=${turn} passages=${passages} onOpen=${open} />`}
    ${stage === 'search' && html`<${Progress} text=${t('searching')} onCancel=${thread.stop} />`}
    ${turn.error && html`<${Notice} kind=${turn.error === t('stopped') ? 'info' : 'error'} text=${turn.error} action=${again} />`}
    ${kind && html`<div class="answer-foot">
      ${kind === 'cited' && html`<${Button} kind="quiet" size="small" icon="copy" onClick=${() => copyText(plain(turn))}>${t('copyAnswer')}</>`}
      ${kind === 'not_found' && html`<${Button} size="small" icon="spark" onClick=${() => thread.ask(turn.question, { alone: true })}>${t('askAlone')}</>`}
    </div>`}
    ${kind && passages.length > 0 && html`<details class="passages">
      <summary><${Icon} name="right" size=${16} />${kind === 'not_found' ? t('closest') : t('passages', { n: passages.length })}${answer.mode === 'lexical' ? ` (${t('lexicalShort')})` : ''}</summary>
      <ol>
        ${passages.map((one) => html`<li key=${one.id}>
          <button type="button" class="passage" onClick=${() => open(one.number)}>
            <span class="passage-head"><b>${one.number}</b> ${named(one)}</span>
            <span class="passage-text">${one.text}</span>
          </button>
        </li>`)}
      </ol>
    </details>`}
  </div>`;
}

const place = (passage) => t(passage.paged ? 'page' : 'part', { n: passage.page });

/** A passage's document and where in it; a document of one part needs no number. */
const named = (passage) => (passage.paged || passage.pages > 1 ? `${passage.name} · ${place(passage)}` : passage.name);

function Quote({ quote, passage, onOpen }) {
  return html`<figure class="quote">
    <blockquote>${quote.text}</blockquote>
    <figcaption>
      <button type="button" class="chip source" onClick=${onOpen}><b>${quote.passage}</b> ${named(passage)}</button>
      <span class=${`check-mark ${quote.verified ? 'good' : 'bad'}`}><${Icon} name=${quote.verified ? 'check' : 'warning'} size=${14} />${t(quote.verified ? 'verified' : 'notVerified')}</span>
    </figcaption>
  </figure>`;
}

function Summary({ turn, passages, onOpen }) {
  const model = useModel().current;
  const { answer, kind } = turn;
  const name = model?.title ?? model?.id;
  const head = html`<h3>${name ? t('summaryBy', { model: name }) : t('summary')}</h3>`;
  if (!kind)
    return html`<section class="summary">
      ${head}
      ${turn.text ? html`<p class="summary-draft">${turn.text}</p>` : html`<${Progress} text=${t('writing')} />`}
    </section>`;
  if (answer.model_error) return html`<section class="summary"><${Notice} kind="warning" text=${t('noSummary', { text: answer.model_error.message })} /></section>`;
  if (answer.declined || !answer.sentences.length) return html`<section class="summary"><p class="answer-note">${t('declined')}</p></section>`;
  return html`<section class="summary" aria-label=${t('summary')}>
    ${head}
    <p>
      ${answer.sentences.map((sentence, i) => html`<${Sentence} key=${i} sentence=${sentence} passages=${passages} onOpen=${onOpen} />`)}
    </p>
  </section>`;
}

function Sentence({ sentence, passages, onOpen }) {
  const doubt = { unsupported: 'unsupported', uncited: 'uncitedSentence' }[sentence.status];
  return html`<span class="sentence"><span class=${doubt ? 'doubtful' : ''}>${sentence.text}</span>${doubt && html`<span class="doubt"><${Icon} name="warning" size=${13} />${t(doubt)}</span>`}${sentence.citations
    .filter((one) => one.verified || doubt)
    .map((one) => {
      const passage = passages[one.passage - 1];
      const label = t('citation', { n: one.passage, name: named(passage) });
      return html`<button key=${one.passage} type="button" class=${`chip ${one.verified ? '' : 'bad'}`} aria-label=${label} title=${one.added ? `${label}. ${t('matched')}` : label} onClick=${() => onOpen(one.passage, one.span)}>${one.passage}</button>`;
    })} </span>`;
}

/** The answer as text, with its sources. */
function plain(turn) {
  const { quotes, sentences, passages } = turn.answer;
  const lines = quotes.map((quote) => `> ${quote.text} [${quote.passage}]`);
  const summary = sentences.map((one) => one.text + one.citations.filter((c) => c.verified).map((c) => ` [${c.passage}]`).join('')).join(' ');
  const used = [...new Set([...quotes.map((q) => q.passage), ...sentences.flatMap((s) => s.citations.map((c) => c.passage))])].sort((a, b) => a - b);
  const sources = used.map((n) => `[${n}] ${named(passages[n - 1])}`);
  return [turn.question, '', ...lines, '', summary, '', `${t('sourcesHeading')}:`, ...sources].join('\n');
}

/** Where questions are typed; stays at the bottom. */
export function AskBox({ thread, placeholder, onAsk }) {
  const [value, setValue] = useState('');
  const area = useRef(null);
  const send = useLatest(() => {
    const question = value.trim();
    if (!question || thread.busy) return;
    onAsk(question);
    setValue('');
  });
  const key = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return html`<div class="ask">
    <form
      class="ask-form"
      onSubmit=${(event) => {
        event.preventDefault();
        send();
      }}
    >
      <${TextArea} value=${value} onInput=${setValue} most=${160} inputRef=${area} maxlength="2000" aria-label=${t('question')} placeholder=${placeholder} onKeyDown=${key} />
      ${thread.busy
        ? html`<${Button} icon="stop" label=${t('stop')} onClick=${thread.stop} />`
        : html`<${Button} kind="primary" type="submit" icon="send" label=${t('ask')} disabled=${!value.trim()} />`}
    </form>
    ${thread.turns.length > 0 && html`<div class="ask-foot"><small>${t('earlier')}</small><${Button} kind="quiet" size="small" onClick=${thread.clear}>${t('clear')}</></div>`}
  </div>`;
}
