/** A known formula: drawn, explained, copied, and computed with. */

import { html, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language } from '../../lib/i18n.js';
import { Formula, loadKatex } from '../../lib/markdown.js';
import { Button, copyText, Menu, Notice } from '../../lib/ui.js';
import { t } from '../../texts/maths.js';

/** `formula` {en, zh, latex, plain, variables}; with `plain` values can be put in. */
export function FormulaCard({ formula, note }) {
  const [values, setValues] = useState({});
  const [answer, setAnswer] = useState(null); // {result} or {error}
  const names = formula.variables ?? [];
  const given = Object.entries(values).filter(([, value]) => value.trim());
  const compute = async (event) => {
    event.preventDefault();
    const body = { operation: 'formula', arguments: { name: formula.id, values: given.map(([name, value]) => `${name} = ${value}`).join(', ') } };
    try {
      setAnswer({ result: (await api.post('/workbench/maths/compute', body)).result });
    } catch (error) {
      setAnswer({ error: error.message });
    }
  };
  return html`<div class="maths-formula">
    <h3>${formula[language()] ?? note}</h3>
    <div class="maths-answer" tabindex="0"><${Formula} tex=${formula.latex} display /></div>
    ${names.length > 0 &&
    html`<form class="maths-variables" aria-label=${t('variables')} onSubmit=${compute}>
      ${names.map(
        ({ name, ...meaning }) => html`<label key=${name}>
          <span class="maths-variable"><${Formula} tex=${nameLatex(name)} /> ${meaning[language()]}</span>
          ${formula.plain && html`<input value=${values[name] ?? ''} placeholder=${t('value')} maxlength="60" onInput=${(event) => setValues({ ...values, [name]: event.target.value })} />`}
        </label>`,
      )}
      ${formula.plain && html`<div class="maths-actions"><${Button} size="small" type="submit" disabled=${given.length === 0}>${t('putValues')}</><small>${t('wantedIs')}</small></div>`}
    </form>`}
    ${answer?.result && html`<div class="maths-answer" tabindex="0"><${Formula} tex=${answer.result.latex} display />${answer.result.decimal && html`<span class="maths-decimal">≈ ${answer.result.decimal}</span>`}</div>`}
    ${answer?.error && html`<${Notice} kind="error" text=${answer.error} />`}
    <div class="maths-actions">
      <${Menu}
        trigger=${{ icon: 'copy', text: t('copy'), label: t('copy'), size: 'small' }}
        items=${[
          { label: t('copyLatex'), run: () => copyText(formula.latex) },
          { label: t('copyMathml'), run: () => copyMathml(formula.latex) },
          formula.plain ? { label: t('copyPlain'), run: () => copyText(formula.plain) } : false,
        ]}
      />
      ${note && html`<small>${note}</small>`}
    </div>
  </div>`;
}

async function copyMathml(tex) {
  const katex = await loadKatex();
  const made = katex.renderToString(tex, { output: 'mathml', throwOnError: false, displayMode: true });
  copyText(/<math[\s\S]*<\/math>/.exec(made)?.[0] ?? made);
}

const GREEK = new Set(['alpha', 'beta', 'lambda', 'mu', 'nu', 'rho', 'sigma', 'theta', 'phi', 'omega']);

/** ``x1`` -> ``x_{1}``, ``theta`` -> ``\theta``. */
function nameLatex(name) {
  const [, letters, digits] = /^([A-Za-z]+)(\d*)$/.exec(name) ?? [null, name, ''];
  const base = GREEK.has(letters) ? `\\${letters}` : letters;
  return digits && digits !== '0' ? `${base}_{${digits}}` : digits === '0' && 'EI'.includes(letters) ? base : digits ? `${base}_{0}` : base;
}
