/** Choosing the model that answers. */

import { html, useState } from '../vendor/preact.js';
import { api } from './api.js';
import { texts } from './i18n.js';
import { refreshModel, showLoading, useModel } from './model.js';
import { Field, Progress, Select, toast } from './ui.js';

const t = texts({
  en: {
    hint: 'Switching stops the model that is loaded now.',
    loading: 'Loading {name} …',
    loaded: '{name} is ready',
    tooLarge: 'too large for the free memory',
  },
  zh: {
    hint: '切换会先停止当前加载的模型。',
    loading: '正在加载 {name}……',
    loaded: '{name} 已就绪',
    tooLarge: '内存不足',
  },
});

/** A field with the models that can answer now; choosing one loads it, with progress. */
export function ModelPicker({ label }) {
  const { current, models, loading } = useModel();
  const [controller, setController] = useState(null);
  const choose = async (name) => {
    const mine = new AbortController();
    setController(mine);
    showLoading({ name, value: 0, max: 0 });
    try {
      for await (const event of api.events('/workbench/models/load', { model: name }, { signal: mine.signal }))
        if (event.type === 'progress') showLoading({ name, value: event.done, max: event.total ?? 0 });
      toast(t('loaded', { name }));
    } catch (error) {
      if (error.name !== 'AbortError') toast(error.message, { kind: 'error', seconds: 8 });
    } finally {
      showLoading(null);
      refreshModel();
    }
  };
  const options = models
    .filter(({ installed, id }) => installed || id === current?.id)
    .map(({ id, title, fits_memory: fits }) => ({ value: id, label: fits === false ? `${title} (${t('tooLarge')})` : title, disabled: fits === false && id !== current?.id }));
  if (loading)
    return html`<${Progress} value=${loading.value} max=${loading.max} text=${t('loading', { name: loading.name })} onCancel=${controller && (() => controller.abort())} />`;
  if (!options.length) return null;
  return html`<${Field} label=${label} hint=${options.length > 1 ? t('hint') : null}>
    <${Select} value=${current?.id} options=${options} onChange=${choose} />
  </>`;
}
