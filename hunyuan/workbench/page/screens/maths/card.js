/** One question with its answer: a value with its working, a graph, or a formula. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language, number } from '../../lib/i18n.js';
import { Formula, loadKatex, Markdown } from '../../lib/markdown.js';
import { Button, copyText, Icon, Menu, Notice, Progress, Segmented } from '../../lib/ui.js';
import { EXAMPLES, t } from '../../texts/maths.js';
import { FormulaCard } from './formula-card.js';
import { Graph } from './graph.js';

export function Card({ card, onRemove, onEdit, onAsk }) {
  const { question, answer, busy, stage, error } = card;
  return html`<article class="maths-card" aria-busy=${String(Boolean(busy))}>
    <header class="maths-card-head">
      <h2><button type="button" class="maths-question" title=${t('again')} onClick=${onEdit}>${question}</button></h2>
      <${Button} kind="quiet" size="small" icon="close" label=${busy ? t('stop') : t('remove')} onClick=${onRemove} />
    </header>
    ${busy && html`<${Progress} text=${t(`stage_${stage}`)} onCancel=${onRemove} />`}
    ${error && html`<${Notice} kind="error" text=${error} />`}
    ${answer && html`<${Answer} answer=${answer} question=${question} onAsk=${onAsk} />`}
  </article>`;
}

function Answer({ answer, question, onAsk }) {
  if (answer.kind === 'not_understood') return html`<${NotUnderstood} answer=${answer} onAsk=${onAsk} />`;
  return html`
    ${answer.understood_by === 'model' && html`<${Notice} kind="warning" text=${t('byModel')}><div class="maths-call">${called(answer.call)}</div></>`}
    ${answer.kind === 'value' && html`<${Value} answer=${answer} question=${question} />`}
    ${answer.kind === 'chart' && html`<${Graph} answer=${answer} />`}
    ${answer.kind === 'formula' && html`<${FormulaCard} formula=${answer.formula} />`}
  `;
}

/** A call as a short line: ``12 - 5``, or its fields. */
const called = ({ operation, arguments: given }) => `${t(operation)}: ${Object.values(given).join(', ')}`;

function NotUnderstood({ answer, onAsk }) {
  return html`<div class="maths-refused">
    <${Notice} kind="info" text=${answer.message} />
    <ul class="maths-examples">
      ${EXAMPLES[language()].slice(0, 5).map((example) => html`<li key=${example}><button type="button" class="maths-example" onClick=${() => onAsk(example)}>${example}</button></li>`)}
    </ul>
  </div>`;
}

function Value({ answer, question }) {
  const { result } = answer;
  const [form, setForm] = useState(result.prefer_decimal && result.decimal ? 'decimal' : 'exact');
  const [open, setOpen] = useState(false);
  const shown = form === 'decimal' ? decimalLatex(result) : result.latex;
  const relation = /^(?:solve)$/.test(result.operation) || result.operation === 'formula' ? '\\Rightarrow' : form === 'decimal' && !endsExactly(result) ? '\\approx' : '=';
  const text = (step) => step[language()];
  return html`
    <div class="maths-answer" tabindex="0" role="group" aria-label=${form === 'decimal' ? result.decimal : result.exact}>
      <span class="maths-asked"><${Formula} tex=${result.question} display /></span>
      <span class="maths-value">${relation && html`<${Formula} tex=${relation} />`}<${Formula} tex=${shown} display /></span>
    </div>
    ${result.notes.map((note) => html`<p key=${note.en} class="maths-note"><${Icon} name="info" size=${16} />${text(note)}</p>`)}
    <div class="maths-actions">
      ${result.decimal && html`<${Segmented} label=${t('form')} value=${form} onChange=${setForm} options=${[{ value: 'exact', label: t('exact') }, { value: 'decimal', label: t('decimal') }]} />`}
      ${result.steps.length > 0 && html`<${Button} size="small" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>${open ? t('hideSteps') : t('stepCount', { n: result.steps.length })}</>`}
      <${CopyMenu} result=${result} />
      <${Explanation} answer=${answer} question=${question} />
    </div>
    ${open &&
    html`<ol class="maths-steps" tabindex="0" aria-label=${t('steps')}>
      ${result.steps.map((step, i) => html`<li key=${i}><span>${text(step)}</span>${step.latex && html`<${Formula} tex=${step.latex} display />`}</li>`)}
    </ol>`}
    <footer class="maths-foot">
      ${result.check &&
      html`<span class=${`maths-check ${result.check.passed === false ? 'bad' : result.check.passed ? 'good' : ''}`}>
        <${Icon} name=${result.check.passed === false ? 'warning' : result.check.passed ? 'check' : 'info'} size=${16} />
        ${t(`check_${result.check.passed}`, { text: text(result.check) })}
      </span>`}
      <span>${[answer.understood_by === 'rules' && t('byRules'), t('computedBy', { by: result.computed_by }), answer.milliseconds !== undefined && t('inTime', { n: number(answer.milliseconds, 0) })].filter(Boolean).join(' · ')}</span>
    </footer>
  `;
}

