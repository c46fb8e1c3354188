"""Whether a worked answer reaches the value that the reference boxes (math-verify)."""

import logging


def final_box(solution: str) -> str | None:
    r"""What the last ``\boxed{...}`` of a solution holds, or None."""
    start = max(solution.rfind("\\boxed{"), solution.rfind("\\fbox{"))
    if start < 0:
        found = solution.rpartition("\\boxed ")[2]
        return found.split("$")[0].strip() if "\\boxed " in solution else None
    depth = 0
    begin = solution.index("{", start)
    for place in range(begin, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[place], 0)
        if depth == 0:
            return solution[begin + 1 : place]
    return None


def same_value(expected: str, answer: str) -> bool:
    """Whether ``answer``, a text that ends in a result, means the LaTeX ``expected``.

    Both are parsed, and compared as values within math-verify's own time limits; what it cannot
    read is wrong. Works in the main thread only, as its limits are alarms.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    golden = parse(f"${expected}$")
    box = final_box(answer)
    given = parse(f"${box}$") if box is not None else parse(answer)
    if golden and given:
        return bool(verify(golden, given))
    return box is not None and box.strip() == expected.strip()
