/** Talking to the server: JSON, uploads, and answers as streams of events. */

import { language } from './i18n.js';

/**
 * Why a request failed. `status` is HTTP's, or 0: then `code` is 'offline' (never reached) or
 * 'broken' (the answer ended early or made no sense). `message` is for the reader.
 */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, body = null } = {}) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.param = param;
    this.body = body;
  }
}

const OFFLINE = {
  en: 'The server cannot be reached. Is it still running?',
  zh: '无法连接到服务器。它还在运行吗？',
};
const BROKEN = {
  en: 'The connection ended before the answer did.',
  zh: '连接在回答完成之前中断了。',
};

const listeners = new Set();
let keyAsked = null;
let askForKey = async () => false;

/** Call `listener(reached)` after each request: whether the server answered at all. */
export function onConnection(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * `ask(wrong)` is called when a key is missing, or the one that was entered is wrong; resolves to
 * whether another was entered.
 */
export function onUnauthorised(ask) {
  askForKey = ask;
}

/** Use this key from now on; it lasts as long as the tab. */
export function setKey(key) {
  memory = key;
  try {
    sessionStorage.setItem('hunyuan.key', key);
  } catch {
    // It is in `memory`.
  }
}

let memory = null;

function key() {
  if (memory === null) {
    try {
      memory = sessionStorage.getItem('hunyuan.key') ?? '';
    } catch {
      memory = '';
    }
  }
  return memory;
}

function headers(extra) {
  const all = { 'Accept-Language': language(), ...extra };
  // A header holds bytes; a key may hold any character.
  if (key()) all.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key()))}`;
  return all;
}

async function call(method, path, { body, signal, accept, keepalive } = {}) {
  const options = { method, headers: headers({ Accept: accept ?? 'application/json' }), signal, keepalive };
  if (method !== 'GET') {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body ?? {});
  }
  const used = key();
  const reply = await fetch(path, options).catch((error) => {
    if (error.name === 'AbortError') throw error;
    tell(false);
    throw new ApiError(OFFLINE[language()], { code: 'offline' });
  });
  tell(true);
  if (reply.ok) return reply;
  if (reply.status === 401 && (await newKey(used))) return call(method, path, { body, signal, accept });
  throw await failure(reply);
}

/** Whether there is a key now that is not `used`. Several requests at once ask only once. */
async function newKey(used) {
  if (key() !== used) return true;
  keyAsked ??= askForKey(used !== '').finally(() => {
    keyAsked = null;
  });
  return keyAsked;
}

async function failure(reply) {
  const body = await reply.json().catch(() => null);
  const error = body?.error ?? {};
  return new ApiError(error.message ?? `HTTP ${reply.status}`, { ...error, status: reply.status, body });
}

function tell(reached) {
  for (const listener of listeners) listener(reached);
}

async function json(method, path, body, { signal, keepalive } = {}) {
  const reply = await call(method, path, { body, signal, keepalive });
  const text = await reply.text();
  return text ? JSON.parse(text) : null;
}

/** The requests of the workbench. Each resolves to the JSON of the reply or throws `ApiError`. */
export const api = {
  get: (path, options) => json('GET', path, undefined, options),
  post: (path, body, options) => json('POST', path, body, options),
  put: (path, body, options) => json('PUT', path, body, options),
  patch: (path, body, options) => json('PATCH', path, body, options),
  delete: (path, body, options) => json('DELETE', path, body, options),

  /** The reply itself, for files: `(await api.raw(path)).blob()`. */
  raw: (path, { signal, accept = '*/*' } = {}) => call('GET', path, { signal, accept }),

  /**
   * Send a File or Blob as raw bytes by PUT; `onProgress(sent, total)` in bytes. Resolves to the
   * JSON of the reply.
   */
  upload(path, file, { onProgress, signal, method = 'PUT' } = {}) {
    // fetch cannot tell how much it has sent.
    const attempt = (used) =>
      new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open(method, path);
        for (const [name, value] of Object.entries(headers({}))) request.setRequestHeader(name, value);
        request.setRequestHeader('Content-Type', 'application/octet-stream');
        request.upload.onprogress = (event) => onProgress?.(event.loaded, event.total);
        request.onerror = () => {
          tell(false);
          reject(new ApiError(OFFLINE[language()], { code: 'offline' }));
        };
        request.onabort = () => reject(new DOMException('stopped', 'AbortError'));
        request.onload = async () => {
          tell(true);
          if (request.status < 300) return resolve(request.responseText ? JSON.parse(request.responseText) : null);
          if (request.status === 401 && (await newKey(used))) return resolve(attempt(key()));
          return reject(await failure(new Response(request.responseText, { status: request.status })));
        };
        if (signal?.aborted) return request.onabort();
        signal?.addEventListener('abort', () => request.abort(), { once: true });
        return request.send(file);
      });
    return attempt(key());
  },

  /**
   * Post `body` and read the events of the reply as they come: `for await (const e of ...)`.
   * An event of type 'error' is thrown as `ApiError`; so is an end without 'done' or 'result'.
   * Leaving the loop, or `signal`, ends the action on the server too.
   */
  async *events(path, body, { signal, method = 'POST' } = {}) {
    const reply = await call(method, path, { body, signal, accept: 'text/event-stream' });
    let whole = false;
    for await (const event of read(reply.body)) {
      if (event.type === 'error') {
        const error = event.error ?? event;
        throw new ApiError(error.message, { ...error, status: error.status ?? 500, body: event });
      }
      whole ||= event.type === 'done' || event.type === 'result';
      yield event;
    }
    if (!whole) throw new ApiError(BROKEN[language()], { code: 'broken' });
  },
};

/**
 * The parsed events of a server-sent stream of bytes, up to its end. Where the network cuts the
 * stream means nothing, be it inside a line end or inside a character.
 */
export async function* read(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let data = [];
  let complete = false;
  try {
    while (true) {
      const { done, value } = await reader.read().catch(unreadable);
      complete = done;
      if (done) return;
      // A \r that comes last may be the first half of \r\n.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
        if (line !== '' || !data.length) continue; // comments, and the blank line after one
        const text = data.join('\n');
        data = [];
        yield parsed(text);
      }
    }
  } finally {
    // Left early, the server must not go on for nobody.
    if (!complete) reader.cancel().catch(() => {});
  }
}

function unreadable(error) {
  throw error.name === 'AbortError' ? error : new ApiError(BROKEN[language()], { code: 'broken' });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(BROKEN[language()], { code: 'broken' });
  }
}
