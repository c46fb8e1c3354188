/** Charts of tables: a file comes in, columns are chosen, the server combines, the page draws. */

import { html, useEffect, useRef, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';
import { Chart, ChartMenu } from '../../lib/chart.js';
import { language, number } from '../../lib/i18n.js';
import { Button, Field, Icon, Notice, Progress, Segmented, Select, TextArea } from '../../lib/ui.js';
import { t } from '../../texts/maths.js';

const ROOT = '/workbench/charts';
const KINDS = ['bar', 'line', 'scatter', 'pie', 'histogram', 'heatmap'];
const VERBS = ['none', 'sum', 'mean', 'count', 'min', 'max', 'median'];

const SAMPLE = {
  en: 'city,month,temperature,rain\nLisbon,2024-01,11.6,100\nLisbon,2024-04,15.2,64\nLisbon,2024-07,23.1,5\nLisbon,2024-10,18.3,99\nOslo,2024-01,-3.1,54\nOslo,2024-04,6.2,43\nOslo,2024-07,18.1,81\nOslo,2024-10,6.5,90\nCairo,2024-01,14.1,5\nCairo,2024-04,22.0,1\nCairo,2024-07,29.3,0\nCairo,2024-10,24.6,1\n',
  zh: '城市,月份,气温,降水量\n北京,2024-01,-2.9,3\n北京,2024-04,15.4,23\n北京,2024-07,27.2,170\n北京,2024-10,13.8,23\n广州,2024-01,13.9,41\n广州,2024-04,22.7,191\n广州,2024-07,29.0,240\n广州,2024-10,24.6,69\n昆明,2024-01,9.1,15\n昆明,2024-04,17.5,24\n昆明,2024-07,20.9,204\n昆明,2024-10,16.2,86\n',
};

export function Data() {
  const [table, setTable] = useState(null);
  const [file, setFile] = useState(null);
  const [state, setState] = useState({}); // {busy, sent, total, error}
  const controller = useRef(null);
  useEffect(() => () => controller.current?.abort(), []);

  const read = async (chosen, name) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    setState({ busy: true });
    try {
      const found = await api.upload(`${ROOT}/table?name=${encodeURIComponent(name.slice(0, 120))}`, chosen, {
        signal: own.signal,
        onProgress: (sent, total) => setState({ busy: true, sent, total }),
      });
      setFile({ chosen, name });
      setTable(found);
      setState({});
    } catch (error) {
      setState(error.name === 'AbortError' ? {} : { error: error.message });
    }
  };
  if (table) return html`<${Chosen} key=${table.id} table=${table} again=${() => read(file.chosen, file.name)} onOther=${() => setTable(null)} />`;
  return html`<${Drop} onFile=${read} />
    ${state.busy && html`<${Progress} text=${t('reading')} value=${state.sent} max=${state.total} onCancel=${() => controller.current.abort()} />`}
    ${state.error && html`<${Notice} kind="error" text=${state.error} />`}`;
}

function Drop({ onFile }) {
  const input = useRef(null);
  const [over, setOver] = useState(false);
  const [pasting, setPasting] = useState(false);
  const [text, setText] = useState('');
  const take = (files) => files[0] && onFile(files[0], files[0].name);
  const handle = (name) => (event) => {
    event.preventDefault();
    setOver(name === 'over');
    if (name === 'drop') take(event.dataTransfer.files);
  };
  const useText = (content, name) => onFile(new Blob([content]), name);
  return html`<div class=${`maths-drop ${over ? 'over' : ''}`} onDragOver=${handle('over')} onDragLeave=${handle('leave')} onDrop=${handle('drop')}>
    <span class="empty-icon"><${Icon} name="chart" size=${28} /></span>
    <h2>${t('dropTitle')}</h2>
    <p>${t('dropText')}</p>
    <div class="maths-actions">
      <${Button} kind="primary" icon="upload" onClick=${() => input.current.click()}>${t('chooseFile')}</>
      <${Button} onClick=${() => setPasting(!pasting)}>${t('pasteTable')}</>
      <${Button} kind="quiet" onClick=${() => useText(SAMPLE[language()], language() === 'zh' ? '示例数据' : 'sample')}>${t('sampleData')}</>
    </div>
    <input ref=${input} type="file" hidden accept=".csv,.tsv,.txt,.xlsx" onChange=${(event) => take(event.target.files)} />
    ${pasting &&
    html`<div class="maths-paste">
      <${Field} label=${t('pasteLabel')}><${TextArea} value=${text} onInput=${setText} most=${220} spellcheck="false" /></>
      <${Button} size="small" disabled=${!text.trim()} onClick=${() => useText(text, t('pasteTable'))}>${t('pasteUse')}</>
    </div>`}
  </div>`;
}

/** A first choice that shows something sensible. */
function firstChoice(columns) {
  const numbers = columns.filter((c) => c.type === 'number');
  const names = columns.filter((c) => c.type !== 'number');
  const date = names.find((c) => c.type === 'date');
  const x = date ?? names.find((c) => c.different > 1 && c.different <= 40) ?? names[0] ?? columns[0];
  const y = numbers.find((c) => c.name !== x.name);
  if (!names.length && numbers.length === 1) return { kind: 'histogram', x: numbers[0].name, y: [], group: '', verb: 'none' };
  if (!names.length) return { kind: 'scatter', x: numbers[0].name, y: [numbers[1].name], group: '', verb: 'none' };
  const group = date ? names.find((c) => c !== date && c.different <= 12) : undefined;
  return { kind: date ? 'line' : 'bar', x: x.name, y: y ? [y.name] : [], group: group?.name ?? '', verb: y ? 'mean' : 'count' };
}

