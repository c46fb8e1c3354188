/** The two languages of the page: which one is on, its texts, its numbers and dates. */

import { kept, keep } from './store.js';

const listeners = new Set();
let current = kept('language', null) ?? (preferred() ? 'zh' : 'en');

function preferred() {
  // The first of our two languages that the reader's browser names.
  const first = navigator.languages.find((name) => /^(zh|en)\b/i.test(name));
  return first?.toLowerCase().startsWith('zh') ?? false;
}

/** 'en' or 'zh'. */
export const language = () => current;

/** Switch; every listener of `onLanguage` hears of it, and the shell draws everything anew. */
export function setLanguage(name) {
  current = name;
  keep('language', name);
  show();
  for (const listener of listeners) listener(name);
}

/** Call `listener(language)` at each switch; returns the function that ends it. */
export function onLanguage(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function show() {
  document.documentElement.lang = current === 'zh' ? 'zh-CN' : 'en';
}
show();

/**
 * A table of texts -> the function that looks one up in the current language.
 *
 *     const t = texts({en: {found: '{n} found'}, zh: {found: '找到 {n} 条'}});
 *     t('found', {n: 3})
 *
 * A text may be a function of the values instead. An unknown key is a mistake and throws.
 */
export function texts(table) {
  const look = (key, values = {}) => {
    const text = table[current][key];
    if (text === undefined) throw new Error(`no text ${key} in ${current}`);
    if (typeof text === 'function') return text(values);
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  };
  look.table = table;
  return look;
}

const locale = () => (current === 'zh' ? 'zh-CN' : 'en-GB');

/** A number with the separators of the language: 12,345.6. */
export const number = (value, digits = 1) =>
  new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);

/** 0.42 -> 42 %. */
export const percent = (value, digits = 0) =>
  new Intl.NumberFormat(locale(), { style: 'percent', maximumFractionDigits: digits }).format(value);

/** Bytes in steps of 1,024: 1.5 GiB. */
export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${number(value, value < 10 && step ? 1 : 0)} ${units[step]}`;
}

/** A moment in seconds since 1970, short: the time today, the day this year, else the date. */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const now = new Date();
  if (date.toDateString() === now.toDateString())
    return date.toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit' });
  const year = date.getFullYear() === now.getFullYear() ? undefined : 'numeric';
  return date.toLocaleDateString(locale(), { month: 'short', day: 'numeric', year });
}
