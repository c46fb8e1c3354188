/** The parts that every screen is made of. Their looks are in styles/parts.css, fields.css, overlays.css. */

import { createContext, h, html, useContext, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js';
import { texts } from './i18n.js';
import { ICONS } from './icons.js';
import { keep, kept } from './store.js';

const t = texts({
  en: {
    busy: 'Working',
    cancel: 'Cancel',
    close: 'Close',
    copied: 'Copied',
    copyFailed: 'Copying is not allowed here. Select the text and press Ctrl+C.',
    details: 'Details',
    hide: 'Hide {name}',
    show: 'Show {name}',
    tryThese: 'Try one of these',
  },
  zh: {
    busy: '处理中',
    cancel: '取消',
    close: '关闭',
    copied: '已复制',
    copyFailed: '此处不允许复制。请选中文字后按 Ctrl+C。',
    details: '详情',
    hide: '隐藏{name}',
    show: '显示{name}',
    tryThese: '试试这些',
  },
});

let ids = 0;

/** An id of its own for each component that asks. */
function useId() {
  return useState(() => `u${++ids}`)[0];
}

/** Whether a media query holds now: `useMedia('(min-width: 60rem)')`. */
export function useMedia(query) {
  const [holds, setHolds] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const hear = () => setHolds(list.matches);
    hear();
    list.addEventListener('change', hear);
    return () => list.removeEventListener('change', hear);
  }, [query]);
  return holds;
}

/** useState that this browser remembers under `name`. Not for texts. */
export function useKept(name, otherwise) {
  const [value, setValue] = useState(() => kept(name, otherwise));
  const set = (next) => {
    keep(name, next);
    setValue(next);
  };
  return [value, set];
}

/**
 * Run `load(signal)` now and whenever `deps` change -> {value, error, loading, reload, set}.
 * The value stays while the next one loads; what is overtaken is aborted and ignored.
 */
export function useAsync(load, deps) {
  const [state, setState] = useState({ value: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    const arrive = (change) => !controller.signal.aborted && setState((old) => ({ ...old, ...change, loading: false }));
    setState((old) => ({ ...old, loading: true }));
    load(controller.signal).then(
      (value) => arrive({ value, error: null }),
      (error) => error.name !== 'AbortError' && arrive({ error }),
    );
    return () => controller.abort();
  }, [...deps, turn]);
  const set = (value) =>
    setState((old) => ({ ...old, value: typeof value === 'function' ? value(old.value) : value }));
  return { ...state, reload: () => setTurn((n) => n + 1), set };
}

/** A function that always runs the latest `run`, to be given to listeners that are added once. */
export function useLatest(run) {
  const ref = useRef(run);
  ref.current = run;
  return useState(() => (...args) => ref.current(...args))[0];
}

