/** Deleting that can be taken back: the server hears of it when the chance to undo is over. */

import { texts } from './i18n.js';
import { toast } from './ui.js';

const t = texts({ en: { undo: 'Undo' }, zh: { undo: '撤销' } });
const SECONDS = 6;

const gone = new Set();

/** Whether the thing with this id is deleted as far as its reader is concerned. */
export const isGone = (id) => gone.has(id);

/**
 * Say `text` with "Undo" for six seconds, then call `run(options)` (`options` for `api`); leaving
 * the page runs it at once. Until then `isGone(id)` holds; `back()` is called if it comes back.
 */
export function deleteLater({ id, text, run, back }) {
  let settled = false;
  const settle = () => {
    const first = !settled;
    settled = true;
    clearTimeout(timer);
    removeEventListener('pagehide', leave);
    return first;
  };
  const restore = () => {
    gone.delete(id);
    back();
  };
  const finish = (options) =>
    settle() &&
    run(options).catch((error) => {
      restore();
      toast(error.message, { kind: 'error' });
    });
  const leave = () => finish({ keepalive: true });
  const timer = setTimeout(finish, SECONDS * 1000);
  addEventListener('pagehide', leave);
  gone.add(id);
  toast(text, { seconds: SECONDS, action: { label: t('undo'), run: () => settle() && restore() } });
}
