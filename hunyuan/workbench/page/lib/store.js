/** What this browser remembers of its reader: language, theme, open panels. Never any text. */

const PREFIX = 'hunyuan.';

/** The remembered value, or `otherwise`; a browser without memory has none. */
export function kept(name, otherwise) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/** Remember a value that JSON can hold. */
export function keep(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Without memory it lasts as long as the page.
  }
}
