/** A page of a document with the cited place marked. */

import { html, useEffect, useRef } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { Button, Details, download, Notice, Spinner, toast, useAsync } from '../../lib/ui.js';
import { t } from '../../texts/knowledge.js';

/** `place` {document, name, page, span: [start, end] or null}; `onMove(place)` turns pages. */
export function Source({ root, place, onMove }) {
  const page = useAsync((signal) => api.get(`${root}/documents/${place.document}/pages/${place.page}`, { signal }), [place.document, place.page]);
  const here = page.value?.document === place.document && page.value?.page === place.page ? page.value : null;
  const marked = useRef(null);
  const [start, end] = place.span ?? [0, 0];
  useEffect(() => {
    if (here) marked.current?.scrollIntoView({ block: 'center' });
  }, [here, start, end]);
  const turn = (step) => onMove({ ...place, page: place.page + step, span: null });
  const save = async () => {
    try {
      download(place.name, await (await api.raw(`${root}/documents/${place.document}/original`)).blob());
    } catch (error) {
      toast(error.message, { kind: 'error' });
    }
  };
  return html`<${Details} title=${place.name} actions=${html`<${Button} kind="quiet" icon="download" label=${t('download')} onClick=${save} />`}>
    ${here && html`<div class="source-pages">
      <${Button} kind="quiet" size="small" icon="left" label=${t('previous')} disabled=${place.page <= 1} onClick=${() => turn(-1)} />
      <span>${t(here.paged ? 'pageOf' : 'partOf', { n: here.page, of: here.pages })}</span>
      <${Button} kind="quiet" size="small" icon="right" label=${t('next')} disabled=${place.page >= here.pages} onClick=${() => turn(1)} />
    </div>`}
    ${page.error && html`<${Notice} kind="error" text=${page.error.message} />`}
    ${!here && !page.error && html`<${Spinner} />`}
    ${here && html`<div class="source-text" tabindex="0" role="region" aria-label=${place.name}>${here.text.slice(0, start)}${end > start && html`<mark ref=${marked}>${here.text.slice(start, end)}</mark>`}${here.text.slice(Math.max(start, end))}</div>`}
  </>`;
}
