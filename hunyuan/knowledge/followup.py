"""A question that leans on the one before, made to stand by itself, for looking things up."""

import re
from collections.abc import Sequence

from hunyuan.knowledge.words import query_terms

_LEANS = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|these|those|former|latter)\b"
    r"|\bthat\b(?=\W*$)|^(?:and|but|so|then|also|what about|how about)\b"
    r"|^(?:why|when|where|who)\W*\w*\W*$"
    r"|[它她]|他(?!国|乡)(?<!其他)|其(?![他它中实余])(?<!尤其)|(?<!应)该|(?<![因如从至])此|呢[？?]?$"
    r"|这(?![里儿])|那(?![里儿])|前者|后者|上述|^(?:还有|另外|为什么|然后|何时|在哪)",
    re.IGNORECASE,
)
MAX_CHAIN = 4


def standalone(question: str, before: Sequence[str]) -> str:
    """``question``, with the one of ``before`` (oldest first) it refers to put in front.

    A rule, not a model: a question with a pronoun, or of hardly any words, refers to the last one
    that did not refer further.
    """
    chain = [question]
    for earlier in reversed(before[-MAX_CHAIN:]):
        if not _leans(chain[0]):
            break
        chain.insert(0, earlier)
    return " ".join(chain)


def _leans(question: str) -> bool:
    return bool(_LEANS.search(question.strip())) or len(query_terms(question)) < 2
