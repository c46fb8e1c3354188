/** Light, dark, or as the system says. */

import { kept, keep } from './store.js';

const listeners = new Set();
const system = matchMedia('(prefers-color-scheme: dark)');
let current = kept('theme', 'system');
show();

/** 'system', 'light' or 'dark': what the reader chose. */
export const theme = () => current;

/** Choose 'system', 'light' or 'dark'. */
export function setTheme(name) {
  current = name;
  keep('theme', name);
  show();
  tell();
}

/** Call `listener()` when the colours change; returns the function that ends it. */
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The colour that a token has now, as rgb(...): `token('--accent')`. For canvases. */
export function token(name) {
  const probe = document.createElement('span');
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

function show() {
  if (current === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = current;
}

function tell() {
  for (const listener of listeners) listener();
}

system.addEventListener('change', () => current === 'system' && tell());
