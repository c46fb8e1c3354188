"""How answers of this package's own tasks are judged; the harness calls these by name."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from hunyuan.errors import Language
from hunyuan.evaluate.instructions import follows, follows_loosely
from hunyuan.evaluate.long_context import Kind, make_prompt
from hunyuan.evaluate.programs import passes
from hunyuan.evaluate.solutions import final_box, same_value

_MINERVA = (
    (
        "Find the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.",
        "The expressions inside each square root must be non-negative. Therefore, $x-2 \\ge 0$, so "
        "$x\\ge2$, and $5 - x \\ge 0$, so $x \\le 5$. Also, the denominator cannot be equal to "
        "zero, so $5-x>0$, which gives $x<5$. Therefore, the domain of the expression is "
        "$\\boxed{[2,5)}$.\nFinal Answer: The final answer is $[2,5)$. I hope it is correct.",
    ),
    (
        "If $\\det \\mathbf{A} = 2$ and $\\det \\mathbf{B} = 12,$ then find "
        "$\\det (\\mathbf{A} \\mathbf{B}).$",
        "We have that $\\det (\\mathbf{A} \\mathbf{B}) = (\\det \\mathbf{A})(\\det \\mathbf{B}) "
        "= (2)(12) = \\boxed{24}.$\nFinal Answer: The final answer is $24$. I hope it is correct.",
    ),
    (
        "Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights "
        "instead, how many times must Terrell lift them in order to lift the same total weight?",
        "If Terrell lifts two 20-pound weights 12 times, he lifts a total of "
        "$2\\cdot 12\\cdot20=480$ pounds of weight.  If he lifts two 15-pound weights instead for "
        "$n$ times, he will lift a total of $2\\cdot15\\cdot n=30n$ pounds of weight.  Equating "
        "this to 480 pounds, we can solve for $n$:\n\\begin{align*}\n30n&=480\\\\\n"
        "\\Rightarrow\\qquad n&=480/30=\\boxed{16}\n\\end{align*}\n"
        "Final Answer: The final answer is $16$. I hope it is correct.",
    ),
    (
        "If the system of equations\n\n\\begin{align*}\n6x-4y&=a,\\\\\n6y-9x &=b.\n\\end{align*}"
        "has a solution $(x, y)$ where $x$ and $y$ are both nonzero,\nfind $\\frac{a}{b},$ "
        "assuming $b$ is nonzero.",
        "If we multiply the first equation by $-\\frac{3}{2}$, we obtain\n\n"
        "$$6y-9x=-\\frac{3}{2}a.$$Since we also know that $6y-9x=b$, we have\n\n"
        "$$-\\frac{3}{2}a=b\\Rightarrow\\frac{a}{b}=\\boxed{-\\frac{2}{3}}.$$\n"
        "Final Answer: The final answer is $-\\frac{2}{3}$. I hope it is correct.",
    ),
)

_MBPP = (
    (
        "Write a function to find the similar elements from the given two tuple lists.",
        "def similar_elements(test_tup1, test_tup2):\r\n"
        "  res = tuple(set(test_tup1) & set(test_tup2))\r\n  return (res) ",
        (
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ),
    ),
    (
        "Write a python function to identify non-prime numbers.",
        "import math\r\ndef is_not_prime(n):\r\n    result = False\r\n"
        "    for i in range(2,int(math.sqrt(n)) + 1):\r\n        if n % i == 0:\r\n"
        "            result = True\r\n    return result",
        (
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ),
    ),
    (
        "Write a function to find the largest integers from a given list of numbers using heap "
        "queue algorithm.",
        "import heapq as hq\r\ndef heap_queue_largest(nums,n):\r\n"
        "  largest_nums = hq.nlargest(n, nums)\r\n  return largest_nums",
        (
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)"
            "==[85, 75, 65, 58, 35]",
        ),
    ),
)


def minerva_examples() -> list[dict[str, Any]]:
    """The four examples of MATH."""
    return [{"problem": p, "solution": s, "few_shot": "1"} for p, s in _MINERVA]


def mbpp_examples() -> list[dict[str, Any]]:
    """The three examples of MBPP, its task ids 2 to 4."""
    return [
        {"text": text, "code": code, "test_list": list(tests), "is_fewshot": True}
        for text, code, tests in _MBPP
    ]


def math_docs(dataset: Any) -> Any:
    """Adds ``answer``, what the solution boxes."""
    return dataset.map(lambda doc: {"answer": final_box(doc["solution"]) or doc["solution"]})


def boxed(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """What each answer boxes, in its box; an answer without a box whole."""
    return [[_boxed(answer) for answer in answers] for answers in resps]


def _boxed(answer: str) -> str:
    box = final_box(answer)
    return answer if box is None else f"\\boxed{{{box}}}"


def math_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether an answer to a MATH problem has the value of the solution's box."""
    return {"math_verify": float(same_value(doc["answer"], results[0]))}


def last_numbers(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """The last number of each answer; nothing for an answer without one."""
    return [[_last_number(answer) for answer in answers] for answers in resps]


def _last_number(answer: str) -> str:
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:/\d+)?", answer.replace(",", ""))
    return numbers[-1] if numbers else ""


def cmath_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the last number of an answer is the golden one."""
    right = bool(results[0]) and _number(results[0]) == _number(doc["golden"])
    return {"exact_match": float(right)}


def humaneval_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether an answer, put behind the problem's beginning, passes the problem's tests."""
    check = f"\n{doc['test']}\ncheck({doc['entry_point']})\n"
    return {"pass@1": float(passes(doc["prompt"] + results[0] + check))}


def humaneval_chat_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The same of a conversation's answer: a whole function, with or without a fence and words."""
    # What the problem imports, and helpers it gives, stay known; the function is defined anew.
    return humaneval_results(doc, [f"\n{_without_fence(results[0])}"])


def mbpp_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether an answer passes the problem's assertions."""
    tests = "\n".join([doc.get("test_setup_code") or "", *doc["test_list"]])
    return {"pass@1": float(passes(f"{_without_fence(results[0])}\n{tests}\n"))}


def ifeval_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether an answer follows all instructions of its prompt, and what share of them."""
    pairs = list(zip(doc["instruction_id_list"], doc["kwargs"], strict=True))
    strict = [follows(results[0], kind, arguments) for kind, arguments in pairs]
    loose = [follows_loosely(results[0], kind, arguments) for kind, arguments in pairs]
    return {
        "prompt_level_strict_acc": float(all(strict)),
        "prompt_level_loose_acc": float(all(loose)),
        "inst_level_strict_acc": sum(strict) / len(strict),
    }


def long_docs(
    kind: Kind,
    language: Language,
    lengths: Sequence[int],
    items: int,
    count: Callable[[str], int],
    **_: Any,
) -> dict[str, Any]:
    """``items`` prompts of each length; the lengths and the tokenizer come with the run."""
    from datasets import Dataset

    rows = [
        make_prompt(kind, language, length, seed, count)
        for length in lengths
        for seed in range(items)
    ]
    return {"test": Dataset.from_list(rows)}


def long_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The share of the expected texts that an answer contains."""
    found = [answer in results[0] for answer in doc["answers"]]
    return {"recall": sum(found) / len(found)}


def _without_fence(answer: str) -> str:
    found = re.search(r"```(?:python)?\n(.*?)(?:\n```|$)", answer, re.DOTALL)
    return found[1] if found else answer


def _number(text: str) -> float:
    top, _, bottom = text.strip().rstrip("%").partition("/")
    return float(top) / (float(bottom) if bottom and float(bottom) else 1.0)
