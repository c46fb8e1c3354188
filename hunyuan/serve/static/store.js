/**
 * What the browser remembers: language, settings and one conversation; the key only until its tab
 * closes. A browser that forbids storing still chats, and damaged data is as good as none.
 */

const NAME = "hunyuan";
const KEPT_CHARACTERS = 1_000_000; // browsers give a site about five million
const ROLES = ["user", "assistant"];

/** {language, settings, messages}, every part sound. */
export function load() {
  const found = read() ?? {};
  const messages = (Array.isArray(found.messages) ? found.messages : [])
    .filter((m) => ROLES.includes(m?.role) && typeof m.content === "string")
    // An answer without an end was being written when the page was left.
    .map((m) => (m.role === "user" ? m : { ...m, end: m.end ?? { kind: "broken" } }));
  // Where the beginning is missing, what is left must still begin with a question.
  while (messages[0]?.role === "assistant") messages.shift();
  const preferred = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  return {
    language: ["zh", "en"].includes(found.language) ? found.language : preferred,
    settings: sound(found.settings ?? {}),
    messages,
  };
}

/** Remember the state; of a very long conversation its end. */
export function save({ language, settings, messages }) {
  let room = KEPT_CHARACTERS;
  const first = messages.findLastIndex((m) => (room -= m.content.length) < 0) + 1;
  try {
    localStorage.setItem(NAME, JSON.stringify({ language, settings, messages: messages.slice(first) }));
  } catch {
    // Full or forbidden.
  }
}

/** Settings within their limits, the usual value where there is none. */
export function sound({ system, temperature, maxTokens }) {
  return {
    system: typeof system === "string" ? system : "",
    temperature: within(temperature, 0, 2, 0.7),
    maxTokens: Math.floor(within(maxTokens, 1, 1_000_000, 1024)),
  };
}

function within(value, low, high, usual) {
  const number = Number.parseFloat(value);
  return Number.isNaN(number) ? usual : Math.min(high, Math.max(low, number));
}

/** The API key, "" if none was given. */
export function loadKey() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

/** Remember the API key for this tab. */
export function saveKey(key) {
  try {
    sessionStorage.setItem(NAME, key);
  } catch {
    // Forbidden: it is asked for again after a reload.
  }
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(NAME));
  } catch {
    return null;
  }
}