/** One of the strokes of icons.js; decoration only, so screen readers do not meet it. */
export function Icon({ name, size = 20 }) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${ICONS[name]} />
  </svg>`;
}

/**
 * A button. `kind`: 'primary' (one a screen), 'plain', 'quiet' (no frame) or 'danger'. With `icon`
 * and no children it is round and needs `label`. `busy` shows a turning ring and refuses clicks.
 */
export function Button({ kind = 'plain', icon, label, busy, disabled, pressed, size, children, class: extra = '', type = 'button', onClick, ...rest }) {
  const bare = children === undefined || (Array.isArray(children) && !children.length);
  const names = ['button', kind, size, bare && 'only-icon', extra].filter(Boolean).join(' ');
  return html`<button
    type=${type}
    class=${names}
    disabled=${disabled}
    aria-disabled=${busy ? 'true' : undefined}
    aria-busy=${busy ? 'true' : undefined}
    aria-pressed=${pressed === undefined ? undefined : String(pressed)}
    aria-label=${bare ? label : undefined}
    title=${bare ? label : rest.title}
    onClick=${(event) => !busy && onClick?.(event)}
    ...${rest}
  >
    ${busy ? html`<${Spinner} />` : icon && html`<${Icon} name=${icon} size=${bare ? 20 : 18} />`}
    ${!bare && html`<span class="button-text">${children}</span>`}
  </button>`;
}

/** A turning ring. */
export function Spinner() {
  return html`<span class="spinner" role="presentation"></span>`;
}

/**
 * A named control: `<${Field} label=... hint=... error=...><input .../></>`. The one child gets the
 * id and the descriptions.
 */
export function Field({ label, hint, error, children, class: extra = '' }) {
  const id = useId();
  const child = Array.isArray(children) ? children.find((c) => c?.type) : children;
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(' ');
  return html`<div class=${`field ${extra}`}>
    <label for=${id}>${label}</label>
    ${h(child.type, {
      ...child.props,
      key: child.key,
      ref: child.ref,
      id,
      'aria-describedby': about || undefined,
      'aria-invalid': error ? 'true' : undefined,
    })}
    ${hint && html`<p class="field-hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="field-error" id=${`${id}-error`} role="alert">${error}</p>`}
  </div>`;
}

/** A choice of `options` [{value, label, disabled}]; `onChange(value)`. `label` names it where no Field does. */
export function Select({ value, options, onChange, label, ...rest }) {
  return html`<span class="select">
    <select aria-label=${label} ...${rest} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map((o) => html`<option key=${o.value} value=${o.value} disabled=${o.disabled} selected=${String(o.value) === String(value)}>${o.label}</option>`)}
    </select>
    <${Icon} name="down" size=${16} />
  </span>`;
}

/** A text area as high as its text, up to `most` pixels. `onInput(value)`; `inputRef` reaches the element. */
export function TextArea({ value, onInput, most = 320, inputRef, ...rest }) {
  const own = useRef(null);
  const ref = inputRef ?? own;
  useLayoutEffect(() => {
    const area = ref.current;
    area.style.height = 'auto';
    area.style.height = `${Math.min(area.scrollHeight + 2, most)}px`;
    area.style.overflowY = area.scrollHeight + 2 > most ? 'auto' : 'hidden';
  }, [value, most]);
  return html`<textarea ref=${ref} rows="1" ...${rest} value=${value} onInput=${(event) => onInput(event.target.value)}></textarea>`;
}

/** Tabs [{id, label, icon}]; `onChange(id)`. What a tab shows is drawn by the screen. */
export function Tabs({ tabs, current, onChange, label }) {
  const list = useRef(null);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (tabs.findIndex((tab) => tab.id === current) + step + tabs.length) % tabs.length;
    onChange(tabs[next].id);
    list.current.children[next].focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>
    ${tabs.map(
      (tab) => html`<button
        key=${tab.id}
        type="button"
        role="tab"
        class="tab"
        aria-selected=${String(tab.id === current)}
        tabindex=${tab.id === current ? 0 : -1}
        onClick=${() => onChange(tab.id)}
      >
        ${tab.icon && html`<${Icon} name=${tab.icon} size=${18} />`}${tab.label}
      </button>`,
    )}
  </div>`;
}

/** One of a few, side by side: `options` [{value, label, icon}]; `onChange(value)`. */
export function Segmented({ options, value, onChange, label }) {
  const name = useId();
  return html`<div class="segmented" role="radiogroup" aria-label=${label}>
    ${options.map(
      (o) => html`<label key=${o.value} class=${o.value === value ? 'on' : ''} title=${o.icon ? o.label : undefined}>
        <input type="radio" name=${name} checked=${o.value === value} onChange=${() => onChange(o.value)} />
        ${o.icon && html`<${Icon} name=${o.icon} size=${18} />`}
        <span class=${o.icon && o.hideLabel ? 'unseen' : ''}>${o.label}</span>
      </label>`,
    )}
  </div>`;
}

/** On or off, with a text beside it; `onChange(checked)`. */
export function Check({ checked, onChange, children, disabled }) {
  return html`<label class="check">
    <input type="checkbox" checked=${checked} disabled=${disabled} onChange=${(event) => onChange(event.target.checked)} />
    <span>${children}</span>
  </label>`;
}

