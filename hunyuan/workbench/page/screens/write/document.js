/** A document being edited: its text as it is on the screen, and saving it as it changes. */

import { useEffect, useState } from '../../vendor/preact.js';
import { api } from '../../lib/api.js';

const ROOT = '/workbench/write';
const REST = 800;
const RETRY = 3000;
/** The most that a browser sends while its page goes, in bytes. */
const MOST_ON_LEAVING = 60_000;

/** Load a document and keep it saved -> a `Draft`, or {error}; null while it loads. */
export function useDocument(id, onSaved) {
  const [, redraw] = useState(0);
  const [draft, setDraft] = useState(null);
  useEffect(() => {
    if (!id) return undefined;
    const made = new Draft(id, () => redraw((n) => n + 1), onSaved);
    let here = true;
    made.load().then(
      () => here && setDraft(made),
      (error) => here && setDraft({ id, error }),
    );
    const leave = () => made.save({ leaving: true });
    addEventListener('pagehide', leave);
    return () => {
      here = false;
      removeEventListener('pagehide', leave);
      if (made.version) leave();
    };
  }, [id]);
  return draft?.id === id ? draft : null;
}

/** `state`: 'saved', 'changed', 'saving', 'waiting' (the server is away) or 'conflict'. */
class Draft {
  constructor(id, changed, onSaved) {
    this.id = id;
    this.changed = changed;
    this.onSaved = onSaved;
    this.state = 'saved';
    this.conflict = null; // the document as somebody else saved it meanwhile
    this.problem = null;
    this.timer = 0;
    this.author = 'user';
    this.saving = Promise.resolve();
  }

  async load() {
    const { title, text, version } = await api.get(`${ROOT}/${this.id}`);
    Object.assign(this, { title, text, version, saved: { title, text } });
  }

  get dirty() {
    return this.text !== this.saved.text || this.title !== this.saved.title;
  }

  /** Change `text` or `title`; `author` names an action, whose result becomes a version at once. */
  set(part, author = 'user') {
    Object.assign(this, part);
    if (author !== 'user') {
      this.author = author;
      this.save();
    } else if (this.state !== 'conflict' && this.dirty) {
      this.state = 'changed';
      this.later(REST);
    }
    this.changed();
  }

  later(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), milliseconds);
  }

  /** Send what changed. Saves follow each other; resolves when this one is over, never rejects. */
  save(options = {}) {
    clearTimeout(this.timer);
    this.saving = this.saving.then(() => this.send(options));
    return this.saving;
  }

  async send({ leaving = false }) {
    if (!this.dirty || this.conflict) return;
    const { title, text, version, author } = this;
    const body = { version };
    if (text !== this.saved.text) body.text = text;
    if (title !== this.saved.title) body.title = title;
    if (author !== 'user') body.author = author;
    const keepalive = leaving && new Blob([JSON.stringify(body)]).size < MOST_ON_LEAVING;
    this.state = 'saving';
    this.changed();
    try {
      this.took(await api.put(`${ROOT}/${this.id}`, body, { keepalive }), { title, text });
    } catch (error) {
      this.missed(error);
    }
    this.changed();
  }

  took({ version }, saved) {
    Object.assign(this, { version, saved, problem: null, author: 'user' });
    // Typing went on while it was sent; its own timer runs.
    this.state = this.dirty ? 'changed' : 'saved';
    this.onSaved(this);
  }

  missed(error) {
    this.problem = error;
    this.state = 'waiting';
    if (error.code === 'version_conflict') {
      this.state = 'conflict';
      this.conflict = error.body.current;
    } else if (error.status === 0 || error.status >= 500) this.later(RETRY);
  }

  /** End a conflict: `text` is what stands from now on. */
  settle(text) {
    const { version, title, text: theirs } = this.conflict;
    Object.assign(this, { version, saved: { title, text: theirs }, text, conflict: null, problem: null, state: 'saved' });
    this.save();
    this.changed();
  }

  /** Bring an old version back, as a new one. */
  async restore(version) {
    await this.save();
    const { title, text, version: now } = await api.post(`${ROOT}/${this.id}/restore`, { restore: version, version: this.version });
    Object.assign(this, { title, text });
    this.took({ version: now }, { title, text });
    this.changed();
  }
}
