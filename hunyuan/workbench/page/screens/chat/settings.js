/** The details of a conversation: model, system prompt, sampling. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { Button, Details, Field, TextArea, useLatest } from '../../lib/ui.js';
import { ModelPicker } from '../../lib/model-picker.js';
import { t } from '../../texts/chat.js';

const SLIDERS = [
  { name: 'temperature', min: 0, max: 2, step: 0.05, hint: 'temperatureHint' },
  { name: 'top_p', min: 0.05, max: 1, step: 0.05 },
  { name: 'min_p', min: 0, max: 0.5, step: 0.01 },
  { name: 'repetition_penalty', min: 0.8, max: 1.8, step: 0.05 },
];
const NUMBERS = [
  { name: 'top_k', min: 0, max: 1000 },
  { name: 'max_tokens', min: 1, max: 131072 },
  { name: 'seed', min: 0, max: 2147483647 },
];

/**
 * `value` {system, settings} is what it begins with (keyed by conversation); `onChange(part)` is
 * called when typing rests, or goes on elsewhere: a question is asked with what was just set.
 */
export function Settings({ value, onChange }) {
  const [draft, setDraft] = useState(value);
  const timer = useRef(0);
  const pending = useRef(null);
  const save = useLatest(() => {
    clearTimeout(timer.current);
    if (pending.current) onChange(pending.current);
    pending.current = null;
  });
  // What was typed last is kept when the panel goes.
  useEffect(() => save, []);
  const change = (part) => {
    setDraft((old) => ({ ...old, ...part }));
    pending.current = { ...pending.current, ...part };
    clearTimeout(timer.current);
    timer.current = setTimeout(save, 400);
  };
  const { settings } = draft;
  const set = (name, number) => {
    const next = { ...settings };
    if (number === null) delete next[name];
    else next[name] = number;
    change({ settings: next });
  };
  return html`<${Details} title=${t('details')} onBlurCapture=${save}>
    <${ModelPicker} label=${t('modelPick')} />
    <${Field} label=${t('system')} hint=${t('systemHint')}>
      <${TextArea} value=${draft.system ?? ''} placeholder=${t('systemPlaceholder')} onInput=${(text) => change({ system: text || null })} most=${240} />
    </>
    <h3>${t('sampling')}</h3>
    ${SLIDERS.map((slider) => html`<${Slider} key=${slider.name} ...${slider} value=${settings[slider.name] ?? null} onChange=${(n) => set(slider.name, n)} />`)}
    ${NUMBERS.map((one) => html`<${Whole} key=${one.name} ...${one} value=${settings[one.name] ?? null} onChange=${(n) => set(one.name, n)} />`)}
    ${Object.values(settings).some((one) => one !== null) && html`<${Button} icon="undo" onClick=${() => change({ settings: {} })}>${t('reset')}</>`}
  </>`;
}

/** A number on a scale; null is the model's own default, and the knob rests in the middle. */
function Slider({ name, min, max, step, hint, value, onChange }) {
  return html`<div class=${`slider ${value === null ? 'unset' : ''}`}>
    <${Field} label=${t(name)} hint=${hint && t(hint)}>
      <input type="range" min=${min} max=${max} step=${step} value=${value ?? (min + max) / 2} aria-valuetext=${value ?? t('byDefault')} onInput=${(event) => onChange(Number(event.target.value))} />
    </>
    <output>${value === null ? t('byDefault') : value.toFixed(2)}</output>
  </div>`;
}

/** A whole number; empty is the default. What is out of range is said and not kept. */
function Whole({ name, min, max, value, onChange }) {
  const [text, setText] = useState(value === null ? '' : String(value));
  useEffect(() => {
    if (value === null || Number(text) !== value) setText(value === null ? '' : String(value));
  }, [value]);
  const number = Number(text);
  const wrong = text !== '' && !(Number.isInteger(number) && number >= min && number <= max);
  const type = (event) => {
    const typed = event.target.value;
    const next = Number(typed);
    setText(typed);
    if (typed === '') onChange(null);
    else if (Number.isInteger(next) && next >= min && next <= max) onChange(next);
  };
  return html`<${Field} label=${t(name)} error=${wrong && t('outOfRange', { min, max })}>
    <input type="number" inputmode="numeric" min=${min} max=${max} value=${text} placeholder=${t('byDefault')} onInput=${type} />
  </>`;
}
