/** The chat page: one conversation, kept in this browser. */

import { answer, modelName, ServerError } from "./api.js";
import { element, render } from "./render.js";
import { texts } from "./texts.js";

const STORE = "hunyuan";
const KEPT_MESSAGES = 200; // what the browser remembers of a long conversation

const by = (id) => document.getElementById(id);
const state = {
  language: navigator.language.startsWith("zh") ? "zh" : "en",
  settings: { system: "", temperature: 0.7, maxTokens: 1024 },
  messages: [], // {role, content, note?}
  ...load(),
};
let key = sessionStorage.getItem(STORE + "-key") ?? "";
let model = null;
let running = null; // AbortController of the answer being written

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE)) ?? {};
    const sound = Array.isArray(found.messages) && found.messages.every((m) => typeof m.content === "string");
    return sound && found.settings && found.language in texts ? found : {};
  } catch {
    return {}; // damaged or foreign: start fresh
  }
}

function save() {
  try {
    localStorage.setItem(STORE, JSON.stringify({ ...state, messages: state.messages.slice(-KEPT_MESSAGES) }));
  } catch {
    // The browser's store is full or forbidden; the conversation still works.
  }
}

const say = () => texts[state.language];

function headers() {
  const found = { "Accept-Language": state.language };
  if (key) found.Authorization = `Bearer ${key}`;
  return found;
}

function show() {
  const t = say();
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  by("new").textContent = t.new;
  by("settings-button").textContent = t.settings;
  by("language").textContent = t.other;
  by("welcome").textContent = t.welcome;
  by("input").placeholder = t.placeholder;
  by("input").setAttribute("aria-label", t.placeholder);
  by("hint").textContent = t.hint;
  by("send").textContent = running ? t.stop : t.send;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t[node.dataset.text];
  by("examples").replaceChildren(...t.examples.map((text) => {
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", () => submit(text));
    return button;
  }));
  by("empty").hidden = state.messages.length > 0;
  by("messages").replaceChildren(...state.messages.map((message) => bubble(message).root));
}

function bubble(message) {
  const root = element("li", "", message.role);
  const body = element("div", "", "body");
  const note = element("div", message.note ?? "", "note");
  root.append(element("div", message.role === "user" ? say().you : model ?? "", "who"), body, note);
  render(body, message.content, say());
  return { root, body, note };
}

const atBottom = () => by("scroll").scrollHeight - by("scroll").scrollTop - by("scroll").clientHeight < 60;
const toBottom = () => by("scroll").scrollTo(0, by("scroll").scrollHeight);

async function submit(text) {
  if (running || !text.trim()) return;
  state.messages.push({ role: "user", content: text });
  by("input").value = "";
  fit();
  save();
  await reply();
}

async function reply() {
  const conversation = state.messages; // New chat replaces it while the answer is written
  show();
  const message = { role: "assistant", content: "" };
  const { root, body, note } = bubble(message);
  root.classList.add("writing");
  root.setAttribute("aria-busy", "true"); // read out once, when it is complete
  by("messages").append(root);
  toBottom();
  running = new AbortController();
  by("send").textContent = say().stop;
  by("language").disabled = true; // a redraw would lose the answer being written
  let first = null;
  let drawn = false;
  try {
    model ??= await modelName(headers());
    by("model").textContent = model;
    const result = await answer(request(), headers(), running.signal, (text) => {
      first ??= performance.now();
      message.content += text;
      if (drawn) return;
      drawn = true;
      requestAnimationFrame(() => {
        drawn = false;
        const follow = atBottom();
        render(body, message.content, say());
        if (follow) toBottom();
      });
    });
    const seconds = (performance.now() - (first ?? performance.now())) / 1000;
    const tokens = result.usage?.completion_tokens ?? 0;
    message.note = say().speed(tokens, seconds > 0 ? (tokens / seconds).toFixed(1) : "–");
    if (result.finish === "length") message.note += ` · ${say().length}`;
  } catch (error) {
    message.note = problem(error);
    if (error.name !== "AbortError") note.append(retry(root));
  }
  running = null;
  root.classList.remove("writing");
  root.removeAttribute("aria-busy");
  render(body, message.content, say());
  note.prepend(message.note);
  if (message.content) conversation.push(message);
  by("send").textContent = say().send;
  by("language").disabled = false;
  save();
  if (atBottom()) toBottom();
  by("input").focus();
}

function request() {
  const { system, temperature, maxTokens } = state.settings;
  const opening = system.trim() ? [{ role: "system", content: system }] : [];
  // A question that got no answer is not asked again beside the next one.
  const answered = state.messages.filter((m, i, all) => m.role !== "user" || all[i + 1]?.role !== "user");
  const turns = answered.map(({ role, content }) => ({ role, content }));
  return { model, messages: [...opening, ...turns], temperature, max_tokens: maxTokens };
}

function problem(error) {
  if (error.name === "AbortError") return say().stopped;
  if (error instanceof ServerError) {
    if (error.status === 401) by("key-form").hidden = false;
    return error.message || say().broken;
  }
  return say().offline;
}

function retry(root) {
  const button = element("button", say().retry);
  button.type = "button";
  button.addEventListener("click", () => {
    if (running) return;
    root.remove();
    if (state.messages.at(-1)?.role === "assistant") state.messages.pop();
    reply();
  });
  return button;
}

function fit() {
  const input = by("input");
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 240)}px`;
}

by("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else submit(by("input").value);
});
by("input").addEventListener("input", fit);
by("input").addEventListener("keydown", (event) => {
  // While an input method composes, Enter chooses a candidate; Safari ends the composition before
  // the key arrives and marks the key with code 229.
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key === "Enter" && !event.shiftKey && !composing && !running) {
    event.preventDefault();
    submit(by("input").value);
  }
});
by("new").addEventListener("click", () => {
  running?.abort();
  state.messages = [];
  save();
  show();
  by("input").focus();
});
by("language").addEventListener("click", () => {
  state.language = state.language === "zh" ? "en" : "zh";
  save();
  show();
});
by("settings-button").addEventListener("click", () => {
  const panel = by("settings");
  panel.hidden = !panel.hidden;
  by("settings-button").setAttribute("aria-expanded", String(!panel.hidden));
});
by("settings").addEventListener("submit", (event) => event.preventDefault());
by("settings").addEventListener("input", () => {
  state.settings = {
    system: by("system").value,
    temperature: Math.min(2, Math.max(0, Number(by("temperature").value) || 0)),
    maxTokens: Math.max(1, Math.floor(Number(by("max-tokens").value)) || 1024),
  };
  save();
});
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = by("key").value;
  sessionStorage.setItem(STORE + "-key", key);
  by("key-form").hidden = true;
  by("key").value = "";
  if (state.messages.at(-1)?.role === "user" && !running) reply();
});

by("system").value = state.settings.system;
by("temperature").value = state.settings.temperature;
by("max-tokens").value = state.settings.maxTokens;
show();
toBottom();
by("input").focus();
modelName(headers()).then(
  (name) => {
    model = name;
    by("model").textContent = name;
    if (!running) show();
  },
  (error) => {
    if (error.status === 401) by("key-form").hidden = false;
  },
);
