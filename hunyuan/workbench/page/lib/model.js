/** What is known of the model that answers: read once, shared by the shell and the screens. */

import { html, useEffect, useState } from '../vendor/preact.js';
import { api } from './api.js';
import { language } from './i18n.js';

const listeners = new Set();
let state = { known: false, failed: false, current: null, models: [], loading: null };
let asking = null;

/**
 * {known, failed, current, models, loading}: the first two say whether the server was asked and did
 * not answer; `current` is null or {id, title, context, good_for: {chat: {en, zh}, ...}, ...};
 * `loading` is null or {name, value, max} while another model is being loaded.
 */
export function useModel() {
  const [seen, setSeen] = useState(state);
  useEffect(() => {
    listeners.add(setSeen);
    setSeen(state);
    return () => listeners.delete(setSeen);
  }, []);
  return seen;
}

/** One line on what the current model is good for in a place; nothing while it is not known. */
export function GoodFor({ place }) {
  const { current } = useModel();
  const words = current?.good_for?.[place];
  return words ? html`<p class="good-for"><strong>${current.title}</strong> ${words[language()]}</p>` : null;
}

/** Ask the server again; several callers at once ask once. */
export function refreshModel() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

/** Tell everybody of a load that runs: {name, value, max}, or null when it is over. */
export function showLoading(loading) {
  change({ loading });
}

async function ask() {
  try {
    const body = await api.get('/workbench/models');
    change({ known: true, failed: false, current: body.current ?? null, models: body.models ?? [] });
  } catch {
    change({ known: true, failed: true });
  }
}

function change(part) {
  state = { ...state, ...part };
  for (const listener of listeners) listener(state);
}
