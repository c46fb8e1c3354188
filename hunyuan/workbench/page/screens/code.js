/** Code: a program in the middle, what it printed beside it, what holds it on the right. */

import { html, useEffect, useRef, useState } from '../vendor/preact.js';
import { api } from '../lib/api.js';
import { language, moment, number } from '../lib/i18n.js';
import { Markdown } from '../lib/markdown.js';
import { useModel } from '../lib/model.js';
import { keep, kept } from '../lib/store.js';
import { Button, copyText, Details, EmptyState, Icon, Menu, Notice, Page, Section, Segmented, Spinner, TextArea, toast, useAsync, useKept, useLatest } from '../lib/ui.js';
import { EXAMPLES, t, TASKS } from '../texts/code.js';
import { Editor, Program } from './code/editor.js';
import { forget, history, remember, titleOf } from './code/history.js';

const ROOT = '/workbench/code';
const DRAFT = 'code.draft';

/** What the model is asked: one answer at a time, streamed. */
function useAnswer() {
  const [answer, setAnswer] = useState(null); // {kind, text, code, problem, cut, error, busy}
  const controller = useRef(null);
  const ask = async (kind, body) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    const change = (part) => own === controller.current && setAnswer((old) => old && { ...old, ...part });
    setAnswer({ kind, text: '', code: null, busy: true });
    let text = '';
    try {
      for await (const event of api.events(`${ROOT}/${kind}`, body, { signal: own.signal })) {
        if (event.type === 'delta') change({ text: (text += event.text) });
        if (event.type === 'result') change({ code: event.code, problem: event.problem, cut: event.cut });
      }
    } catch (error) {
      if (error.name !== 'AbortError') change({ error });
      else if (own === controller.current && (!text || kind !== 'explain')) setAnswer(null);
    } finally {
      change({ busy: false });
    }
  };
  const stop = () => controller.current?.abort();
  const close = () => {
    stop();
    controller.current = null;
    setAnswer(null);
  };
  useEffect(() => () => controller.current?.abort(), []);
  return { answer, ask, stop, close };
}

/** The program that runs, and what became of the last one. */
function useRun(onEnd) {
  const [run, setRun] = useState(null); // {busy, result, error, stopped}
  const controller = useRef(null);
  const start = async (code, runner) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    setRun({ busy: true });
    try {
      const result = await api.post(`${ROOT}/run`, { code, runner }, { signal: own.signal });
      setRun({ result });
      onEnd(code, Boolean(result.error));
    } catch (error) {
      if (own === controller.current) setRun(error.name === 'AbortError' ? { stopped: true } : { error });
    }
  };
  useEffect(() => () => controller.current?.abort(), []);
  return { run, start, stop: () => controller.current?.abort(), clear: () => setRun(null) };
}