/** Whether the decimal is the value itself and no approximation. */
function endsExactly({ decimal, exact }) {
  const digits = decimal.replace(/\D/g, '');
  return digits.length < 15 && !/sqrt|pi|e|ln|sin|cos|tan/.test(exact);
}

function decimalLatex({ decimal, latex }) {
  const text = decimal
    .replace(/([a-z]) ≈/g, '$1 \\approx')
    .replace(/; /g, ';\\quad ')
    .replace(/, (?=[a-z] )/g, ',\\quad ')
    .replace(/(\d)e(-?\d+)/g, '$1 \\times 10^{$2}')
    .replace(/%/g, '\\%');
  if (text.startsWith('[[')) return `\\begin{pmatrix} ${text.slice(2, -2).split('], [').map((row) => row.replaceAll(', ', ' & ')).join(' \\\\ ')} \\end{pmatrix}`;
  // A unit keeps the form it has in the exact answer.
  const unit = /\\, .*(?:\\mathrm|\\circ).*$/.exec(latex)?.[0];
  if (unit) return `${text.split(' ')[0]} ${unit}`;
  return text;
}

function CopyMenu({ result }) {
  const mathml = async () => {
    const katex = await loadKatex();
    const made = katex.renderToString(result.latex, { output: 'mathml', throwOnError: false, displayMode: true });
    copyText(/<math[\s\S]*<\/math>/.exec(made)?.[0] ?? made);
  };
  return html`<${Menu}
    trigger=${{ icon: 'copy', text: t('copy'), label: t('copy'), size: 'small' }}
    items=${[
      { label: t('copyLatex'), hint: result.latex.length < 60 ? ` ${result.latex}` : '', run: () => copyText(result.latex) },
      { label: t('copyMathml'), run: mathml },
      { label: t('copyPlain'), run: () => copyText(result.exact) },
      result.decimal ? { label: t('copyDecimal'), run: () => copyText(result.decimal) } : false,
    ]}
  />`;
}

/** What the model says about a result, shown only if its numbers are the tool's. */
function Explanation({ answer, question }) {
  const [state, setState] = useState(null); // {busy, text, agrees, error}
  const controller = useRef(null);
  useEffect(() => () => controller.current?.abort(), []);
  const start = async () => {
    controller.current = new AbortController();
    setState({ busy: true });
    try {
      const body = { question, ...answer.call };
      for await (const event of api.events('/workbench/maths/explain', body, { signal: controller.current.signal })) {
        if (event.type === 'result') setState({ text: event.text, agrees: event.agrees });
      }
    } catch (error) {
      setState(error.name === 'AbortError' ? null : { error: error.message });
    }
  };
  if (!state) return html`<${Button} kind="quiet" size="small" icon="spark" onClick=${start}>${t('explain')}</>`;
  return html`<div class="maths-explained">
    ${state.busy && html`<${Progress} text=${t('explaining')} onCancel=${() => controller.current.abort()} />`}
    ${state.error && html`<${Notice} kind="error" text=${state.error} />`}
    ${state.agrees === false && html`<${Notice} kind="warning" text=${t('explainDiffers')} />`}
    ${state.agrees && html`<${Markdown} text=${state.text} actions=${false} /><small>${t('explainAgrees')}</small>`}
  </div>`;
}
