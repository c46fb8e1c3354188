/** Questions and their answers, remembered by this browser alone. */

import { keep, kept } from '../../lib/store.js';

const NAME = 'maths.cards';
const MOST = 30;
const LONGEST = 200_000;

/** [{id, question, answer}], the latest first. */
export const cards = () => kept(NAME, []);

/** Remember the latest answers, as many as fit. */
export function remember(all) {
  const done = all.filter((card) => card.answer && !card.busy).map(({ id, question, answer }) => ({ id, question, answer }));
  let kept = done.slice(0, MOST);
  while (kept.length && JSON.stringify(kept).length > LONGEST) kept = kept.slice(0, -1);
  keep(NAME, kept);
}
