/** The chat page: one conversation, kept in this browser. */

import { answer, AnswerError, modelName } from "./api.js";
import { copyButton, element, labelled, render } from "./render.js";
import { load, loadKey, save, saveKey, sound } from "./store.js";
import { label, say } from "./texts.js";

const by = (id) => document.getElementById(id);
const [scroll, list, input, send] = ["scroll", "messages", "input", "send"].map(by);

// A message is {role, content}; an answer that is no longer being written also has
// end: {kind: "done" | "stopped" | "failed" | "offline" | "broken", tokens, rate, cut, text, status}.
const state = load();
const views = new WeakMap(); // message -> the elements that show it
let key = loadKey();
let model = null; // its name, once the server has told it
let running = null; // {message, controller} of the answer being written

function headers() {
  const found = { "Accept-Language": state.language };
  // A header holds bytes; a key may hold any character.
  const bytes = new TextEncoder().encode(key);
  if (key) found.Authorization = `Bearer ${String.fromCharCode(...bytes)}`;
  return found;
}

// ---- What is shown

function showLanguage() {
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  label(document.body);
  for (const message of state.messages) showFoot(message);
}

function showConversation() {
  list.replaceChildren();
  state.messages.forEach(add);
  by("empty").hidden = state.messages.length > 0;
  toBottom();
}

function add(message) {
  const root = element("li", message.role);
  const view = { root, body: element("div", "body"), foot: element("div", "foot") };
  root.append(labelled("span", message.role === "user" ? "you" : "model", "who"), view.body, view.foot);
  views.set(message, view);
  render(view.body, message.content);
  showFoot(message);
  list.append(root);
}

/** Below an answer: how it ended, and what can be done with it. */
function showFoot(message) {
  if (message.role === "user") return;
  const { root, body, foot } = views.get(message);
  const writing = running?.message === message;
  root.classList.toggle("writing", writing);
  root.setAttribute("aria-busy", String(writing)); // read out once, when it is complete
  if (writing) {
    foot.replaceChildren(...(message.content ? [] : [labelled("span", "waiting", "note")]));
    return;
  }
  const note = element("span", "note");
  note.textContent = ending(message.end);
  note.classList.toggle("bad", !["done", "stopped"].includes(message.end.kind));
  const retry = labelled("button", "retry", "retry");
  retry.type = "button";
  retry.addEventListener("click", again);
  const copy = message.content ? [copyButton(() => message.content, body)] : [];
  foot.replaceChildren(note, ...copy, retry);
}

function ending({ kind, tokens, rate, cut, text }) {
  if (kind === "done") return say().speed(tokens, rate) + (cut ? ` · ${say().length}` : "");
  return kind === "failed" ? text : say()[kind] ?? say().broken;
}

function showRunning() {
  send.dataset.text = running ? "stop" : "send";
  label(send);
}

const atBottom = () => scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
const toBottom = () => scroll.scrollTo(0, scroll.scrollHeight);

/** Do something that changes heights; who was reading the end stays there, nobody else moves. */
function following(change) {
  const follow = atBottom();
  change();
  if (follow) toBottom();
}

// ---- What is done

function submit(text) {
  if (running || !text.trim()) return;
  input.value = "";
  fit();
  const message = { role: "user", content: text };
  state.messages.push(message);
  by("empty").hidden = true;
  add(message);
  write();
}

/** Drop the last answer and ask for another. */
function again() {
  if (running) return;
  views.get(state.messages.pop()).root.remove();
  write();
}

/** Ask for an answer to the conversation and show it as it grows. */
async function write() {
  const turns = request();
  const message = { role: "assistant", content: "" };
  const controller = new AbortController();
  running = { message, controller };
  state.messages.push(message);
  add(message);
  save(state);
  showRunning();
  toBottom();
  message.end = await ended(message, turns, controller.signal);
  running = null;
  showRunning();
  following(() => {
    render(views.get(message).body, message.content);
    showFoot(message);
  });
  save(state);
  if (message.end.status === 401) askForKey();
  // On a touch screen focus would open the keyboard over the answer.
  else if (document.activeElement === document.body && matchMedia("(pointer: fine)").matches) input.focus();
}

