/** A text area for programs: line numbers, colours, Tab that indents. */

import { html, useEffect, useLayoutEffect, useRef, useState } from '../../vendor/preact.js';
import DOMPurify from '../../vendor/dompurify.js';

const INDENT = '    ';
const LONGEST_COLOURED = 50_000;

/**
 * `value`, `onInput(value)`, `onRun()` for Ctrl+Enter. `mark` is a line to point at. `control.current`
 * gets `{goTo(line), replace(text)}`; what `replace` does can be undone by Ctrl+Z.
 */
export function Editor({ id, value, onInput, onRun, mark, label, hint, placeholder, control }) {
  const area = useRef(null);
  const gutter = useRef(null);
  const paint = useRef(null);
  const [leaving, setLeaving] = useState(false);
  const lines = value.split('\n').length;

  useLayoutEffect(() => follow(area.current, gutter.current, paint.current));
  useEffect(() => {
    control.current = {
      goTo: (line) => goTo(area.current, line),
      replace: (text) => {
        area.current.focus();
        area.current.select();
        insert(area.current, text, onInput);
        area.current.setSelectionRange(0, 0);
        area.current.scrollTop = 0;
      },
    };
  });
  useColours(paint, value);

  const press = (event) => {
    if (event.isComposing) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onRun();
    } else if (event.key === 'Escape') {
      // A key that indents would hold who has no mouse: Esc lets the next Tab go.
      setLeaving(true);
      return;
    } else if (event.key === 'Tab' && plain && !leaving) {
      event.preventDefault();
      if (event.shiftKey) outdent(area.current, onInput);
      else indent(area.current, onInput);
    } else if (event.key === 'Enter' && plain && !event.shiftKey) {
      event.preventDefault();
      newLine(area.current, onInput);
    }
    if (event.key !== 'Tab' && event.key !== 'Shift') setLeaving(false);
  };

  return html`<div class="editor">
    <div class="editor-gutter" ref=${gutter} aria-hidden="true">
      ${Array.from({ length: lines }, (_, i) => html`<span key=${i} class=${i + 1 === mark ? 'marked' : ''}>${i + 1}</span>`)}
    </div>
    <div class="editor-field">
      <pre class="editor-paint" aria-hidden="true" ref=${paint}></pre>
      <textarea
        id=${id}
        ref=${area}
        class="editor-text"
        aria-label=${label}
        aria-description=${hint}
        placeholder=${placeholder}
        value=${value}
        spellcheck=${false}
        autocapitalize="off"
        autocomplete="off"
        wrap="off"
        onInput=${(event) => onInput(event.target.value)}
        onKeyDown=${press}
        onBlur=${() => setLeaving(false)}
        onScroll=${() => follow(area.current, gutter.current, paint.current)}
      ></textarea>
    </div>
  </div>`;
}

function follow(area, gutter, paint) {
  gutter.scrollTop = area.scrollTop;
  paint.scrollTop = area.scrollTop;
  paint.scrollLeft = area.scrollLeft;
}

/** A program to read, in colours. */
export function Program({ code }) {
  const ref = useRef(null);
  useColours(ref, code);
  return html`<pre class="program" tabindex="0" ref=${ref}></pre>`;
}

/** The text in colours: in the editor under the transparent one of the field. */
function useColours(target, value) {
  useLayoutEffect(() => {
    // One line more, so that both scroll as far.
    target.current.textContent = `${value}\n`;
    if (value.length > LONGEST_COLOURED) return undefined;
    let here = true;
    import('../../vendor/highlight.js').then(({ default: hljs }) => {
      if (!here || !target.current) return;
      const { value: marked } = hljs.highlight(`${value}\n`, { language: 'python', ignoreIllegals: true });
      const clean = DOMPurify.sanitize(marked, { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'] });
      const { scrollTop, scrollLeft } = target.current;
      target.current.replaceChildren(clean);
      Object.assign(target.current, { scrollTop, scrollLeft });
    });
    return () => {
      here = false;
    };
  }, [value]);
}

/** Put text where the selection is, so that the browser's undo knows of it. */
function insert(area, text, onInput) {
  // The only way that keeps the history of the field; setRangeText would forget it.
  const done = text ? document.execCommand('insertText', false, text) : document.execCommand('delete');
  if (!done) area.setRangeText(text, area.selectionStart, area.selectionEnd, 'end');
  onInput(area.value);
}

function lineStart(area) {
  return area.value.lastIndexOf('\n', area.selectionStart - 1) + 1;
}

function indent(area, onInput) {
  const { selectionStart: start, selectionEnd: end, value } = area;
  if (!value.slice(start, end).includes('\n')) {
    const column = start - lineStart(area);
    insert(area, INDENT.slice(column % INDENT.length), onInput);
    return;
  }
  changeLines(area, (line) => (line ? INDENT + line : line), onInput);
}

const outdent = (area, onInput) => changeLines(area, (line) => line.replace(/^( {1,4}|\t)/, ''), onInput);

/** Change each line that the selection touches; the lines stay selected. */
function changeLines(area, change, onInput) {
  const from = lineStart(area);
  const end = area.value.indexOf('\n', Math.max(area.selectionEnd - (area.selectionEnd > area.selectionStart), from));
  const to = end < 0 ? area.value.length : end;
  const old = area.value.slice(from, to);
  const text = old.split('\n').map(change).join('\n');
  if (text === old) return;
  const caret = area.selectionStart === area.selectionEnd ? area.selectionEnd + text.length - old.length : null;
  area.setSelectionRange(from, to);
  insert(area, text, onInput);
  if (caret === null) area.setSelectionRange(from, from + text.length);
  else area.setSelectionRange(Math.max(caret, from), Math.max(caret, from));
}

/** A new line that begins where the one before did, deeper after a colon. */
function newLine(area, onInput) {
  const before = area.value.slice(lineStart(area), area.selectionStart);
  const space = /^[ \t]*/.exec(before)[0];
  insert(area, `\n${space}${/:\s*(#.*)?$/.test(before) ? INDENT : ''}`, onInput);
}

function goTo(area, line) {
  const lines = area.value.split('\n');
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] ?? '').length);
  const height = area.scrollHeight / Math.max(lines.length, 1);
  area.scrollTop = Math.max(0, (line - 4) * height);
}
