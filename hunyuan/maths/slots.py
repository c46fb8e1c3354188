"""Pieces of a question: an expression, a number, a list of numbers, a matrix, a variable."""

import re

from hunyuan.maths import numerals
from hunyuan.maths.grammar import (
    CONSTANTS,
    Relation,
    Sequence,
    SyntaxProblem,
    Tree,
    is_matrix,
    normalise,
    parse_list,
    variables,
)
from hunyuan.maths.latex import LatexProblem, looks_like_latex, to_plain

# Short words of English that would otherwise be read as products of letters.
COMMON = frozenset(
    [
        "a",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "can",
        "day",
        "did",
        "do",
        "for",
        "get",
        "go",
        "had",
        "has",
        "he",
        "her",
        "him",
        "his",
        "how",
        "if",
        "in",
        "is",
        "it",
        "its",
        "may",
        "me",
        "my",
        "new",
        "no",
        "not",
        "now",
        "of",
        "off",
        "old",
        "on",
        "or",
        "our",
        "out",
        "own",
        "per",
        "put",
        "say",
        "see",
        "set",
        "she",
        "so",
        "the",
        "to",
        "too",
        "top",
        "up",
        "us",
        "use",
        "was",
        "way",
        "we",
        "who",
        "why",
        "yes",
        "yet",
        "you",
        "km",
        "cm",
        "mm",
        "kg",
        "mg",
        "ml",
        "hi",
        "ok",
        "all",
        "ask",
        "big",
        "box",
        "boy",
        "buy",
        "car",
        "cat",
        "cut",
        "dad",
        "dog",
        "due",
        "eat",
        "egg",
        "end",
        "few",
        "fit",
        "fly",
        "fun",
        "gas",
        "hat",
        "hen",
        "hot",
        "ice",
        "job",
        "key",
        "kid",
        "law",
        "lay",
        "leg",
        "let",
        "lie",
        "lot",
        "low",
        "man",
        "map",
        "men",
        "met",
        "mix",
        "net",
        "nor",
        "oil",
        "one",
        "pay",
        "pen",
        "pet",
        "pie",
        "pig",
        "pot",
        "red",
        "rich",
        "rod",
        "run",
        "sad",
        "sat",
        "sea",
        "sit",
        "six",
        "sky",
        "son",
        "sun",
        "tax",
        "tea",
        "ten",
        "tie",
        "tip",
        "try",
        "two",
        "van",
        "via",
        "war",
        "wet",
        "win",
        "won",
        "that",
        "this",
        "with",
        "from",
    ]
) - {"a", "e", "i"}
OPENING = re.compile(
    r"^(?:(?:the|this|following)\s+)?(?:function|expression|polynomial|curve|equations?|"
    r"inequalit(?:y|ies)|system|matrix|fraction|number|of|for|to|:)\s+(?:of\s+|for\s+)?|"
    r"^(?:函数|表达式|多项式|曲线|式子|代数式|方程组?|不等式组?|矩阵|数列|分式|下列|关于\s*[a-z]\s*的)\s*[:：]?\s*|"
    r"^(?:the|对于|对|把|将|求|在|当)\s*(?![a-z]{2})",
    re.IGNORECASE,
)
NAMED = re.compile(r"^\s*(?:[yzuw]|[fgh]\s*\(\s*[a-z]\s*\)|[fgh])\s*=\s*(?!=)", re.IGNORECASE)
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?%?"
EDGES = " \t\n,，.。;；:：?？、"


def bare(text: str) -> str:
    """Without punctuation at its ends and words such as ``the function`` before it."""
    text = text.strip(EDGES)
    for _ in range(3):
        text = OPENING.sub("", text, count=1).strip(EDGES)
    return text


def trees(text: str) -> tuple[Tree, ...] | None:
    """The trees of a list of expressions in notation; None where it is none."""
    words = re.findall(r"[A-Za-z]{2,}", text)
    if any(word.lower() in COMMON and word not in ("is",) for word in words):
        return None
    try:
        return parse_list(text)
    except SyntaxProblem:
        return None


