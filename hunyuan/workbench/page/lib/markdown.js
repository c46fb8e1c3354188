/**
 * What a model wrote, as elements: Markdown, formulas, code.
 *
 *     <${Markdown} text=${text} streaming=${true} />
 *
 * The text is never trusted: HTML in it stays text, what markdown-it makes is cleaned by DOMPurify,
 * images are shown as links (nothing is loaded from elsewhere), links open apart. While the text
 * grows only the blocks that changed are touched, so selections and run results survive.
 */

import { html, useEffect, useLayoutEffect, useRef } from '../vendor/preact.js';
import DOMPurify from '../vendor/dompurify.js';
import MarkdownIt from '../vendor/markdown-it.js';
import { api } from './api.js';
import { formulas } from './formulas.js';
import { language, number, texts } from './i18n.js';
import { stylesheet } from './styles.js';
import { copyText } from './ui.js';

const t = texts({
  en: {
    copy: 'Copy',
    image: 'image: {text}',
    noOutput: 'It ran and printed nothing.',
    output: 'Output',
    run: 'Run',
    running: 'Running …',
    ranIn: '{ms} ms',
    stop: 'Stop',
    truncated: 'The output was longer and is cut here.',
  },
  zh: {
    copy: '复制',
    image: '图片：{text}',
    noOutput: '已运行，没有输出。',
    output: '输出',
    run: '运行',
    running: '正在运行……',
    ranIn: '{ms} 毫秒',
    stop: '停止',
    truncated: '输出过长，此处已截断。',
  },
});

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true }).use(formulas);
// Bare words like "main.py" are no addresses.
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
markdown.renderer.rules.image = (tokens, i) => {
  const escape = markdown.utils.escapeHtml;
  const source = tokens[i].attrGet('src') ?? '';
  const text = t('image', { text: tokens[i].content || source });
  return `<a href="${escape(source)}">${escape(text)}</a>`;
};
markdown.renderer.rules.table_open = () => '<div class="table-frame"><table>';
markdown.renderer.rules.table_close = () => '</table></div>';