function Chosen({ table, again, onOther }) {
  const [choice, setChoice] = useState(() => ({ sort: 'none', top: 0, bins: 0, ...firstChoice(table.columns) }));
  const [chart, setChart] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const controller = new AbortController();
    const body = { table: table.id, chart: { ...choice, group: choice.group || null } };
    setBusy(true);
    api.post(`${ROOT}/data`, body, { signal: controller.signal }).then(
      (reply) => {
        setChart(reply.chart);
        setError(null);
        setBusy(false);
      },
      (failure) => {
        if (failure.name === 'AbortError') return;
        setBusy(false);
        // The server keeps a few tables only; this page still has the file.
        if (failure.status === 404) again();
        else setError(failure.message);
      },
    );
    return () => controller.abort();
  }, [choice]);
  const set = (part) => setChoice({ ...choice, ...part });
  const columns = (keep, blank) => [
    ...(blank === undefined ? [] : [{ value: '', label: blank }]),
    ...table.columns.filter(keep).map((c) => ({ value: c.name, label: `${c.name} (${t(`type_${c.type}`)})` })),
  ];
  const any = () => true;
  const numeric = (c) => c.type === 'number';
  const { kind } = choice;
  const setKind = (next) => {
    const numbers = table.columns.filter(numeric);
    const part = { kind: next };
    if ((next === 'scatter' || next === 'histogram') && !numbers.some((c) => c.name === choice.x)) part.x = numbers[0]?.name ?? choice.x;
    if (next === 'scatter' && numbers.length > 1) part.y = [numbers.find((c) => c.name !== (part.x ?? choice.x)).name];
    if (next === 'heatmap' && !choice.group) part.group = table.columns.find((c) => c.name !== choice.x && c.type !== 'number')?.name ?? table.columns.find((c) => c.name !== choice.x)?.name ?? '';
    if ((next === 'bar' || next === 'pie' || next === 'heatmap') && kind !== next && table.columns.find((c) => c.name === choice.x)?.type === 'number') part.x = (table.columns.find((c) => !numeric(c)) ?? table.columns[0]).name;
    set(part);
  };
  return html`<div class="maths-data">
    <div class="maths-table-head">
      <h2>${table.name}</h2><small>${t('rows', { n: number(table.rows) })} · ${t('columns', { n: number(table.columns.length) })}</small>
      <${Button} size="small" kind="quiet" icon="upload" onClick=${onOther}>${t('otherFile')}</>
    </div>
    <div class="maths-kinds"><${Segmented} label=${t('kind')} value=${kind} onChange=${setKind} options=${KINDS.map((value) => ({ value, label: t(value) }))} /></div>
    <div class="maths-choices">
      <${Field} label=${kind === 'histogram' ? t('valueColumn') : kind === 'pie' ? t('sliceColumn') : t('xColumn')}>
        <${Select} value=${choice.x} options=${columns(kind === 'scatter' || kind === 'histogram' ? numeric : any)} onChange=${(x) => set({ x })} />
      </>
      ${kind !== 'histogram' &&
      html`<${Field} label=${t('yColumn')}>
        <${Select} value=${choice.y[0] ?? ''} options=${columns(numeric, kind === 'scatter' ? undefined : t('countRows'))} onChange=${(y) => set({ y: y ? [y] : [], verb: y ? (choice.verb === 'count' ? 'none' : choice.verb) : 'count' })} />
      </>`}
      ${kind !== 'histogram' &&
      kind !== 'pie' &&
      html`<${Field} label=${kind === 'heatmap' ? t('rowColumn') : t('groupColumn')}>
        <${Select} value=${choice.group} options=${columns((c) => c.name !== choice.x, kind === 'heatmap' ? undefined : t('none'))} onChange=${(group) => set({ group })} />
      </>`}
      ${kind !== 'histogram' &&
      kind !== 'scatter' &&
      html`<${Field} label=${t('verb')}><${Select} value=${choice.verb} options=${VERBS.map((value) => ({ value, label: t(`verb_${value}`) }))} onChange=${(verb) => set({ verb })} /></>`}
      ${kind === 'bar' &&
      html`<${Field} label=${t('sort')}><${Select} value=${choice.sort} options=${['none', 'x', 'ascending', 'descending'].map((value) => ({ value, label: t(`sort_${value}`) }))} onChange=${(sort) => set({ sort })} /></>`}
      ${(kind === 'bar' || kind === 'pie') &&
      html`<${Field} label=${t('top')}><${Select} value=${choice.top} options=${[0, 5, 10, 20, 50].map((value) => ({ value, label: value || t('topAll') }))} onChange=${(top) => set({ top: Number(top) })} /></>`}
      ${kind === 'histogram' &&
      html`<${Field} label=${t('bins')}><${Select} value=${choice.bins} options=${[0, 5, 10, 20, 40].map((value) => ({ value, label: value || t('binsAuto') }))} onChange=${(bins) => set({ bins: Number(bins) })} /></>`}
    </div>
    ${error && html`<${Notice} kind="error" text=${error} />`}
    ${chart &&
    !error &&
    html`<div class=${`maths-card ${busy ? 'busy' : ''}`}>
      <${Chart} spec=${chart} height=${400} />
      <div class="maths-actions"><${ChartMenu} spec=${chart} /><small>${chart.source}</small></div>
    </div>`}
  </div>`;
}
