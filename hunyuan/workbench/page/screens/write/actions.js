/** What the model can do with a text: asking it, the bar with the actions, the forms of two. */

import { html, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { Button, Field, Icon, Menu, Select, TextArea } from '../../lib/ui.js';
import { t } from '../../texts/write.js';

const ROOT = '/workbench/write/actions';
const GROUPS = [['draft', 'continue'], ['polish', 'rewrite', 'shorten', 'expand', 'translate'], ['summarise', 'brainstorm', 'title']];
const FORMS = new Set(['draft', 'brainstorm']);

export const nameOf = (action) => t(action === 'title' ? 'titleAction' : action);

/**
 * The action that runs and its result -> {running, result, error, run, stop, clear}. `running` is
 * {action, span, text: the preview, progress}; `result` is the server's, with `fields` and `text`.
 */
export function useAction() {
  const [state, setState] = useState({ running: null, result: null, error: null });
  const controller = useRef(null);

  const run = async (action, { text, span, fields }) => {
    controller.current?.abort();
    const mine = (controller.current = new AbortController());
    const running = { action, span, parts: [], progress: null };
    const show = () => mine === controller.current && setState({ running: { ...running, text: running.parts.join('') }, result: null, error: null });
    show();
    try {
      let result = null;
      for await (const event of api.events(`${ROOT}/${action}`, { text, span, ...fields }, { signal: mine.signal })) {
        if (event.type === 'progress') running.progress = event;
        if (event.type === 'restart') running.parts[event.part - 1] = '';
        if (event.type === 'delta') running.parts[event.part - 1] = (running.parts[event.part - 1] ?? '') + event.text;
        if (event.type === 'result') result = event;
        show();
      }
      if (mine === controller.current) setState({ running: null, result: { ...result, fields, text }, error: null });
      return result;
    } catch (error) {
      if (mine === controller.current) setState({ running: null, result: null, error: error.name === 'AbortError' ? null : error });
      return null;
    }
  };
  return {
    ...state,
    run,
    stop: () => controller.current?.abort(),
    clear: () => setState({ running: null, result: null, error: null }),
  };
}

/** The bar. `actions` as the server lists them; `onRun(action, fields)`, `onForm(action)`. */
export function ActionBar({ actions, disabled, form, onRun, onForm }) {
  const byName = new Map(actions.map((one) => [one.action, one]));
  // The selection must survive a click here.
  const keep = (event) => event.target.closest('[role^=menu]') || event.preventDefault();
  return html`<div class="action-bar" role="toolbar" aria-label=${t('actions')} onMouseDown=${keep}>
    ${GROUPS.map(
      (group, i) => html`<span class="action-group" key=${i}>
        ${group.filter((name) => byName.has(name)).map((name) => {
          const field = byName.get(name).fields.find(({ choices }) => choices?.length > 1);
          if (FORMS.has(name)) return html`<${Button} key=${name} kind="quiet" disabled=${disabled} pressed=${form === name} onClick=${() => onForm(name)}>${nameOf(name)}</>`;
          if (!field || name === 'continue') return html`<${Button} key=${name} kind="quiet" disabled=${disabled} onClick=${() => onRun(name, {})}>${nameOf(name)}</>`;
          return html`<${Menu}
            key=${name}
            trigger=${{ text: html`${nameOf(name)}<${Icon} name="down" size=${14} />`, label: nameOf(name), disabled }}
            items=${field.choices.map((choice) => ({ label: t(`choice_${choice}`), run: () => onRun(name, { [field.name]: choice }) }))}
          />`;
        })}
      </span>`,
    )}
  </div>`;
}

/** The form of an action: a brief and its choices. `onRun(fields)`. */
export function ActionForm({ action, initial = {}, onRun, onClose }) {
  const start = () => Object.fromEntries(action.fields.map((field) => [field.name, initial[field.name] ?? field.default ?? field.choices?.[0] ?? '']));
  const [values, setValues] = useState(start);
  const set = (name, value) => setValues((old) => ({ ...old, [name]: value }));
  const missing = action.fields.some(({ name, required }) => required && !String(values[name]).trim());
  const submit = (event) => {
    event.preventDefault();
    if (missing) return;
    onRun(Object.fromEntries(Object.entries(values).filter(([, value]) => value !== '')));
  };
  const press = (event) => {
    if (event.key === 'Escape' && !event.isComposing) onClose();
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) submit(event);
  };
  return html`<form class="action-form" onSubmit=${submit} onKeyDown=${press}>
    ${action.fields.map((field) => html`<${Field} key=${field.name} class=${field.name} label=${t(`field_${field.name}`)} hint=${field.name === 'brief' ? t('briefHint') : null}>
      ${control(field, values[field.name], (value) => set(field.name, value))}
    </>`)}
    <div class="form-actions">
      <${Button} kind="quiet" onClick=${onClose}>${t('cancel')}</>
      <${Button} kind="primary" type="submit" icon="spark" disabled=${missing}>${t(action.action === 'draft' ? 'write' : 'find')}</>
    </div>
  </form>`;
}

function control(field, value, change) {
  if (field.choices) return html`<${Select} value=${value} options=${field.choices.map((choice) => ({ value: choice, label: t(`choice_${choice}`) }))} onChange=${change} />`;
  if (field.kind === 'count') return html`<input type="number" min=${field.min} max=${field.max} value=${value} onInput=${(event) => change(event.target.value === '' ? '' : Number(event.target.value))} />`;
  if (field.name === 'brief') return html`<${TextArea} value=${value} onInput=${change} most=${200} />`;
  return html`<input type="text" value=${value} placeholder=${field.name === 'audience' ? t('audiencePlaceholder') : ''} onInput=${(event) => change(event.target.value)} />`;
}