export default function Screen() {
  const [code, setCode] = useState(() => kept(DRAFT, ''));
  const [task, setTask] = useState('');
  const [runner, setRunner] = useKept('code.runner', 'monty');
  const [past, setPast] = useState(history);
  const about = useAsync((signal) => api.get(ROOT, { signal }), [language()]);
  const { current } = useModel();
  const { answer, ask, stop: stopAnswer, close } = useAnswer();
  const { run, start, stop, clear } = useRun((ran, failed) => setPast(remember(ran, failed)));
  const editor = useRef(null);

  useEffect(() => keep(DRAFT, code), [code]);

  const runners = about.value?.runners ?? [];
  const full = runners.find((one) => one.name === 'cpython');
  const used = runner === 'cpython' && full?.available ? 'cpython' : 'monty';
  const execute = useLatest(() => code.trim() && !run?.busy && start(code, used));
  const put = (text) => {
    const old = code;
    editor.current.replace(text);
    setCode(text);
    return old;
  };
  const example = (one) => {
    put(one.code);
    start(one.code, used);
  };
  const accept = () => {
    const old = put(answer.code);
    close();
    clear();
    if (old.trim()) toast(t('replaced'), { action: { label: t('undo'), run: () => put(old) } });
  };
  const write = () => task.trim() && ask('ask', { task: task.trim() });
  const empty = () => {
    const old = put('');
    clear();
    toast(t('cleared'), { action: { label: t('undo'), run: () => put(old) } });
  };
  const failure = run?.result?.error;
  const good = current?.good_for?.code?.[language()];

  const actions = html`<${Menu}
    trigger=${{ icon: 'list', label: t('examples'), text: t('examples'), size: 'small' }}
    items=${EXAMPLES[language()].map((one) => ({ label: one.label, hint: one.text, run: () => example(one) }))}
  />`;
  const details = html`<${Details} title=${t('sandbox')}>
    <${Runners} runners=${runners} used=${used} onChange=${setRunner} error=${about.error} />
    <${Section} title=${t('history')}>
      <${History} past=${past} onOpen=${(one) => put(one.code)} onForget=${() => { setPast(forget()); toast(t('forgotten')); }} />
    </>
  </>`;
  return html`<${Page} name="code" title=${t('code')} subtitle=${t('subtitle')} actions=${actions} details=${details} detailsLabel=${t('sandbox')} bare>
    <div class="code">
      <div class="code-ask">
        <form onSubmit=${(event) => { event.preventDefault(); write(); }}>
          <label class="unseen" for="code-task">${t('task')}</label>
          <${TextArea}
            id="code-task"
            value=${task}
            most=${160}
            placeholder=${t('taskPlaceholder')}
            onInput=${setTask}
            onKeyDown=${(event) => {
              if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              write();
            }}
          />
          ${answer?.busy
            ? html`<${Button} icon="stop" onClick=${stopAnswer}>${t('stop')}</>`
            : html`<${Button} type="submit" icon="spark" disabled=${!task.trim()}>${t('write')}</>`}
        </form>
        ${good && html`<p class="code-good">${t('goodFor', { text: good })}</p>`}
      </div>
      ${answer && answer.kind !== 'explain' && html`<${Proposal} answer=${answer} model=${current?.id ?? ''} onUse=${accept} onClose=${close} />`}
      <div class="code-panes">
        <section class="code-pane" aria-label=${t('editor')}>
          <div class="code-bar">
            ${run?.busy
              ? html`<${Button} kind="primary" icon="stop" onClick=${stop}>${t('stop')}</>`
              : html`<${Button} kind="primary" icon="play" disabled=${!code.trim()} title="Ctrl+Enter" onClick=${execute}>${t('run')}</>`}
            <${Button} kind="quiet" icon="help" disabled=${!code.trim() || answer?.busy} onClick=${() => ask('explain', { code })}>${t('explain')}</>
            <span class="code-gap"></span>
            <${Button} kind="quiet" icon="copy" label=${t('copy')} disabled=${!code} onClick=${() => copyText(code)} />
            <${Button} kind="quiet" icon="trash" label=${t('clear')} disabled=${!code} onClick=${empty} />
          </div>
          <${Editor}
            id="code-editor"
            value=${code}
            onInput=${setCode}
            onRun=${execute}
            mark=${failure?.line}
            label=${t('editor')}
            hint=${t('editorHint')}
            placeholder=${t('editorPlaceholder')}
            control=${editor}
          />
          <p class="code-hint">${t('editorHint')}</p>
        </section>
        <div class="code-pane code-out">
          <div class="code-bar">
            <h2>${t('output')}</h2>
            ${run?.result && html`<small>${t(used)} · ${t('took', { ms: number(1000 * run.result.seconds) })}</small>`}
          </div>
          <div class="code-out-body" tabindex="0" role="region" aria-label=${t('output')}>
            <${Output}
              run=${run}
              onLine=${(line) => editor.current.goTo(line)}
              onFix=${() => ask('fix', { code, error: failure.message, line: failure.line })}
              busy=${answer?.busy}
            />
            ${answer?.kind === 'explain' && html`<${Explanation} answer=${answer} onStop=${stopAnswer} onClose=${close} />`}
            ${!run && !answer && html`<${EmptyState}
              icon="code"
              title=${t('emptyTitle')}
              text=${t('emptyText')}
              examples=${[
                ...EXAMPLES[language()].slice(0, 2).map((one) => ({ label: one.label, text: one.text, run: () => example(one) })),
                ...TASKS[language()].map((words) => ({ label: t('write'), text: words, run: () => { setTask(words); ask('ask', { task: words }); } })),
              ]}
            />`}
          </div>
        </div>
      </div>
    </div>
  </>`;
}

/** What the model wrote, before it goes into the editor. */
function Proposal({ answer, model, onUse, onClose }) {
  const { busy, code, problem, cut, error, text, kind } = answer;
  const ref = useRef(null);
  useEffect(() => {
    ref.current?.scrollIntoView?.({ block: 'nearest' });
    if (ref.current) ref.current.querySelector('pre')?.scrollTo?.(0, busy ? 1e6 : 0);
  }, [text, busy]);
  if (error) return html`<div class="code-proposal"><${Notice} kind="error" text=${error.message} onClose=${onClose} /></div>`;
  const shown = code ?? text.replace(/^[\s\S]*?```[ \t]*\w*[ \t]*\n/, '').replace(/\n?```[\s\S]*$/, '');
  return html`<section class="code-proposal" ref=${ref} aria-live="polite">
    <div class="code-bar">
      <p>${busy ? html`<${Spinner} /> ${t('writing')}` : t(kind === 'fix' ? 'fixProposal' : 'proposal', { model })}</p>
      <${Button} kind="quiet" size="small" onClick=${onClose}>${t('discard')}</>
      <${Button} kind="primary" size="small" icon="check" disabled=${!code} onClick=${onUse}>${t('use')}</>
    </div>
    ${problem && html`<${Notice} kind="warning" text=${problem.line ? t('brokenAt', { line: problem.line, text: problem.message }) : t('broken', { text: problem.message })} />`}
    ${cut && html`<${Notice} kind="warning" text=${t('cut')} />`}
    <${Program} code=${shown} />
  </section>`;
}

