/** Formulas: found by description, browsed by topic, or written by the model. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language, number } from '../../lib/i18n.js';
import { Button, Notice, Progress, Section, useAsync } from '../../lib/ui.js';
import { Formula } from '../../lib/markdown.js';
import { FORMULA_EXAMPLES, t } from '../../texts/maths.js';
import { FormulaCard } from './formula-card.js';

const ROOT = '/workbench/maths';

export function Formulas() {
  const [text, setText] = useState('');
  const [found, setFound] = useState(null); // {busy, writing, formulas, written, error}
  const controller = useRef(null);
  const all = useAsync((signal) => api.get(`${ROOT}/formulas`, { signal }), []);
  useEffect(() => () => controller.current?.abort(), []);

  const find = async (description) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    setText(description);
    setFound({ busy: true });
    try {
      for await (const event of api.events(`${ROOT}/formula`, { description }, { signal: own.signal })) {
        if (event.type === 'progress') setFound({ busy: true, writing: true });
        if (event.type === 'result') setFound(event);
      }
    } catch (error) {
      if (error.name !== 'AbortError') setFound({ error: error.message });
      else if (own === controller.current) setFound(null);
    }
  };
  return html`<div class="maths-formulas">
    <form
      class="maths-find"
      onSubmit=${(event) => {
        event.preventDefault();
        if (text.trim()) find(text.trim());
      }}
    >
      <input value=${text} maxlength="400" aria-label=${t('formulaLabel')} placeholder=${t('formulaPlaceholder')} onInput=${(event) => setText(event.target.value)} />
      <${Button} kind="primary" type="submit" icon="search" disabled=${!text.trim()}>${t('find')}</>
    </form>
    <ul class="maths-examples">
      ${FORMULA_EXAMPLES[language()].map((example) => html`<li key=${example}><button type="button" class="maths-example" onClick=${() => find(example)}>${example}</button></li>`)}
    </ul>
    ${found && html`<${Found} found=${found} onCancel=${() => controller.current?.abort()} />`}
    ${all.value && html`<${Browse} formulas=${all.value.formulas} />`}
    ${all.error && html`<${Notice} kind="error" text=${all.error.message} />`}
  </div>`;
}

function Found({ found, onCancel }) {
  if (found.busy) return html`<${Progress} text=${found.writing ? t('writing') : t('stage_computing')} onCancel=${onCancel} />`;
  if (found.error) return html`<${Notice} kind="error" text=${found.error} />`;
  const shown = found.clear ? found.formulas.slice(0, 1) : [];
  const others = found.clear ? found.formulas.slice(1) : found.formulas;
  return html`<div class="maths-found">
    ${found.written && html`<article class="maths-card"><${FormulaCard} formula=${{ latex: found.written.latex, plain: '' }} note=${t('written')} /></article>`}
    ${shown.map((formula) => html`<article class="maths-card" key=${formula.id}><${FormulaCard} formula=${formula} /></article>`)}
    ${!found.written && !found.clear && html`<${Notice} kind="info" text=${found.model_error ?? t('nothingFound')} />`}
    ${others.length > 0 && html`<${Listed} formulas=${others} />`}
  </div>`;
}

function Browse({ formulas }) {
  const topics = [...new Set(formulas.map((formula) => formula.topic))];
  return html`<div class="maths-browse">
    <h2>${t('allFormulas', { n: number(formulas.length) })}</h2>
    ${topics.map((topic) => html`<${Section} key=${topic} title=${t(`topic_${topic}`)} open=${false}><${Listed} formulas=${formulas.filter((f) => f.topic === topic)} /></>`)}
  </div>`;
}

/** Names of formulas; one opens at a click. */
function Listed({ formulas }) {
  const [open, setOpen] = useState(null);
  return html`<ul class="maths-list">
    ${formulas.map(
      (formula) => html`<li key=${formula.id}>
        <button type="button" class="maths-row" aria-expanded=${String(open === formula.id)} onClick=${() => setOpen(open === formula.id ? null : formula.id)}>
          <span>${formula[language()]}</span><span class="maths-row-formula">${open !== formula.id && html`<${Formula} tex=${formula.latex} />`}</span>
        </button>
        ${open === formula.id && html`<${FormulaCard} formula=${formula} />`}
      </li>`,
    )}
  </ul>`;
}
