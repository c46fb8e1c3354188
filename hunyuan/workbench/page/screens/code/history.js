/** Programs that were run, remembered by this browser alone. */

import { keep, kept } from '../../lib/store.js';

const NAME = 'code.history';
const MOST = 20;
const LONGEST = 8000;

/** [{code, at, failed}], the latest first. */
export const history = () => kept(NAME, []);

/** Remember a program that ended; the same one again only moves up. */
export function remember(code, failed) {
  if (!code.trim() || code.length > LONGEST) return history();
  const rest = history().filter((one) => one.code !== code);
  const all = [{ code, failed, at: Date.now() / 1000 }, ...rest].slice(0, MOST);
  keep(NAME, all);
  return all;
}

/** Forget them all. */
export function forget() {
  keep(NAME, []);
  return [];
}

/** What a program is called in a list: its first line that says something. */
export const titleOf = (code) => code.split('\n').find((line) => line.trim() && !/^\s*(import|from)\b/.test(line)) ?? code.split('\n')[0];