/** What an empty place is for, and examples [{label, text, run}] one click away. */
export function EmptyState({ icon, title, text, examples = [], children }) {
  return html`<section class="empty">
    ${icon && html`<span class="empty-icon"><${Icon} name=${icon} size=${28} /></span>`}
    <h2>${title}</h2>
    ${text && html`<p>${text}</p>`}
    ${children}
    ${examples.length > 0 &&
    html`<ul class="examples" aria-label=${t('tryThese')}>
      ${examples.map(
        (example) => html`<li key=${example.label}>
          <button type="button" class="example" onClick=${example.run}>
            <span class="example-label">${example.label}</span>
            ${example.text && html`<span class="example-text">${example.text}</span>`}
          </button>
        </li>`,
      )}
    </ul>`}
  </section>`;
}

/** How far a long action is: `value` of `max` (no `max`: unknown), what it does, how to end it. */
export function Progress({ value, max, text, onCancel }) {
  const known = max > 0;
  const bar = useRef(null);
  useLayoutEffect(() => {
    bar.current.style.width = known ? `${Math.min(100, (100 * value) / max)}%` : '';
  });
  return html`<div class="progress">
    <div class="progress-line">
      <span class="progress-text">${text}</span>
      ${onCancel && html`<${Button} kind="quiet" size="small" icon="close" onClick=${onCancel}>${t('cancel')}</>`}
    </div>
    <div
      class=${`progress-track ${known ? '' : 'unknown'}`}
      role="progressbar"
      aria-label=${text || t('busy')}
      aria-valuemin="0"
      aria-valuemax=${known ? max : undefined}
      aria-valuenow=${known ? value : undefined}
    >
      <span ref=${bar}></span>
    </div>
  </div>`;
}

const NOTICE_ICONS = { info: 'info', warning: 'warning', error: 'warning' };

/** A message in the page. `kind`: 'info', 'warning' or 'error'. `action` {label, run}. */
export function Notice({ kind = 'info', text, action, onClose, children }) {
  return html`<div class=${`notice ${kind}`} role=${kind === 'error' ? 'alert' : 'status'}>
    <${Icon} name=${NOTICE_ICONS[kind]} size=${18} />
    <div class="notice-text">${text}${children}</div>
    ${action && html`<${Button} size="small" onClick=${action.run}>${action.label}</>`}
    ${onClose && html`<${Button} kind="quiet" size="small" icon="close" label=${t('close')} onClick=${onClose} />`}
  </div>`;
}

/**
 * A button that opens a list of actions [{label, icon, run, danger, disabled, checked}]; null makes
 * a line. With `children` it opens those instead. `trigger` {icon, label, kind, size, text, disabled} is how the button looks.
 */
export function Menu({ items, trigger, children, class: extra = '' }) {
  const id = useId();
  const button = useRef(null);
  const list = useRef(null);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const shown = (event) => setOpen(event.newState === 'open');
    list.current.addEventListener('toggle', shown);
    return () => list.current?.removeEventListener('toggle', shown);
  }, []);
  // Its size is known only when its entries are there.
  useLayoutEffect(() => {
    if (!open) return;
    place(list.current, button.current);
    (list.current.querySelector('[role^=menuitem]:not(:disabled)') ?? list.current).focus();
  }, [open]);
  const role = children ? 'dialog' : 'menu';
  const close = () => list.current.hidePopover();
  const move = (event) => {
    const entries = [...list.current.querySelectorAll('[role^=menuitem]:not(:disabled)')];
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined && entries.length) {
      event.preventDefault();
      entries.at(to % entries.length).focus();
    } else if (event.key === 'Tab') close();
  };
  return html`<span class=${`menu ${extra}`} ref=${button}>
    <${Button}
      kind=${trigger.kind ?? 'quiet'}
      size=${trigger.size}
      icon=${trigger.icon}
      label=${trigger.label}
      disabled=${trigger.disabled}
      aria-haspopup=${role}
      aria-expanded=${String(open)}
      aria-controls=${id}
      onClick=${() => list.current.togglePopover()}
    >${trigger.text}</>
    <div class="menu-list" id=${id} popover="auto" role=${role} aria-label=${trigger.label ?? trigger.text} tabindex="-1" ref=${list} onKeyDown=${move} onClick=${(event) => event.target.closest('a') && close()}>
      ${open &&
      (children ??
        items.filter((item) => item !== false).map((item, i) =>
          item === null
            ? html`<hr key=${i} />`
            : html`<button
                key=${item.label}
                type="button"
                role=${item.checked === undefined ? 'menuitem' : 'menuitemradio'}
                aria-checked=${item.checked === undefined ? undefined : String(item.checked)}
                class=${`menu-item ${item.danger ? 'danger' : ''}`}
                disabled=${item.disabled}
                tabindex="-1"
                onClick=${() => {
                  close();
                  button.current.querySelector('button').focus();
                  item.run();
                }}
              >
                ${item.icon ? html`<${Icon} name=${item.icon} size=${18} />` : item.checked !== undefined && html`<span class="menu-mark">${item.checked && html`<${Icon} name="check" size=${18} />`}</span>`}
                <span>${item.label}${item.hint && html`<small>${item.hint}</small>`}</span>
              </button>`,
        ))}
    </div>
  </span>`;
}

