/** Two texts compared by words, in Chinese too, as changes that are taken or left one by one. */

import { diffArrays } from '../vendor/diff/array.js';
import { words } from './words.js';

const MOST_MILLISECONDS = 1500;

/** Signs that may be parted from their neighbours; letters of a Latin word may not. */
const LOOSE = /[\s\p{Script=Han}]/u;

/**
 * How `before` became `after`: [{same: text} or {id, removed, added}], in order. Joining `same` and
 * `removed` gives `before`, `same` and `added` gives `after`.
 */
export function changes(before, after) {
  const found = diffArrays(words(before), words(after), { timeout: MOST_MILLISECONDS });
  // Texts so long and so different that it takes too long are one change.
  const parts = found ? readable(paired(found)) : [{ removed: before, added: after }];
  return parts.map((part, i) => (part.same === undefined ? { id: i, ...part } : part));
}

/** jsdiff's runs, with what was removed and what was added in its place as one change. */
function paired(runs) {
  const parts = [];
  for (const { value, added, removed } of runs) {
    const text = value.join('');
    if (!added && !removed) {
      parts.push({ same: text });
      continue;
    }
    if (parts.at(-1)?.same !== undefined || !parts.length) parts.push({ removed: '', added: '' });
    parts.at(-1)[added ? 'added' : 'removed'] += text;
  }
  return parts;
}

const sizeOf = ({ removed, added }) => Math.max(removed.length, added.length);

/**
 * What a reader would call one change is one: a space, or an island of old words that is small
 * beside the changes around it, goes into them. Spaces at the edges stay outside.
 */
function readable(parts) {
  const list = [];
  for (const part of parts) {
    list.push(part);
    // A joined change is larger and may swallow the island before it too.
    while (part.same === undefined && list.length > 2 && joins(...list.slice(-3))) {
      const [change, { same }, next] = list.splice(-3);
      list.push({ removed: change.removed + same + next.removed, added: change.added + same + next.added });
    }
  }
  const done = [];
  for (const part of list.flatMap(trimmed)) {
    if (part.same !== undefined && done.at(-1)?.same !== undefined) done.push({ same: done.pop().same + part.same });
    else done.push(part);
  }
  return done;
}

function joins(change, { same }, next) {
  if (same.includes('\n')) return false;
  return /^\s*$/.test(same) || 2 * same.length < Math.min(sizeOf(change), sizeOf(next));
}

/** A change without what both of its sides begin or end with: spaces, Chinese characters. */
function trimmed(part) {
  if (part.same !== undefined) return [part];
  const { removed, added } = part;
  const most = Math.min(removed.length, added.length);
  let lead = 0;
  while (lead < most && LOOSE.test(removed[lead]) && removed[lead] === added[lead]) lead += 1;
  let tail = 0;
  while (tail < most - lead && LOOSE.test(removed.at(-1 - tail)) && removed.at(-1 - tail) === added.at(-1 - tail)) tail += 1;
  const inside = (text) => text.slice(lead, text.length - tail);
  const change = { removed: inside(removed), added: inside(added) };
  return [{ same: removed.slice(0, lead) }, change, { same: removed.slice(removed.length - tail) }].filter(({ same }) => same !== '');
}

/** The text that comes of it if `taken(id)` says which changes are taken. */
export const applied = (parts, taken) =>
  parts.map((part) => part.same ?? (taken(part.id) ? part.added : part.removed)).join('');
