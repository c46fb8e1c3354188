/** Models: what answers now, what could, how training goes, what was measured. */

import { html, useEffect } from '../vendor/preact.js';
import { refreshModel } from '../lib/model.js';
import { Page, Tabs } from '../lib/ui.js';
import { t as tEvaluations } from '../texts/evaluations.js';
import { t } from '../texts/models.js';
import { Benchmarks } from './models/benchmarks.js';
import { Catalogue } from './models/catalogue.js';
import { Evaluations } from './models/evaluations.js';
import { Loaded } from './models/loaded.js';
import { Runs } from './models/runs.js';

const PARTS = { loaded: Loaded, catalogue: Catalogue, runs: Runs, evaluations: Evaluations, benchmarks: Benchmarks };
const ICONS = { loaded: 'models', catalogue: 'download', runs: 'chart', evaluations: 'check', benchmarks: 'list' };
const label = (part) => (part === 'evaluations' ? tEvaluations(part) : t(part));

export default function Screen({ route, navigate }) {
  const part = route.id in PARTS ? route.id : 'loaded';
  useEffect(() => {
    refreshModel();
  }, []);
  const tabs = Object.keys(PARTS).map((id) => ({ id, label: label(id), icon: ICONS[id] }));
  return html`<${Page} name="models" title=${t('models')} bare>
    <${Tabs} tabs=${tabs} current=${part} label=${t('tabs')} onChange=${(id) => navigate(`models/${id}`)} />
    <div class="page-body" key=${[part, ...route.rest].join('/')} tabindex="-1" role="tabpanel" aria-label=${label(part)}>
      <div class="column wide models">
        <${PARTS[part]} key=${part} route=${route} navigate=${navigate} />
      </div>
    </div>
  </>`;
}
