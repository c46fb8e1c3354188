"""What the worker does with one request: compute a call, read LaTeX, compare an answer."""

from typing import Any

import sympy as sp
from math_verify import verify

from hunyuan.errors import HunyuanError
from hunyuan.maths.build import Builder
from hunyuan.maths.call import checked
from hunyuan.maths.grammar import parse_list
from hunyuan.maths.perform import perform, read_latex


def reply(request: dict[str, Any]) -> dict[str, Any] | None:
    """``{"result": ...}`` or ``{"error": {"en", "zh"}}``; None when memory ran out."""
    try:
        match request:
            case {"kind": "compute", "operation": operation, "arguments": arguments}:
                return {"result": perform(checked(operation, arguments)).json()}
            case {"kind": "read", "text": text}:
                plain = read_latex(text)
                parse_list(plain)
                return {"result": {"plain": plain}}
            case {"kind": "agrees", "answer": answer, "values": values}:
                return {"result": {"agrees": agrees(answer, values)}}
        raise AssertionError(request)
    except HunyuanError as error:
        return {"error": {"en": error.en, "zh": error.zh}}
    except MemoryError:
        return None
    except RecursionError:
        return _failed("it is nested too deeply", "嵌套过深")
    except NotImplementedError:
        return _failed("SymPy knows no method for this", "SymPy 没有解决此类问题的方法")
    except Exception as error:
        # SymPy raises nearly anything on odd input; the worker goes on, the user is told what.
        name = type(error).__name__
        return _failed(
            f"SymPy could not compute this ({name}: {str(error)[:120]})",
            f"SymPy 无法计算（{name}：{str(error)[:120]}）",
        )


def _failed(en: str, zh: str) -> dict[str, Any]:
    return {"error": {"en": en, "zh": zh}}


def agrees(answer: str, values: list[str]) -> bool:
    """Whether an answer in plain notation or LaTeX is one of, or the set of, the tool's values."""
    gold = [_object(value) for value in values]
    said = [_object(text) for text in read_latex(answer).split(",")]
    if len(said) == 1 and len(gold) > 1:
        return False
    return len(said) == len(gold) and all(
        any(verify(g, s, timeout_seconds=1) for s in said) for g in gold
    )


def _object(text: str) -> Any:
    """The value of a text; of an assignment ``x = 2`` its right side."""
    _, equals, right = text.rpartition("=")
    return sp.simplify(Builder().expression(parse_list(right if equals else text)[0]))
