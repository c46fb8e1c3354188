/** Counting a text and judging how easily it reads, in English and Chinese. */

import { isWord, words as wordsOf } from './words.js';

const sentencesOf = new Intl.Segmenter('en', { granularity: 'sentence' });

const HAN = /\p{Script=Han}/gu;
const LATIN_PER_MINUTE = 230;
const HAN_PER_MINUTE = 400;

/**
 * {language, characters, charactersWithoutSpaces, han, words, sentences, paragraphs, minutes,
 * sentenceLength, ease}. `words` counts Latin words and Chinese ones as segmented. `sentenceLength`
 * is in words (en) or Chinese characters (zh). `ease` is Flesch's reading ease for English, 0 to 100,
 * else null.
 */
export function measure(text) {
  const han = text.match(HAN)?.length ?? 0;
  let words = 0;
  let latin = 0;
  let syllables = 0;
  for (const piece of wordsOf(text)) {
    if (!isWord(piece)) continue;
    words += 1;
    if (!/\p{Script=Latin}|\d/u.test(piece)) continue;
    latin += 1;
    syllables += syllablesOf(piece);
  }
  const sentences = splitSentences(text).length;
  const language = han > latin ? 'zh' : 'en';
  const per = (count) => (sentences ? count / sentences : 0);
  return {
    language,
    characters: [...text].length,
    charactersWithoutSpaces: [...text.replace(/\s/g, '')].length,
    han,
    words,
    sentences,
    paragraphs: text.split(/\n\s*\n|\n/).filter((line) => line.trim()).length,
    minutes: latin / LATIN_PER_MINUTE + han / HAN_PER_MINUTE,
    sentenceLength: per(language === 'zh' ? han : latin),
    ease: language === 'en' && latin > 0 ? clamp(206.835 - 1.015 * per(latin) - (84.6 * syllables) / latin) : null,
  };
}

/** 'easy', 'medium' or 'hard', from what `measure` found; null for a text too short to judge. */
export function level({ language, words, ease, sentenceLength }) {
  if (words < 20) return null;
  if (language === 'zh') return sentenceLength <= 20 ? 'easy' : sentenceLength <= 35 ? 'medium' : 'hard';
  return ease >= 60 ? 'easy' : ease >= 40 ? 'medium' : 'hard';
}

/** The sentences that say something; a line end ends one too. */
export function splitSentences(text) {
  return text
    .split(/\n+/)
    .flatMap((line) => Array.from(sentencesOf.segment(line), ({ segment }) => segment.trim()))
    .filter((sentence) => /[\p{L}\p{N}]/u.test(sentence));
}

/** Groups of vowels, less a silent e. */
function syllablesOf(word) {
  const letters = word.toLowerCase().replace(/[^a-z]/g, '');
  if (letters.length <= 3) return 1;
  const groups = letters.replace(/(?:[^laeiouy]es|[^aeioudt]ed|[^laeiouy]e)$/, '').match(/[aeiouy]{1,2}/g);
  return Math.max(1, groups?.length ?? 1);
}

const clamp = (value) => Math.max(0, Math.min(100, value));
