/** Maths: questions computed by tools, charts of tables, formulas. */

import { html } from '../vendor/preact.js';
import { Page, Tabs } from '../lib/ui.js';
import { t } from '../texts/maths.js';
import { Ask } from './maths/ask.js';
import { Data } from './maths/data.js';
import { Formulas } from './maths/formulas.js';

const PARTS = { ask: Ask, data: Data, formulas: Formulas };

export default function Screen({ route, navigate }) {
  const part = route.id in PARTS ? route.id : 'ask';
  const tabs = [
    { id: 'ask', label: t('ask'), icon: 'maths' },
    { id: 'data', label: t('data'), icon: 'chart' },
    { id: 'formulas', label: t('formulas'), icon: 'list' },
  ];
  const Part = PARTS[part];
  return html`<${Page} title=${t('maths')} subtitle=${t('subtitle')} wide name="maths">
    <${Tabs} tabs=${tabs} current=${part} label=${t('sections')} onChange=${(id) => navigate(id === 'ask' ? 'maths' : `maths/${id}`)} />
    <${Part} navigate=${navigate} question=${route.query.q ?? ''} />
  </>`;
}