/** Put a popover beside its button: below if there is room, else above; inside the window. */
export function place(popover, anchor) {
  const at = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = popover;
  const left = at.left + width > innerWidth - 8 ? at.right - width : at.left;
  const below = at.bottom + 4;
  const top = below + height > innerHeight - 8 && at.top - 4 - height > 8 ? at.top - 4 - height : below;
  popover.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  popover.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
}

/** A question that must be answered before going on; `onClose` also for Escape. */
export function Dialog({ title, onClose, children, actions }) {
  const id = useId();
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    // Not on the button that closes it, where the browser would begin.
    dialog.querySelector('.dialog-body :is(input, textarea, select, button)')?.focus();
    return () => dialog.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${ref} class="dialog" aria-labelledby=${id} onCancel=${cancel} onClick=${(event) => event.target === ref.current && onClose()}>
    <div class="dialog-inside">
      <header class="dialog-head">
        <h2 id=${id}>${title}</h2>
        <${Button} kind="quiet" icon="close" label=${t('close')} onClick=${onClose} />
      </header>
      <div class="dialog-body">${children}</div>
      ${actions && html`<footer class="dialog-actions">${actions}</footer>`}
    </div>
  </dialog>`;
}

/** An overlay is modal by habit: Escape and a click beside it close it, focus goes in and back. */
function Overlay({ onClose, label, class: extra, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current.focus();
    return () => before?.focus?.();
  }, []);
  const key = (event) => {
    if (event.key !== 'Escape' || event.isComposing) return;
    event.stopPropagation();
    onClose();
  };
  return html`<div class="overlay" onKeyDown=${key}>
    <div class="overlay-ground" onClick=${onClose}></div>
    <aside class=${`overlay-panel ${extra}`} ref=${ref} tabindex="-1" aria-label=${label}>${children}</aside>
  </div>`;
}

const InPage = createContext({ closeDetails: null });

/**
 * The frame of a screen. `side` (a list, left) and `details` (right; a `Details`) are columns
 * where there is room and overlays where there is not. `bare` leaves the layout of the body to the
 * screen; otherwise it is one scrolling column, `wide` for tables and charts. The details open and
 * close by themselves unless `detailsOpen` and `onDetails(open)` are given.
 */
export function Page({ title, subtitle, actions, side, sideLabel, details, detailsLabel, detailsOpen, onDetails, bare, wide, name = 'page', children }) {
  const roomForSide = useMedia('(min-width: 56rem)');
  const roomForDetails = useMedia('(min-width: 80rem)');
  const [sideKept, setSideKept] = useKept(`side.${name}`, true);
  const [sideOver, setSideOver] = useState(false);
  const [detailsKept, setDetailsKept] = useKept(`details.${name}`, false);
  const [detailsOver, setDetailsOver] = useState(false);
  const own = detailsOpen === undefined;
  const showDetails = Boolean(details) && (own ? (roomForDetails ? detailsKept : detailsOver) : detailsOpen);
  const setDetails = own ? (roomForDetails ? setDetailsKept : setDetailsOver) : onDetails;
  const showSide = Boolean(side) && (roomForSide ? sideKept : sideOver);
  const setSide = roomForSide ? setSideKept : setSideOver;
  // Where one goes in a list that covers the page, the list has done its work.
  useEffect(() => {
    const gone = () => setSideOver(false);
    addEventListener('hashchange', gone);
    return () => removeEventListener('hashchange', gone);
  }, []);
  const label = detailsLabel ?? t('details');
  const toggle = (shown, what) => t(shown ? 'hide' : 'show', { name: what });
  return html`<div class="page">
    ${showSide && roomForSide && html`<aside class="page-side" aria-label=${sideLabel}>${side}</aside>`}
    <div class="page-main">
      <header class="page-head">
        ${side && html`<${Button} kind="quiet" icon="list" label=${toggle(showSide, sideLabel)} aria-expanded=${String(showSide)} onClick=${() => setSide(!showSide)} />`}
        <div class="page-title"><h1>${title}</h1>${subtitle && html`<p>${subtitle}</p>`}</div>
        <div class="page-actions">
          ${actions}
          ${details && html`<${Button} kind="quiet" icon="panel" label=${toggle(showDetails, label)} aria-expanded=${String(showDetails)} onClick=${() => setDetails(!showDetails)} />`}
        </div>
      </header>
      ${bare ? children : html`<div class="page-body" tabindex="-1"><div class=${`column ${wide ? 'wide' : ''}`}>${children}</div></div>`}
    </div>
    <${InPage.Provider} value=${{ closeDetails: () => setDetails(false) }}>
      ${showDetails && roomForDetails && html`<aside class="page-details" aria-label=${label}>${details}</aside>`}
      ${showDetails && !roomForDetails && html`<${Overlay} class="right" label=${label} onClose=${() => setDetails(false)}>${details}</>`}
    </>
    ${showSide && !roomForSide && html`<${Overlay} class="left" label=${sideLabel} onClose=${() => setSide(false)}>${side}</>`}
  </div>`;
}

/** The right-hand panel, given to a Page as `details`. */
export function Details({ title, actions, children, ...rest }) {
  const { closeDetails } = useContext(InPage);
  return html`<div class="details" ...${rest}>
    <header class="details-head">
      <h2>${title}</h2>
      ${actions}
      <${Button} kind="quiet" icon="close" label=${t('close')} onClick=${closeDetails} />
    </header>
    <div class="details-body">${children}</div>
  </div>`;
}

/** A part of a details panel or a page that can be folded; `open` at first. */
export function Section({ title, open = true, children }) {
  return html`<details class="section" open=${open}>
    <summary>${title}<${Icon} name="down" size=${16} /></summary>
    <div class="section-body">${children}</div>
  </details>`;
}

let showToast = () => {};

/**
 * A short word at the bottom of the window. `action` {label, run} is what can be done about it
 * ("Undo"); `kind` 'info' or 'error'; `seconds` until it goes.
 */
export function toast(text, { action, kind = 'info', seconds = action ? 8 : 4 } = {}) {
  showToast({ id: ++ids, text, action, kind, seconds });
}

/** Where toasts appear; the shell draws it once. */
export function Toasts() {
  const [shown, setShown] = useState([]);
  const drop = (id) => setShown((all) => all.filter((one) => one.id !== id));
  showToast = (one) => {
    setShown((all) => [...all.slice(-2), one]);
    setTimeout(() => drop(one.id), one.seconds * 1000);
  };
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map(
      (one) => html`<div key=${one.id} class=${`toast ${one.kind}`}>
        <span>${one.text}</span>
        ${one.action && html`<${Button} kind="quiet" size="small" onClick=${() => { drop(one.id); one.action.run(); }}>${one.action.label}</>`}
        <${Button} kind="quiet" size="small" icon="close" label=${t('close')} onClick=${() => drop(one.id)} />
      </div>`,
    )}
  </div>`;
}

/** Put text on the clipboard and say so. Browsers give plain HTTP from elsewhere no clipboard. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(t('copied'));
    return true;
  } catch {
    toast(t('copyFailed'), { kind: 'error' });
    return false;
  }
}

/** Let the reader keep `content` (text or Blob) as a file. */
export function download(name, content, type = 'text/plain;charset=utf-8') {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Whether something modal is open that Escape belongs to. */
export const modalOpen = () => document.querySelector('dialog[open], [popover]:popover-open, .overlay') !== null;
