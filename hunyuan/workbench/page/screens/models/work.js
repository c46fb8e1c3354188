/** Downloads and loads: they go on while another place is looked at. */

import { useEffect, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { refreshModel, showLoading } from '../../lib/model.js';
import { toast } from '../../lib/ui.js';
import { t } from '../../texts/models.js';

const ROOT = '/workbench/models';
const listeners = new Set();
const downloads = new Map(); // name -> {event, controller}
let load = null;

/** {downloads: Map of name -> {event, stop}, load: {name, event, stop} or null}, always current. */
export function useWork() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const hear = () => redraw((n) => n + 1);
    listeners.add(hear);
    return () => listeners.delete(hear);
  }, []);
  return { downloads, load };
}

const changed = () => {
  for (const listener of listeners) listener();
};

/** Download a model; resolves when it is here, stopped or refused. */
export async function download(name, acceptLicence) {
  const controller = new AbortController();
  const entry = { event: null, stop: () => controller.abort() };
  downloads.set(name, entry);
  changed();
  try {
    for await (const event of api.events(`${ROOT}/download`, { model: name, accept_licence: acceptLicence }, { signal: controller.signal })) {
      if (event.type === 'progress') entry.event = event;
      changed();
    }
    toast(t('downloaded', { name }));
  } catch (error) {
    if (error.name !== 'AbortError') toast(error.message, { kind: 'error', seconds: 10 });
  } finally {
    downloads.delete(name);
    await refreshModel();
    changed();
  }
}

/** Answer with another model; the chip of the shell shows how far it is. */
export const switchTo = (name) => loading(name, `${ROOT}/load`, { model: name });

/** Answer with a checkpoint of a run. */
export const switchToCheckpoint = (run, step) => loading(checkpointName(run, step), `/workbench/runs/${run.id}/load`, { step });

/** What the model of a checkpoint is called. */
export const checkpointName = (run, step) => `${run.name}@${step}`;

async function loading(name, path, body) {
  const controller = new AbortController();
  load = { name, event: null, stop: () => controller.abort() };
  showLoading({ name, value: 0, max: 0, text: t('loading', { name }) });
  changed();
  try {
    for await (const event of api.events(path, body, { signal: controller.signal })) {
      if (event.type !== 'progress') continue;
      load.event = event;
      showLoading({ name, value: event.done, max: event.total ?? 0, text: t('loading', { name }) });
      changed();
    }
    toast(t('ready', { name }));
  } catch (error) {
    if (error.name !== 'AbortError') toast(error.message, { kind: 'error', seconds: 10 });
  } finally {
    load = null;
    showLoading(null);
    await refreshModel();
    changed();
  }
}
