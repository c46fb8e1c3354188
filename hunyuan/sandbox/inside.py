"""The half that runs behind the walls: limits itself, runs the program, says what came of it.

Started as a script by `hunyuan.sandbox.cpython`; needs the standard library alone. The program
comes by standard input. What it prints, errors included, leaves by standard output; the outcome
leaves as one line of JSON by what was standard error, closed by the length of the JSON.
"""

import ast
import contextlib
import json
import os
import resource
import sys
from typing import Any

PROGRAM = "program.py"
MAX_MESSAGE = 2000


def main() -> None:
    """Run the program of standard input; arguments: seconds, bytes of memory, of a file, of text.

    Further arguments are folders to import from.
    """
    seconds, memory, file_size, shown = (int(n) for n in sys.argv[1:5])
    sys.path.extend(sys.argv[5:])
    for what, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    code = sys.stdin.buffer.read().decode("utf-8", "replace")
    outcome = os.dup(2)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    value, error = run(code, shown)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    text = json.dumps({"value": value, "error": error})
    os.write(outcome, f"{text}\n{len(text)}\n".encode())
    # A thread that the program left behind would be waited for.
    os._exit(0)


def run(code: str, shown: int) -> tuple[str | None, dict[str, Any] | None]:
    """The text of the last expression's value, and the error if there was one."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        tree = ast.parse(code, PROGRAM)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            exec(compile(tree, PROGRAM, "exec"), names)
            return None, None
        del tree.body[-1]
        exec(compile(tree, PROGRAM, "exec"), names)
        value = eval(compile(ast.Expression(last.value), PROGRAM, "eval"), names)
        return (None if value is None else repr(value)[: shown + 1]), None
    except SystemExit as leave:
        return None, None if leave.code in (None, 0) else _error(leave, f"{leave.code}")
    except BaseException as failure:
        try:
            message = str(failure)
        except BaseException:
            message = ""
        return None, _error(failure, message)


def _error(failure: BaseException, message: str) -> dict[str, Any]:
    line = None
    if isinstance(failure, SyntaxError) and failure.filename == PROGRAM:
        line, message = failure.lineno, failure.msg
    trace = failure.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PROGRAM:
            line = trace.tb_lineno
        trace = trace.tb_next
    return {"type": type(failure).__name__, "message": message[:MAX_MESSAGE], "line": line}


if __name__ == "__main__":
    main()
