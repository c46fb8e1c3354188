"""Programs in what a model says: found, and looked over before a person runs them."""

import ast
import re
from typing import Any

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


def program_in(text: str) -> str:
    """The program of an answer: its first block of Python, else of code, else the answer itself.

    A block that was cut off counts up to its end. Empty if the answer is prose.
    """
    blocks = _FENCE.findall(text)
    python = [code for name, code in blocks if name.lower() in ("python", "py", "python3")]
    found = python or [code for _, code in blocks]
    if found:
        return str(found[0]).strip("\n")
    bare = text.strip()
    return bare if syntax_problem(bare) is None else ""


def syntax_problem(code: str) -> dict[str, Any] | None:
    """``{"line", "message"}`` of the first mistake in grammar, None if there is none."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return {"line": error.lineno, "message": str(error.msg)}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"line": None, "message": str(error) or type(error).__name__}
    return None
