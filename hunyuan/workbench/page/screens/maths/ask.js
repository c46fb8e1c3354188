/** The input that takes anything, and the cards of what was asked. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language } from '../../lib/i18n.js';
import { Formula } from '../../lib/markdown.js';
import { Button, EmptyState, TextArea, useLatest } from '../../lib/ui.js';
import { EXAMPLES, t } from '../../texts/maths.js';
import { Card } from './card.js';
import { cards as keptCards, remember } from './history.js';

const ROOT = '/workbench/maths';

/** What each button asks the tools of the expression in the input. */
const OPERATIONS = [
  ['simplify', 'expression'],
  ['expand', 'expression'],
  ['factor', 'expression'],
  ['solve', 'equations'],
  ['differentiate', 'expression'],
  ['integrate', 'expression'],
  ['plot', 'expressions'],
];

/** [what is shown, what is inserted, how far the cursor goes back]. */
const SIGNS = [
  ['x²', '^2', 0],
  ['xⁿ', '^()', 1],
  ['√', 'sqrt()', 1],
  ['a/b', '/', 0],
  ['π', 'pi', 0],
  ['∞', 'oo', 0],
  ['°', '°', 0],
  ['|x|', 'abs()', 1],
  ['∫', '∫ ', 0],
  ['≤', '<=', 0],
  ['( )', '()', 1],
  ['[ ]', '[[,],[,]]', 8],
];

let next = 0;

export function Ask({ question }) {
  const [text, setText] = useState(question);
  const [cards, setCards] = useState(keptCards);
  const running = useRef(new Map());
  const input = useRef(null);
  const reading = useReading(text);

  const setKept = useLatest((change) => {
    const all = typeof change === 'function' ? change(cards) : change;
    setCards(all);
    remember(all);
  });
  const change = (id, part) => setKept((all) => all.map((card) => (card.id === id ? { ...card, ...part } : card)));

  /** Show a card at once and fill it while `run(signal, tell)` goes on. */
  const start = async (asked, run) => {
    const id = `${Date.now()}-${next++}`;
    const controller = new AbortController();
    running.current.set(id, controller);
    setKept((all) => [{ id, question: asked, busy: true, stage: 'computing' }, ...all]);
    try {
      const answer = await run(controller.signal, (stage) => change(id, { stage }));
      change(id, { busy: false, answer });
    } catch (error) {
      if (error.name === 'AbortError') setKept((all) => all.filter((card) => card.id !== id));
      else change(id, { busy: false, error: error.message });
    } finally {
      running.current.delete(id);
    }
  };
  const ask = (asked) =>
    start(asked, async (signal, tell) => {
      let answer = null;
      for await (const event of api.events(`${ROOT}/ask`, { question: asked }, { signal })) {
        if (event.type === 'progress') tell(event.stage);
        if (event.type === 'result') answer = event;
      }
      return answer;
    });
  const compute = (asked, operation, field) =>
    start(`${t(operation)}: ${asked}`, (signal) =>
      api.post(`${ROOT}/compute`, { operation, arguments: { [field]: asked } }, { signal }),
    );

  const submit = () => {
    const asked = text.trim();
    if (!asked) return;
    setText('');
    ask(asked);
  };
  const operate = (operation, field) => {
    const call = reading?.call;
    // Of "derivative of x^2" the buttons take x^2.
    const inner = call && (call.arguments.expression ?? call.arguments.equations ?? call.arguments.expressions);
    compute(inner ?? text.trim(), operation, field);
    setText('');
  };
  const insert = ([, piece, back]) => {
    const area = input.current;
    const [from, to] = [area.selectionStart, area.selectionEnd];
    setText(text.slice(0, from) + piece + text.slice(to));
    requestAnimationFrame(() => {
      area.focus();
      area.setSelectionRange(from + piece.length - back, from + piece.length - back);
    });
  };
  const key = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  };
  const edit = (card) => {
    setText(card.question);
    input.current.focus();
    input.current.scrollIntoView({ block: 'center' });
  };
  const remove = (card) => {
    running.current.get(card.id)?.abort();
    setKept((all) => all.filter((one) => one.id !== card.id));
  };
  useEffect(() => {
    const all = running.current;
    input.current.focus({ preventScroll: true });
    if (question) ask(question);
    return () => all.forEach((controller) => controller.abort());
  }, []);

  return html`<div class="maths-ask">
    <form
      class="maths-input"
      onSubmit=${(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <${TextArea} inputRef=${input} value=${text} onInput=${setText} most=${160} maxlength="2000" placeholder=${t('placeholder')} aria-label=${t('inputLabel')} spellcheck="false" autocapitalize="off" onKeyDown=${key} />
      <div class="maths-preview" aria-live="polite">
        ${reading?.latex &&
        html`<span class="maths-reading">${t('understood')}</span><span class="maths-reading-kind">${t(reading.call.operation)}</span>
          <span class="maths-reading-formula"><${Formula} tex=${reading.latex} /></span>`}
        ${reading?.call && !reading.latex && html`<span class="maths-reading">${t('understood')}</span><span class="maths-reading-kind">${t(reading.call.operation)}</span>`}
      </div>
      <div class="maths-bar">
        <div class="maths-signs" role="group" aria-label=${t('signs')}>
          ${SIGNS.map((sign) => html`<button key=${sign[0]} type="button" class="maths-sign" aria-label=${`${t('signs')} ${sign[1]}`} onClick=${() => insert(sign)}>${sign[0]}</button>`)}
        </div>
        <${Button} kind="primary" type="submit" disabled=${!text.trim()}>${t('compute')}</>
      </div>
    </form>
    <div class="maths-operations" role="group" aria-label=${t('operations')}>
      ${OPERATIONS.map(([name, field]) => html`<${Button} key=${name} size="small" disabled=${!text.trim()} onClick=${() => operate(name, field)}>${t(name)}</>`)}
      ${cards.length > 0 && html`<${Button} kind="quiet" size="small" icon="trash" class="maths-clear" onClick=${() => setKept([])}>${t('clear')}</>`}
    </div>
    ${cards.length === 0 &&
    html`<${EmptyState} icon="maths" title=${t('startTitle')} text=${t('startText')}>
      <ul class="maths-examples">
        ${EXAMPLES[language()].map((example) => html`<li key=${example}><button type="button" class="maths-example" onClick=${() => ask(example)}>${example}</button></li>`)}
      </ul>
    </>`}
    <div class="maths-cards">
      ${cards.map((card) => html`<${Card} key=${card.id} card=${card} onRemove=${() => remove(card)} onEdit=${() => edit(card)} onAsk=${ask} />`)}
    </div>
  </div>`;
}

/** How the text is understood so far, a moment after the last key. */
function useReading(text) {
  const [reading, setReading] = useState(null);
  useEffect(() => {
    if (!text.trim()) {
      setReading(null);
      return undefined;
    }
    const controller = new AbortController();
    const timer = setTimeout(() => {
      api.post(`${ROOT}/read`, { text }, { signal: controller.signal }).then(setReading, () => {});
    }, 180);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text]);
  return reading;
}

