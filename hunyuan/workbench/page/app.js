/** The shell: the rail with the six places, the screen of the place that is open, what all share. */

import { html, render, useEffect, useErrorBoundary, useRef, useState } from './vendor/preact.js';
import { api, onConnection, onUnauthorised, setKey } from './lib/api.js';
import { language, number, onLanguage, setLanguage } from './lib/i18n.js';
import { stylesheet } from './lib/styles.js';
import { refreshModel, useModel } from './lib/model.js';
import { setTheme, theme } from './lib/theme.js';
import { Button, Dialog, Field, Icon, Menu, modalOpen, Notice, Spinner, Toasts, useLatest, useMedia } from './lib/ui.js';
import { t } from './texts/shell.js';

const PLACES = ['chat', 'write', 'maths', 'knowledge', 'code', 'models'];

/** '#/chat/12?x=1' -> {place: 'chat', id: '12', rest: [], query: {x: '1'}}. */
function routeOf(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [place, id, ...rest] = path.split('/').map(decodeURIComponent);
  return { place: PLACES.includes(place) ? place : 'chat', id: id || null, rest, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** Go to 'chat/12'. `replace` leaves no step to go back to. */
function navigate(path, { replace = false } = {}) {
  const hash = `#/${path}`;
  if (location.hash === hash) return;
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(null, '', hash);
  dispatchEvent(new HashChangeEvent('hashchange'));
}

function App() {
  const [route, setRoute] = useState(() => routeOf(location.hash));
  const [, redraw] = useState(0);
  const [reached, setReached] = useState(true);
  const [help, setHelp] = useState(false);
  const [asking, setAsking] = useState(null);
  const narrow = useMedia('(max-width: 42rem)');

  useEffect(() => {
    const go = () => setRoute(routeOf(location.hash));
    addEventListener('hashchange', go);
    const ends = [onLanguage(() => redraw((n) => n + 1)), onConnection(setReached)];
    onUnauthorised((wrong) => new Promise((resolve) => setAsking({ resolve, wrong })));
    refreshModel();
    return () => {
      removeEventListener('hashchange', go);
      ends.forEach((end) => end());
    };
  }, []);

  useEffect(() => {
    document.title = `${t(route.place)} · Hunyuan`;
  });

  useShortcuts({ help: () => setHelp(true) });

  const chooseTheme = (name) => {
    setTheme(name);
    redraw((n) => n + 1);
  };
  const answerKey = (entered) => {
    asking.resolve(entered);
    setAsking(null);
  };
  const other = language() === 'zh' ? 'en' : 'zh';
  const tools = html`
    <${Button} kind="quiet" icon="language" label=${t('otherLanguage')} lang=${other === 'zh' ? 'zh-CN' : 'en'} class="language-switch" onClick=${() => setLanguage(other)} />
    <${Menu}
      trigger=${{ icon: theme() === 'system' ? 'system' : theme() === 'dark' ? 'moon' : 'sun', label: t('theme') }}
      items=${['system', 'light', 'dark'].map((name) => ({ label: t(name), checked: theme() === name, run: () => chooseTheme(name) }))}
    />
    <${Button} kind="quiet" icon="help" label=${t('shortcuts')} onClick=${() => setHelp(true)} />
  `;
  return html`<a class="skip" href="#content" onClick=${skip}>${t('skip')}</a>
    <div class="shell">
      ${!reached && html`<${Lost} />`}
      ${narrow &&
      html`<div class="topbar">
        <a class="brand" href="#/chat" aria-label="Hunyuan"><img src="/static/icon.svg" alt="" /></a>
        <${ModelChip} place=${route.place} />
        ${tools}
      </div>`}
      <nav class="rail" aria-label=${t('places')}>
        <a class="brand" href="#/chat" aria-label="Hunyuan"><img src="/static/icon.svg" alt="" /><span>Hunyuan</span></a>
        <div class="places">
          ${PLACES.map(
            (place) => html`<a key=${place} class="place" href=${`#/${place}`} aria-current=${place === route.place ? 'page' : undefined}>
              <${Icon} name=${place} size=${22} /><span>${t(place)}</span>
            </a>`,
          )}
        </div>
        ${!narrow &&
        html`<div class="rail-foot">
          <${ModelChip} place=${route.place} />
          <div class="rail-tools">
            ${tools}
            <a class="button quiet only-icon" href=${documentation()} target="_blank" title=${t('documentation')} aria-label=${t('documentation')}><${Icon} name="file" size=${20} /></a>
          </div>
        </div>`}
      </nav>
      <main class="place-content" id="content" tabindex="-1">
        <${Place} key=${route.place} route=${route} />
      </main>
    </div>
    ${help && html`<${Shortcuts} onClose=${() => setHelp(false)} />`}
    ${asking && html`<${KeyDialog} wrong=${asking.wrong} answer=${answerKey} />`}
    <${Toasts} />`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById('content').focus();
}

/** Keys that work everywhere outside of fields: ? and g with the first letter of a place. */
function useShortcuts({ help }) {
  const waiting = useRef(0);
  const press = useLatest((event) => {
    const field = event.target.closest?.('input, textarea, select, [contenteditable]');
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || field || modalOpen()) return;
    if (event.key === '?') help();
    else if (event.key === 'g') waiting.current = event.timeStamp;
    else if (event.timeStamp - waiting.current < 1500) {
      waiting.current = 0;
      const place = PLACES[Number(event.key) - 1] ?? { c: 'chat', w: 'write', m: 'maths', k: 'knowledge', o: 'code', s: 'models' }[event.key];
      if (place) navigate(place);
    }
  });
  useEffect(() => {
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
}

const screens = new Map();

/** The screen of a place, loaded when it is first opened. */
function Place({ route }) {
  const [screen, setScreen] = useState(() => screens.get(route.place) ?? null);
  const [failure, setFailure] = useState(null);
  const [crash, forget] = useErrorBoundary();
  const load = () => {
    setFailure(null);
    Promise.all([import(`./screens/${route.place}.js`), stylesheet(`/static/styles/${route.place}.css`)]).then(
      ([module]) => {
        screens.set(route.place, module.default);
        setScreen(() => module.default);
      },
      setFailure,
    );
  };
  useEffect(() => {
    if (!screen) load();
  }, []);
  useEffect(() => {
    // The boundary would keep the mistake to itself.
    if (crash) queueMicrotask(() => reportError(crash));
  }, [crash]);
  const problem = failure ?? crash;
  if (problem)
    return html`<div class="column">
      <${Notice}
        kind="error"
        text=${t(failure ? 'notLoaded' : 'crashed', { text: problem.message })}
        action=${{ label: t('again'), run: failure ? () => location.reload() : forget }}
      />
    </div>`;
  if (!screen) return html`<div class="wait" aria-busy="true"><${Spinner} /></div>`;
  return html`<${screen} route=${route} navigate=${navigate} />`;
}

/** The model that answers, what it is doing, and what it is good for here. */
function ModelChip({ place }) {
  const { known, failed, current, loading } = useModel();
  const state = loading ? 'loading' : !known ? 'unknown' : failed || !current ? 'failed' : 'ready';
  const name = loading?.name ?? current?.title ?? t(known ? 'noModel' : 'asking');
  const part = loading && loading.max > 0 ? ` ${Math.round((100 * loading.value) / loading.max)} %` : '';
  const says = t(`model_${state}`) + part;
  return html`<${Menu}
    class="model-chip"
    trigger=${{
      text: html`<span class=${`dot ${state}`}></span><span class="model-name">${name}</span><span class="model-state">${says}</span>`,
      label: t('modelLabel', { name }),
    }}
  >
    <div class="model-card">
      <div>
        <h2>${name}</h2>
        <small>${[says, current?.context && t('context', { n: number(current.context) })].filter(Boolean).join(' · ')}</small>
      </div>
      ${current?.good_for && html`<ul>
        ${PLACES.filter((one) => current.good_for[one]).map(
          (one) => html`<li key=${one} class=${one === place ? 'here' : ''}><span>${t(one)}</span><span>${current.good_for[one][language()]}</span></li>`,
        )}
      </ul>`}
      <a href="#/models">${t('toModels')}</a>
    </div>
  </>`;
}

/** The server is gone: say so, and look for it until it is back. */
function Lost() {
  useEffect(() => {
    const timer = setInterval(() => api.get('/health').then(refreshModel, () => {}), 2000);
    return () => clearInterval(timer);
  }, []);
  return html`<div class="banner" role="alert"><${Icon} name="warning" size=${18} />${t('lost')}<${Spinner} /></div>`;
}

function Shortcuts({ onClose }) {
  const keys = [
    [['?'], 'keyHelp'],
    [['g', '1–6'], 'keyGo'],
    [['Ctrl', 'Enter'], 'keySend'],
    [['Enter'], 'keyEnter'],
    [['Shift', 'Enter'], 'keyLine'],
    [['Esc'], 'keyStop'],
    [['Ctrl', 'Shift', 'O'], 'keyNew'],
    [['Ctrl', 'Z'], 'keyUndo'],
  ];
  return html`<${Dialog} title=${t('shortcuts')} onClose=${onClose}>
    <dl class="shortcuts">
      ${keys.map(([combination, what]) => html`<dt key=${what}>${combination.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${t(what)}</dd>`)}
    </dl>
    <p><a href=${documentation()} target="_blank">${t('documentation')}</a></p>
  </>`;
}

/** The first page of the documentation, in the language of the page. */
function documentation() {
  return language() === 'zh' ? '/docs/zh/' : '/docs/';
}

function KeyDialog({ wrong, answer }) {
  const [text, setText] = useState('');
  const enter = (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    setKey(text.trim());
    answer(true);
  };
  return html`<${Dialog} title=${t('keyTitle')} onClose=${() => answer(false)}>
    <form class="key-form" onSubmit=${enter}>
      <${Field} label=${t('keyLabel')} hint=${t('keyHint')} error=${wrong && t('keyWrong')}>
        <input type="password" autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} />
      </>
      <${Button} kind="primary" type="submit" icon="key" disabled=${!text.trim()}>${t('keyUse')}</>
    </form>
  </>`;
}

render(html`<${App} />`, document.getElementById('app'));
