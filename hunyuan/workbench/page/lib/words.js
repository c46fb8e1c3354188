/** A text in words, in English and in Chinese. */

const PIECES = /([\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]+)|\s+|[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*|./gsu;

const segmenter = new Intl.Segmenter('zh', { granularity: 'word' });

/** The words, spaces and signs of a text, in order; joined they are the text again. */
export function words(text) {
  const found = [];
  // Only what is written without spaces needs the segmenter, which is slow on long texts.
  for (const [piece, together] of text.matchAll(PIECES)) {
    if (!together) found.push(piece);
    else for (const { segment } of segmenter.segment(together)) found.push(segment);
  }
  return found;
}

/** Whether one of `words` is a word and not a space or a sign. */
export const isWord = (piece) => /[\p{L}\p{N}]/u.test(piece);