def plain(text: str) -> str | None:
    """A piece in plain notation, whether it was notation, LaTeX or words; None where unreadable."""
    if not text.strip():
        return None
    if looks_like_latex(text):
        try:
            text = to_plain(text)
        except LatexProblem:
            return None
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))(?![^\[(]*[\])])", "", text)
    if trees(text) is not None:
        return text
    said = numerals.notation(text)
    return said if said != text and trees(said) is not None else None


def expression(text: str) -> str | None:
    """One expression (the right side of ``y = ...``); None for equations, lists and prose."""
    text = NAMED.sub("", bare(text))
    found = plain(text)
    if found is None:
        return None
    parsed = trees(found)
    if parsed is None or len(parsed) != 1 or isinstance(parsed[0], Relation):
        return None
    return None if isinstance(parsed[0], Sequence) and not is_matrix(parsed[0]) else found


def equations(text: str) -> str | None:
    """One or more equations or inequalities, separated by commas or ``and``."""
    text = re.sub(r"^\s*\{|\}\s*$", "", bare(text))
    text = re.sub(r"\s+(?:and|且)\s+|\s*(?:和|与|且|并且|以及)\s*|\s*\n\s*", ", ", text)
    text = re.sub(r"\bequals?(?: to)?\b|等于|\bis equal to\b", " = ", text)
    text = re.sub(r"大于等于|大于或等于|不小于", " >= ", text)
    text = re.sub(r"小于等于|小于或等于|不大于", " <= ", text)
    text = re.sub(r"\bis (?:greater|more) than\b|大于", " > ", text)
    text = re.sub(r"\bis (?:less|smaller) than\b|小于", " < ", text)
    found = plain(text)
    parsed = trees(found) if found is not None else None
    if not parsed or not all(
        isinstance(t, Relation)
        or (isinstance(t, Sequence) and all(isinstance(i, Relation) for i in t.items))
        for t in parsed
    ):
        return None
    return found


def number(text: str) -> str | None:
    """A number, in digits or words, or a numeric expression such as ``1/2`` or ``sqrt(2)``."""
    text = text.strip(EDGES)
    if text.lower() in ("a", "an", "each", "每"):
        return "1"
    found = plain(re.sub(r"(?<=\d),(?=\d{3})", "", text))
    if found is None and (said := numerals.digits(text)) != text:
        found = plain(said)
    parsed = trees(found) if found is not None else None
    if not parsed or len(parsed) != 1 or variables(parsed[0]):
        return None
    return found if not isinstance(parsed[0], (Relation, Sequence)) else None


def numbers(text: str) -> str | None:
    """A list of at least two numbers, however separated; as ``1, 2, 3``."""
    text = numerals.digits(text) if not re.search(r"\d", text) else text
    text = re.sub(
        r"\b(?:and|the numbers?|numbers?|data|of|values?|set|these|following)\b", " ", text
    )
    text = re.sub(r"这组|一组|数据|数字|几个|下列|各数|[和与及、，；：:]|个数|数$", " ", text)
    text = text.strip(EDGES + "[](){}")
    parts = [part for part in re.split(r"[\s,;\[\](){}]+", normalise(text)) if part]
    if len(parts) < 1 or not all(re.fullmatch(NUMBER, part) for part in parts):
        return None
    return ", ".join(parts)


def matrix(text: str) -> str | None:
    """A matrix in any of the notations."""
    found = plain(bare(text))
    parsed = trees(found) if found is not None else None
    if not parsed or len(parsed) != 1 or not is_matrix(parsed[0]):
        return None
    return found


def variable(text: str) -> str | None:
    """The name of a variable."""
    text = text.strip(EDGES)
    if re.fullmatch(r"[A-Za-z](?:_?\d)?|theta|alpha|beta|lambda|θ|α|β|λ", text):
        name = normalise(text).strip().replace("_", "")
        return name if name not in CONSTANTS - {"e", "i"} else None
    return None
