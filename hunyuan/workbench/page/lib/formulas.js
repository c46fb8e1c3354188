/**
 * Formulas in Markdown, for markdown-it: $...$, $$...$$, \(...\) and \[...\].
 *
 * They become empty elements with the TeX in `data-tex`, which lib/markdown.js fills. A dollar sign
 * that is money stays one: "from $5 to $10", "价格是$5，比$3贵".
 */

const CJK = /[\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]/;
const SIGN = '$'.charCodeAt(0);
const BACKSLASH = '\\'.charCodeAt(0);

/** A plugin of markdown-it. `env.streaming` shows a formula whose end is not there yet as source. */
export function formulas(markdown) {
  markdown.inline.ruler.before('escape', 'formula', inlineRule);
  markdown.block.ruler.before('fence', 'formula', blockRule, { alt: ['paragraph', 'blockquote', 'list', 'reference'] });
  const escape = markdown.utils.escapeHtml;
  markdown.renderer.rules.formula = (tokens, i) => {
    const { content, meta } = tokens[i];
    if (meta.open) return `<span class="formula-inline source">${escape(content)}</span>`;
    const display = meta.display ? ' data-display="true"' : '';
    return `<span class="${meta.display ? 'formula' : 'formula-inline'}" data-tex="${escape(content)}"${display}></span>`;
  };
  markdown.renderer.rules.formula_block = (tokens, i) => {
    const { content, meta } = tokens[i];
    if (meta.open) return `<div class="formula source">${escape(content)}</div>`;
    return `<div class="formula" data-tex="${escape(content)}" data-display="true"></div>`;
  };
}

/** Whether what stands between two single dollar signs can be a formula. */
function isFormula(tex) {
  if (!tex.trim() || /^\s|\s$|\n\s*\n/.test(tex)) return false;
  // Money and words: "5 and ", "1,000 per year". Chinese text belongs into \text{...}.
  if (/^\d[\d,.]*[KMBkmb]?\s+[A-Za-z]{2,}/.test(tex)) return false;
  return !CJK.test(tex.replace(/\\(?:text|mathrm|textbf|mbox)\s*\{[^}]*\}/g, ''));
}

function inlineRule(state, silent) {
  const { src, pos, posMax } = state;
  const code = src.charCodeAt(pos);
  let open;
  let close;
  if (code === BACKSLASH && src[pos + 1] === '(') [open, close] = ['\\(', '\\)'];
  else if (code === BACKSLASH && src[pos + 1] === '[') [open, close] = ['\\[', '\\]'];
  else if (code === SIGN) [open, close] = src[pos + 1] === '$' ? ['$$', '$$'] : ['$', '$'];
  else return false;
  const start = pos + open.length;
  const end = ending(src, start, posMax, close);
  if (end < 0) return false;
  const content = src.slice(start, end);
  if (!content.trim()) return false;
  if (open === '$' && (!isFormula(content) || /[0-9]/.test(src[end + 1] ?? ''))) return false;
  if (!silent) {
    const token = state.push('formula', '', 0);
    token.content = content.trim();
    token.meta = { display: open === '$$' || open === '\\[' };
  }
  state.pos = end + close.length;
  return true;
}

/** Where `close` stands unescaped, or -1. */
function ending(src, start, most, close) {
  for (let at = src.indexOf(close, start); at >= 0 && at + close.length <= most; at = src.indexOf(close, at + 1)) {
    let slashes = 0;
    while (src.charCodeAt(at - 1 - slashes) === BACKSLASH) slashes += 1;
    if (slashes % 2 === 0) return at;
  }
  return -1;
}

/** A formula on lines of its own, which may hold what elsewhere begins a list or a heading. */
function blockRule(state, first, last, silent) {
  const begin = state.bMarks[first] + state.tShift[first];
  if (state.sCount[first] - state.blkIndent >= 4) return false;
  const open = state.src.slice(begin, begin + 2);
  if (open !== '$$' && open !== '\\[') return false;
  const close = open === '$$' ? '$$' : '\\]';
  let line = first;
  let end = -1;
  for (; line < last; line += 1) {
    if (line > first && state.sCount[line] < state.blkIndent) break;
    const from = line === first ? begin + 2 : state.bMarks[line];
    end = ending(state.src, from, state.eMarks[line], close);
    if (end >= 0) break;
  }
  if (end < 0 && !(state.env.streaming && line >= state.lineMax)) return false;
  // Text after the formula on the same line: the inline rule takes it.
  if (end >= 0 && state.src.slice(end + 2, state.eMarks[line]).trim()) return false;
  if (silent) return true;
  const next = end < 0 ? last : line + 1;
  const lines = state.getLines(first, next, state.blkIndent, false).trim();
  const content = (end < 0 ? lines.slice(2) : lines.slice(2, -2)).trim();
  const token = state.push('formula_block', '', 0);
  token.block = true;
  token.content = content;
  token.map = [first, next];
  token.meta = { open: end < 0 };
  state.line = next;
  return true;
}
