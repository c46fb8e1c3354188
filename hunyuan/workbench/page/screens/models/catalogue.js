/** What can be had: each model with what it needs and allows, one click from answering. */

import { html, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { language, number } from '../../lib/i18n.js';
import { refreshModel, useModel } from '../../lib/model.js';
import { Button, Check, Dialog, Menu, Notice, Progress, Section, Spinner, toast, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/models.js';
import { compact } from './curves.js';
import { GoodFor, languageName } from './loaded.js';
import { download, switchTo, useWork } from './work.js';

export function Catalogue() {
  const { models, known } = useModel();
  const work = useWork();
  // What is free changes with everything else that runs here.
  const room = useAsync((signal) => api.get('/workbench/models', { signal }), []);
  const [asking, setAsking] = useState(null);
  const [removing, setRemoving] = useState(null);
  if (!known) return html`<${Spinner} />`;
  const start = (model) => (model.licence.must_accept ? setAsking(model) : download(model.id, false));
  const remove = async (model) => {
    setRemoving(null);
    try {
      const { freed_bytes: freed } = await api.delete(`/workbench/models/${encodeURIComponent(model.id)}`);
      toast(t('removed', { name: model.id, size: size(freed) }));
    } catch (error) {
      toast(error.message, { kind: 'error', seconds: 8 });
    }
    refreshModel();
  };
  const own = models.filter((model) => model.licence);
  const others = models.filter((model) => !model.licence);
  return html`
    ${room.value && html`<p class="field-hint">${t('free', { memory: size(room.value.memory_bytes), disk: size(room.value.disk_bytes) })}</p>`}
    <ul class="catalogue">
      ${own.map((model) => html`<li key=${model.id}><${Entry} model=${model} free=${room.value?.memory_bytes} work=${work} onDownload=${start} onRemove=${setRemoving} /></li>`)}
    </ul>
    ${others.length > 0 && html`<section>
      <h2>${t('others')}</h2>
      <ul class="catalogue">${others.map((model) => html`<li key=${model.id}><${Other} model=${model} work=${work} /></li>`)}</ul>
    </section>`}
    ${asking && html`<${LicenceDialog} model=${asking} onClose=${() => setAsking(null)} onAccept=${() => { setAsking(null); download(asking.id, true); }} />`}
    ${removing && html`<${Dialog}
      title=${t('removeTitle', { name: removing.title })}
      onClose=${() => setRemoving(null)}
      actions=${html`<${Button} onClick=${() => setRemoving(null)}>${t('cancel')}</><${Button} kind="danger" icon="trash" onClick=${() => remove(removing)}>${t('remove')}</>`}
    ><p>${t('removeText', { size: size(removing.installed_bytes ?? removing.download_bytes) })}</p></>`}`;
}

function Entry({ model, free, work, onDownload, onRemove }) {
  const running = work.downloads.get(model.id);
  const loading = work.load?.name === model.id ? work.load : null;
  const problem = !model.fits_memory
    ? t('tooLarge', { size: size(model.needs_bytes), free: free ? size(free) : '…' })
    : !model.fits_disk
      ? t('noDisk', { size: size(model.download_bytes) })
      : null;
  const languages = model.languages.map(languageName).join(language() === 'zh' ? '、' : ', ');
  return html`<article class=${`model-entry ${model.loaded ? 'loaded' : ''}`}>
    <div class="model-entry-main">
      <h2>${model.title}
        ${model.loaded ? html`<span class="badge on">${t('isLoaded')}</span>` : model.installed && html`<span class="badge">${t('installed')}</span>`}
        ${model.default && html`<span class="badge">${t('byDefault')}</span>`}
      </h2>
      <p class="model-line">${[t('ofParameters', { n: compact(model.parameters) }), size(model.download_bytes), t('tokens', { n: number(model.context) }), languages].join(' · ')}</p>
      <p class="model-line">${model.licence.name} · <a href=${model.licence.url} target="_blank" rel="noopener noreferrer">${t('licenceRead')}</a></p>
      ${model.licence.must_accept && html`<p class="model-line warning-text">${model.licence.notice[language()]}</p>`}
      ${problem && html`<p class="model-line warning-text">${problem}</p>`}
      <${Section} title=${t('goodFor')} open=${false}>
        <${GoodFor} words=${model.good_for} />
        <p class="model-line">${model.architecture}</p>
      </>
    </div>
    <div class="model-entry-actions">
      ${running
        ? html`<${Progress} value=${running.event?.done ?? 0} max=${running.event?.total ?? 0} text=${phase(running.event)} onCancel=${running.stop} />`
        : loading
          ? html`<${Progress} value=${loading.event?.done ?? 0} max=${loading.event?.total ?? 0} text=${t('phase_loading')} onCancel=${loading.stop} />`
          : html`
            ${!model.installed && html`<${Button} icon="download" disabled=${!model.fits_disk} onClick=${() => onDownload(model)}>${t(model.unfinished ? 'goOn' : 'download')}</>`}
            ${model.installed && !model.loaded && html`<${Button} kind="primary" disabled=${!model.fits_memory || work.load} onClick=${() => switchTo(model.id)}>${t('load')}</>`}
            ${(model.installed || model.unfinished) && !model.loaded && html`<${Menu} trigger=${{ icon: 'more', label: t('remove') }} items=${[{ icon: 'trash', label: t('remove'), danger: true, run: () => onRemove(model) }]} />`}
          `}
    </div>
  </article>`;
}

function Other({ model, work }) {
  return html`<article class=${`model-entry ${model.loaded ? 'loaded' : ''}`}>
    <div class="model-entry-main">
      <h3>${model.title}${model.loaded && html`<span class="badge on">${t('isLoaded')}</span>`}</h3>
      <p class="model-line">${[model.parameters && t('ofParameters', { n: compact(model.parameters) }), model.context && t('tokens', { n: number(model.context) })].filter(Boolean).join(' · ')}</p>
    </div>
    <div class="model-entry-actions">
      ${!model.loaded && html`<${Button} disabled=${Boolean(work.load)} onClick=${() => switchTo(model.id)}>${t('load')}</>`}
    </div>
  </article>`;
}

function LicenceDialog({ model, onClose, onAccept }) {
  const [agreed, setAgreed] = useState(false);
  return html`<${Dialog}
    title=${t('licenceTitle', { name: model.title })}
    onClose=${onClose}
    actions=${html`<${Button} onClick=${onClose}>${t('cancel')}</><${Button} kind="primary" icon="download" disabled=${!agreed} title=${agreed ? undefined : t('acceptFirst')} onClick=${onAccept}>${t('download')}</>`}
  >
    <p><strong>${model.licence.name}</strong></p>
    <${Notice} kind="warning" text=${model.licence.notice[language()]} />
    <p><a href=${model.licence.url} target="_blank" rel="noopener noreferrer">${t('licenceRead')}</a></p>
    <${Check} checked=${agreed} onChange=${setAgreed}>${t('accept')}</>
  </>`;
}

function phase(event) {
  if (!event) return t('phase_resolving');
  return t(`phase_${event.phase}`, { done: size(event.done), total: event.total ? size(event.total) : '…' });
}

/** Decimal units, as downloads are sold. */
function size(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let step = 0;
  let left = value;
  while (left >= 1000 && step < units.length - 1) {
    left /= 1000;
    step += 1;
  }
  return `${number(left, left < 10 && step ? 1 : 0)} ${units[step]}`;
}
