"""Whether an answer follows verifiable instructions: the 25 kinds of IFEval (Zhou et al. 2023).

Every check takes the answer and the arguments that the data set gives it. Two differ from the
published program, which needs downloads: sentences are told apart by punctuation, and languages by
langdetect with a fixed seed.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[..., bool]


def follows(answer: str, kind: str, arguments: Mapping[str, Any]) -> bool:
    """Whether ``answer`` follows one instruction; empty answers follow none."""
    given = {name: value for name, value in arguments.items() if value is not None}
    return bool(answer.strip()) and CHECKS[kind](answer, **given)


def follows_loosely(answer: str, kind: str, arguments: Mapping[str, Any]) -> bool:
    """The same for the best of eight readings: without first or last line, or asterisks."""
    lines = answer.split("\n")
    parts = (lines, lines[1:], lines[:-1], lines[1:-1])
    readings = ["\n".join(part).strip() if part is not lines else answer for part in parts]
    readings += [reading.replace("*", "") for reading in readings]
    return any(follows(reading, kind, arguments) for reading in readings)


def _compare(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _existence(answer: str, keywords: list[str]) -> bool:
    return all(re.search(word, answer, re.IGNORECASE) for word in keywords)


def _frequency(answer: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(len(re.findall(keyword, answer, re.IGNORECASE)), relation, frequency)


def _forbidden(answer: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in forbidden_words)


def _letters(answer: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compare(answer.lower().count(letter.lower()), let_relation, let_frequency)


def _language(answer: str, language: str) -> bool:
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    try:
        return bool(detect(answer) == language)
    except LangDetectException:
        return True  # nothing to tell a language by, such as digits alone


def _sentences(answer: str, num_sentences: int, relation: str) -> bool:
    ends = (
        r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bMrs)(?<!\bSt)(?<!\be\.g)(?<!\bi\.e)[.!?。！？]+[\"'”’)]*"
    )
    parts = re.split(rf"{ends}(?:\s+|$)", answer)
    return _compare(sum(bool(part.strip()) for part in parts), relation, num_sentences)


def _paragraphs(answer: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", answer)
    inner = parts[1:-1]
    outer = [part for part in (parts[0], parts[-1]) if part.strip()] if len(parts) > 1 else parts
    if any(not part.strip() for part in inner):
        return False
    return len(inner) + len(outer) == num_paragraphs


def _words(answer: str, num_words: int, relation: str) -> bool:
    return _compare(len(re.findall(r"\w+", answer)), relation, num_words)


def _first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = answer.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    words = parts[nth_paragraph - 1].split()
    if not words:
        return False
    found = re.match(r"[^.,?!'\"]*", words[0].lstrip("'\""))
    return found is not None and found[0].lower() == first_word.lower()


def _placeholders(answer: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def _postscript(answer: str, postscript_marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = patterns.get(postscript_marker, postscript_marker.lower())
    return re.search(pattern, answer.lower()) is not None


def _bullets(answer: str, num_bullets: int) -> bool:
    stars = re.findall(r"^\s*\*[^*].*$", answer, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def _constrained(answer: str) -> bool:
    choices = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
    return any(choice in answer for choice in choices)


def _highlights(answer: str, num_highlights: int) -> bool:
    single = re.findall(r"\*[^\n*]*\*", answer)
    double = re.findall(r"\*\*[^\n*]*\*\*", answer)
    return sum(bool(text.strip("* ").strip()) for text in (*single, *double)) >= num_highlights


def _sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{section_spliter}\s?\d+\s?", answer)) - 1 >= num_sections


def _json(answer: str) -> bool:
    text = re.sub(r"^```(?:json)?|```$", "", answer.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _title(answer: str) -> bool:
    return any(text.strip("<>").strip() for text in re.findall(r"<<[^\n]+>>", answer))


def _two_responses(answer: str) -> bool:
    parts = answer.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    given = [part.strip() for part in parts if part.strip()]
    return len(given) == 2 and given[0] != given[1]


def _repeat(answer: str, prompt_to_repeat: str) -> bool:
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(answer: str, end_phrase: str) -> bool:
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(answer: str, capital_frequency: int, capital_relation: str) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w+(?:[-'’.]\w+)*", answer))
    return _compare(count, capital_relation, capital_frequency)


CHECKS: Mapping[str, Check] = {
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda a: a.isupper() and _language(a, "en"),
    "change_case:english_lowercase": lambda a: a.islower() and _language(a, "en"),
    "combination:repeat_prompt": _repeat,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:json_format": _json,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": _title,
    "keywords:existence": _existence,
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_words": _words,
    "punctuation:no_comma": lambda a: "," not in a,
    "startend:end_checker": _ends,
    "startend:quotation": lambda a: len(a.strip()) > 1 and a.strip()[0] == a.strip()[-1] == '"',
}