const CLEAN = {
  RETURN_DOM_FRAGMENT: true,
  ALLOWED_TAGS: [
    ...['a', 'b', 'blockquote', 'br', 'code', 'del', 'div', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr'],
    ...['i', 'li', 'ol', 'p', 'pre', 's', 'span', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul'],
  ],
  ALLOWED_ATTR: ['href', 'class', 'start', 'data-tex', 'data-display'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
};

/** See the head of this file. `actions` false leaves out the buttons of code. */
export function Markdown({ text, streaming = false, actions = true }) {
  const ref = useRef(null);
  const drawn = useRef({ language: null, blocks: [] });
  const draw = () => {
    if (drawn.current.language !== language()) {
      ref.current.replaceChildren();
      drawn.current = { language: language(), blocks: [] };
    }
    drawn.current.blocks = update(ref.current, drawn.current.blocks, blocksOf(text, streaming), actions);
  };
  useLayoutEffect(draw, [text, streaming, language()]);
  return html`<div class="prose" ref=${ref}></div>`;
}

/** The text as [{kind: 'code', language, code, open} or {kind: 'html', html}], one a block. */
function blocksOf(text, streaming) {
  const env = { streaming };
  const tokens = markdown.parse(text, env);
  const blocks = [];
  let start = 0;
  for (let i = 0; i < tokens.length; i += 1) {
    if (tokens[i].level !== 0 || tokens[i].nesting === 1) continue;
    const token = tokens[i];
    if (token.type === 'fence' || token.type === 'code_block') {
      const open = streaming && i === tokens.length - 1;
      blocks.push({ kind: 'code', language: token.info.trim().split(/\s+/)[0], code: token.content.replace(/\n$/, ''), open });
    } else {
      blocks.push({ kind: 'html', html: markdown.renderer.render(tokens.slice(start, i + 1), markdown.options, env) });
    }
    start = i + 1;
  }
  return blocks;
}

const same = (a, b) =>
  a.kind === b.kind && (a.kind === 'html' ? a.html === b.html : a.code === b.code && a.language === b.language && a.open === b.open);

/** Make the children of `target`, which show `old`, show `blocks`. */
function update(target, old, blocks, actions) {
  while (target.children.length > blocks.length) target.lastElementChild.remove();
  blocks.forEach((block, i) => {
    const node = target.children[i];
    if (node && same(old[i], block)) return;
    if (node && block.kind === 'code' && old[i].kind === 'code' && old[i].language === block.language) {
      node.show(block);
      return;
    }
    const made = block.kind === 'code' ? codeBlock(block, actions) : proseBlock(block.html, actions);
    if (node) node.replaceWith(made);
    else target.append(made);
  });
  return blocks;
}

function proseBlock(source, actions) {
  const node = document.createElement('div');
  node.append(DOMPurify.sanitize(source, CLEAN));
  for (const link of node.querySelectorAll('a')) {
    if (!link.hasAttribute('href')) continue;
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
  }
  // Code inside of lists and quotes.
  for (const code of node.querySelectorAll('pre > code')) {
    const name = /language-(\S+)/.exec(code.className)?.[1] ?? '';
    code.parentElement.replaceWith(codeBlock({ language: name, code: code.textContent.replace(/\n$/, ''), open: false }, actions));
  }
  drawFormulas(node);
  return node;
}

function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function button(text, run) {
  const node = element('button', 'button quiet small', text);
  node.type = 'button';
  node.addEventListener('click', run);
  return node;
}

const PYTHON = new Set(['python', 'py', 'python3']);

/** A block of code with its name and buttons; `.show(block)` changes the code in place. */
function codeBlock(block, actions) {
  const node = element('div', 'code-block');
  const head = element('div', 'code-head');
  const pre = element('pre');
  const code = element('code');
  // What scrolls must be reachable by keyboard.
  pre.tabIndex = 0;
  pre.append(code);
  head.append(element('span', '', block.language));
  if (actions && PYTHON.has(block.language.toLowerCase())) head.append(button(t('run'), (event) => run(node, event.currentTarget)));
  if (actions) head.append(button(t('copy'), () => copyText(node.code)));
  node.append(head, pre);
  node.show = ({ code: text, open, language: name }) => {
    node.code = text;
    code.textContent = text;
    if (!open && name) colour(code, text, name);
  };
  node.show(block);
  return node;
}

/** Colours come later, when the library is there; until then the text stands as it is. */
async function colour(code, text, name) {
  const { default: hljs } = await import('../vendor/highlight.js');
  if (!hljs.getLanguage(name) || code.textContent !== text || text.length > 50_000) return;
  const { value } = hljs.highlight(text, { language: name, ignoreIllegals: true });
  code.replaceChildren(DOMPurify.sanitize(value, { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'] }));
}

/** Run the code of a block on the server, in its sandbox, and show what came out below it. */
async function run(node, trigger) {
  if (node.running) {
    node.running.abort();
    return;
  }
  node.running = new AbortController();
  trigger.textContent = t('stop');
  const output = node.querySelector('.code-output') ?? node.appendChild(element('div', 'code-output'));
  output.setAttribute('role', 'status');
  output.replaceChildren(element('span', '', t('running')));
  try {
    show(output, await api.post('/workbench/code/run', { code: node.code }, { signal: node.running.signal }));
  } catch (error) {
    if (error.name === 'AbortError') output.remove();
    else output.replaceChildren(element('pre', 'bad', error.message));
  } finally {
    node.running = null;
    trigger.textContent = t('run');
  }
}

function show(output, { stdout, value, error, seconds, truncated }) {
  const head = element('div', 'output-head');
  head.append(element('span', '', t('output')), element('span', '', t('ranIn', { ms: number(1000 * seconds) })));
  const parts = [];
  if (stdout) parts.push(element('pre', '', stdout));
  if (value !== null) parts.push(element('pre', '', value));
  if (truncated) parts.push(element('span', '', t('truncated')));
  if (error) parts.push(element('pre', 'bad', error.message));
  output.replaceChildren(head, ...(parts.length ? parts : [element('span', '', t('noOutput'))]));
}

/** Fill the places that formulas.js left, once KaTeX is there. */
async function drawFormulas(node) {
  const places = node.querySelectorAll('[data-tex]');
  if (!places.length) return;
  for (const place of places) place.textContent = place.dataset.tex;
  const katex = await loadKatex();
  for (const place of places) drawFormula(katex, place, place.dataset.tex, place.dataset.display === 'true');
}

/** Draw TeX into an element; what KaTeX cannot read stays as its source. */
function drawFormula(katex, place, tex, display) {
  try {
    katex.render(tex, place, { displayMode: display, throwOnError: true, strict: 'ignore', trust: false, maxExpand: 500, maxSize: 20 });
    place.classList.remove('source');
    place.title = '';
  } catch (error) {
    place.textContent = tex;
    place.classList.add('source');
    place.title = error.message;
  }
}

let katexLoading = null;

/** KaTeX with its styles, loaded at the first formula. */
export function loadKatex() {
  katexLoading ??= Promise.all([import('../vendor/katex/katex.js'), stylesheet('/static/vendor/katex/katex.css')]).then(
    ([module]) => module.default,
  );
  return katexLoading;
}

/** One formula: `<${Formula} tex="\\frac{1}{2}" display />`. */
export function Formula({ tex, display = false }) {
  const ref = useRef(null);
  useEffect(() => {
    let here = true;
    ref.current.textContent = tex;
    loadKatex().then((katex) => here && ref.current && drawFormula(katex, ref.current, tex, display));
    return () => {
      here = false;
    };
  }, [tex, display]);
  return html`<span class=${display ? 'formula' : 'formula-inline'} ref=${ref}></span>`;
}
