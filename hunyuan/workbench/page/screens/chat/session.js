/** A conversation in the browser: its tree of messages, and the answer that is being written. */

import { useEffect, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';

const ROOT = '/workbench/chat';

/** Those that were opened, by id: an answer goes on being written while another is looked at. */
const sessions = new Map();

/** The session of a conversation, loaded once. */
export function sessionOf(id) {
  if (!sessions.has(id)) {
    const session = new Session(id);
    sessions.set(id, session);
    session.load();
  }
  return sessions.get(id);
}

/** Make a conversation and its session. */
export async function begin({ system, settings }) {
  const conversation = await api.post(ROOT, { system: system || null, settings });
  const session = new Session(conversation.id);
  session.conversation = conversation;
  sessions.set(conversation.id, session);
  return session;
}

/** Draw again whenever the session changes. */
export function useSession(session) {
  const [, redraw] = useState(0);
  useEffect(() => session?.listen(() => redraw((n) => n + 1)), [session]);
}

/** Messages are replaced, never changed, so that what is drawn can tell by identity. */
class Session {
  constructor(id) {
    this.id = id;
    this.conversation = null;
    this.messages = new Map();
    this.error = null;
    this.answering = null; // {id, controller}; id is null until the server has named the answer
    this.listeners = new Set();
    this.drawing = false;
  }

  get path() {
    return `${ROOT}/${this.id}`;
  }

  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Tell the listeners, once a frame however often it is called. */
  changed() {
    if (this.drawing) return;
    this.drawing = true;
    const tell = () => {
      this.drawing = false;
      for (const listener of this.listeners) listener();
    };
    // A hidden page gets no frames.
    if (document.hidden) setTimeout(tell, 100);
    else requestAnimationFrame(tell);
  }

  async load() {
    try {
      const { conversation, messages } = await api.get(this.path);
      this.conversation = conversation;
      this.messages = new Map(messages.map((message) => [message.id, message]));
      this.error = null;
      // Written by another window, or by one that has just gone: look again until it is over.
      if (!this.answering && messages.some(({ status }) => status === 'streaming')) setTimeout(() => this.load(), 1500);
    } catch (error) {
      this.error = error;
    }
    this.changed();
  }

  /** The messages that are shown, from the first to the active leaf, each {message, siblings}. */
  branch() {
    const families = new Map();
    for (const message of this.messages.values()) {
      if (!families.has(message.parent)) families.set(message.parent, []);
      families.get(message.parent).push(message.id);
    }
    const shown = [];
    let message = this.messages.get(this.conversation?.active);
    while (message) {
      shown.push({ message, siblings: families.get(message.parent) });
      message = this.messages.get(message.parent);
    }
    return shown.reverse();
  }

  async patch(change) {
    this.conversation = { ...this.conversation, ...change };
    this.changed();
    this.conversation = await api.patch(this.path, change);
    this.changed();
    return this.conversation;
  }

  /** Show the branch of another version of a message. */
  choose = (id) => this.patch({ active: id });

  /** Ask below the active message. Resolves when the answer is over, however it ended. */
  ask = (content, attachments, options) => this.stream('messages', { content, attachments: attachments.map(({ id }) => id), ...options });

  regenerate = (id, options) => this.stream(`messages/${id}/regenerate`, options);

  edit = (id, content, options) => this.stream(`messages/${id}/edit`, { content, ...options });

  goOn = (id, options) => this.stream(`messages/${id}/continue`, options);

  /** Throws only what was refused before anything was written. */
  async stream(path, body = {}) {
    const controller = new AbortController();
    this.answering = { id: null, controller };
    this.changed();
    let started = false;
    try {
      for await (const event of api.events(`${this.path}/${path}`, body, { signal: controller.signal })) {
        started = true;
        this.take(event);
      }
    } catch (error) {
      if (!started && error.name !== 'AbortError') throw error;
      if (error.name !== 'AbortError') this.ended(error.body?.message ?? { status: 'failed', error: { message: error.message } });
      // The server keeps what was said until now, and knows how it ended.
      else this.ended({ status: 'stopped' });
    } finally {
      this.answering = null;
      this.changed();
    }
  }

  take(event) {
    if (event.type === 'start') {
      if (event.user) this.messages.set(event.user.id, event.user);
      this.messages.set(event.assistant.id, event.assistant);
      this.conversation = { ...event.conversation, active: event.assistant.id };
      this.answering.id = event.assistant.id;
    } else if (event.type === 'delta') {
      this.grow('content', event.text);
    } else if (event.type === 'reasoning') {
      this.grow('reasoning', event.text);
    } else if (event.type === 'done') {
      this.messages.set(event.message.id, event.message);
      this.conversation = event.conversation;
    }
    this.changed();
  }

  grow(field, text) {
    const message = this.messages.get(this.answering.id);
    this.messages.set(message.id, { ...message, [field]: (message[field] ?? '') + text });
  }

  ended(change) {
    const message = this.messages.get(this.answering.id);
    if (message) this.messages.set(message.id, { ...message, ...change });
  }

  stop() {
    this.answering?.controller.abort();
  }

  async remove(id) {
    this.conversation = await api.delete(`${this.path}/messages/${id}`);
    await this.load();
  }

  async feedback(id, rating, comment) {
    const { feedback } = await api.put(`${this.path}/messages/${id}/feedback`, { rating, comment });
    this.messages.set(id, { ...this.messages.get(id), feedback });
    this.changed();
  }

  async title() {
    const { title } = await api.post(`${this.path}/title`, {});
    this.conversation = { ...this.conversation, title };
    this.changed();
  }
}