function Output({ run, onLine, onFix, busy }) {
  const ref = useRef(null);
  // On a phone the output is below the program.
  useEffect(() => ref.current?.scrollIntoView({ block: 'nearest' }), [run?.result]);
  if (!run) return null;
  if (run.busy) return html`<p class="code-wait" role="status"><${Spinner} /> ${t('running')}</p>`;
  if (run.stopped) return html`<${Notice} text=${t('stopped')} />`;
  if (run.error) return html`<${Notice} kind="error" text=${run.error.message} />`;
  const { stdout, value, error, truncated } = run.result;
  return html`<div class="code-result" role="status" ref=${ref}>
    ${stdout && html`<pre class="code-stdout">${stdout}</pre>`}
    ${value !== null && html`<div class="code-value"><span>${t('result')}</span><pre>${value}</pre></div>`}
    ${truncated && html`<p class="code-note">${t('truncated')}</p>`}
    ${error && html`<${Notice} kind="error">
      <span>${error.message}</span>
      <div class="code-error-actions">
        ${error.line && html`<${Button} size="small" onClick=${() => onLine(error.line)}>${t('toLine', { line: error.line })}</>`}
        <${Button} size="small" icon="spark" disabled=${busy} onClick=${onFix}>${t('fix')}</>
      </div>
    </>`}
    ${!stdout && value === null && !error && html`<p class="code-note">${t('nothing')}</p>`}
  </div>`;
}

function Explanation({ answer, onStop, onClose }) {
  return html`<section class="code-explanation" aria-label=${t('explanation')}>
    <div class="code-bar">
      <h3>${t('explanation')}</h3>
      ${answer.busy
        ? html`<${Button} kind="quiet" size="small" icon="stop" onClick=${onStop}>${t('stop')}</>`
        : html`<${Button} kind="quiet" size="small" icon="close" label=${t('discard')} onClick=${onClose} />`}
    </div>
    ${answer.error && html`<${Notice} kind="error" text=${answer.error.message} />`}
    ${answer.text ? html`<${Markdown} text=${answer.text} streaming=${answer.busy} />` : answer.busy && html`<p class="code-wait"><${Spinner} /> ${t('writing')}</p>`}
  </section>`;
}

/** Which interpreter runs, and the layers around it. */
function Runners({ runners, used, onChange, error }) {
  if (error) return html`<${Notice} kind="error" text=${error.message} />`;
  if (!runners.length) return html`<${Spinner} />`;
  const full = runners.find((one) => one.name === 'cpython');
  const shown = runners.find((one) => one.name === used);
  return html`<div class="code-runners">
    <h3>${t('runner')}</h3>
    <${Segmented}
      label=${t('runner')}
      value=${used}
      options=${runners.filter((one) => one.available).map(({ name }) => ({ value: name, label: t(name) }))}
      onChange=${onChange}
    />
    <p class="field-hint">${t(`${used}Hint`)}</p>
    <h3>${t('layers')}</h3>
    <${Layers} layers=${shown.layers} />
    ${!full.available && html`<p class="field-hint">${t('cpythonMissing')}</p><${Layers} layers=${full.layers} />`}
  </div>`;
}

function Layers({ layers }) {
  const reasons = [...new Set(layers.map((layer) => layer.missing).filter(Boolean))];
  return html`<ul class="code-layers">
      ${layers.map((layer) => html`<li key=${layer.id} class=${layer.on ? 'on' : 'off'}>
        <${Icon} name=${layer.on ? 'check' : 'close'} size=${16} />
        <span>${layer.name}<span class="unseen"> (${t(layer.on ? 'on' : 'off')})</span></span>
      </li>`)}
    </ul>
    ${reasons.map((reason) => html`<p key=${reason} class="field-hint">${reason}</p>`)}`;
}

function History({ past, onOpen, onForget }) {
  if (!past.length) return html`<p class="field-hint">${t('noHistory')}</p>`;
  return html`<ul class="code-history">
      ${past.map((one) => html`<li key=${one.at}>
        <button type="button" class="example" onClick=${() => onOpen(one)}>
          <code>${titleOf(one.code)}</code>
          <span class="example-text">${moment(one.at)}${one.failed ? ' · ✕' : ''}</span>
        </button>
      </li>`)}
    </ul>
    <div><${Button} kind="quiet" size="small" icon="trash" onClick=${onForget}>${t('forget')}</></div>`;
}