/** Lets `message` grow; resolves to how it ended. */
async function ended(message, turns, signal) {
  let first = null;
  let drawn = true;
  const onText = (text) => {
    first ??= performance.now();
    message.content += text;
    if (!drawn) return;
    drawn = false;
    requestAnimationFrame(() => {
      drawn = true;
      following(() => {
        render(views.get(message).body, message.content);
        if (running?.message === message) showFoot(message);
      });
    });
  };
  try {
    await meetModel();
    const { finish, usage } = await answer({ model, ...turns }, headers(), signal, onText);
    const tokens = usage?.completion_tokens ?? 0;
    // The clock starts with the first token, so that one took no time.
    const seconds = (performance.now() - first) / 1000;
    const rate = tokens > 1 && first !== null ? ((tokens - 1) / seconds).toFixed(1) : null;
    return { kind: "done", tokens, rate, cut: finish === "length" };
  } catch (error) {
    if (error.name === "AbortError") return { kind: "stopped" };
    if (!(error instanceof AnswerError)) throw error;
    if (error.status === 404) model = null; // perhaps the server has another one by now
    return { kind: error.kind, text: error.message, status: error.status };
  }
}

/** What is asked: a question that got no answer is not asked again beside the next one. */
function request() {
  const { system, temperature, maxTokens } = state.settings;
  const answered = (i) => i === state.messages.length - 1 || state.messages[i + 1].content;
  const turns = state.messages
    .filter(({ role, content }, i) => (role === "user" ? answered(i) : content))
    .map(({ role, content }) => ({ role, content }));
  if (system.trim()) turns.unshift({ role: "system", content: system });
  return { messages: turns, temperature, max_tokens: maxTokens };
}

async function meetModel() {
  model ??= await modelName(headers());
  by("model").textContent = model;
  by("model").title = model;
}

function askForKey() {
  following(() => { by("key-form").hidden = false; });
  by("key").focus();
}

/** The model's name before the first question. */
async function greet() {
  try {
    await meetModel();
  } catch (error) {
    if (!(error instanceof AnswerError)) throw error;
    if (error.status === 401) askForKey();
  }
}

function fit() {
  following(() => {
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight, 240)}px`;
  });
}

// ---- What the reader does

by("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.controller.abort();
  else submit(input.value);
});
input.addEventListener("input", fit);
input.addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a candidate; Safari ends the composition before
  // the key arrives and marks the key with code 229.
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  submit(input.value);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) running?.controller.abort();
});
document.querySelectorAll(".examples button").forEach((button) => {
  button.addEventListener("click", () => submit(button.querySelector("span").textContent));
});
by("new").addEventListener("click", () => {
  running?.controller.abort();
  state.messages = [];
  save(state);
  showConversation();
  input.focus();
});
by("language").addEventListener("click", () => {
  state.language = state.language === "zh" ? "en" : "zh";
  save(state);
  showLanguage();
});
by("settings-button").addEventListener("click", () => {
  following(() => { by("settings").hidden = !by("settings").hidden; });
  by("settings-button").setAttribute("aria-expanded", String(!by("settings").hidden));
});

function showSettings() {
  by("system").value = state.settings.system;
  by("temperature").value = state.settings.temperature;
  by("max-tokens").value = state.settings.maxTokens;
}

by("settings").addEventListener("submit", (event) => event.preventDefault());
by("settings").addEventListener("input", () => {
  const [system, temperature, maxTokens] = ["system", "temperature", "max-tokens"].map((id) => by(id).value);
  state.settings = sound({ system, temperature, maxTokens });
  save(state);
});
by("settings").addEventListener("change", showSettings); // the values that are used
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = by("key").value.trim();
  saveKey(key);
  by("key").value = "";
  by("key-form").hidden = true;
  input.focus();
  if (state.messages.at(-1)?.end?.status === 401) again();
  else greet();
});
scroll.addEventListener("scroll", () => { by("latest").hidden = atBottom(); });
by("latest").addEventListener("click", toBottom);
addEventListener("pagehide", () => save(state)); // with the part of an answer that is there

document.documentElement.lang = state.language;
showConversation();
showLanguage();
showSettings();
input.focus();
greet();
