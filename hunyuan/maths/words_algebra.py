# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: rewriting, solving, putting values in, complex numbers, matrices."""

import re

from hunyuan.maths import slots
from hunyuan.maths.call import ToolCall, tool_call
from hunyuan.maths.grammar import Relation, variables

# -- rewriting -----------------------------------------------------------------------------------

REWRITING: list[tuple[str, str]] = [
    ("apart", r"^(?:the )?partial fractions?(?: decomposition| expansion)?\s+(?:of|for)\s+(.+)$"),
    ("apart", r"^decompose\s+(.+?)\s+(?:in)?to partial fractions$"),
    ("apart", r"^(?:把|将)?\s*(.+?)\s*(?:的)?(?:部分分式(?:分解|展开)?|分解(?:成|为)部分分式)$"),
    ("apart", r"^部分分式(?:分解|展开)?\s*[:：]?\s*(.+)$"),
    ("simplify", r"^(?:simplify|reduce|rationali[sz]e(?: the denominator of)?)\s+(.+)$"),
    ("simplify", r"^(?:the )?simplest form of\s+(.+)$"),
    ("simplify", r"^(?:化简|约分|化为最简)\s*(?:下列|式子|代数式|分式)?\s*[:：]?\s*(.+)$"),
    ("simplify", r"^(?:把|将)?\s*(.+?)\s*(?:化简|约分|化到最简|化成最简)(?:的结果)?$"),
    ("expand", r"^(?:expand|multiply out)\s+(.+)$"),
    ("expand", r"^(?:the )?expansion of\s+(.+)$"),
    ("expand", r"^(?:展开|去括号)\s*(?:式子|多项式)?\s*[:：]?\s*(.+)$"),
    ("expand", r"^(?:把|将)?\s*(.+?)\s*(?:的)?(?:展开式?|去括号|乘开)$"),
    ("factor", r"^(?:factori[sz]e|factor(?: out)?)\s+(.+?)(?:\s+(?:completely|fully))?$"),
    ("factor", r"^(?:the )?(?:factori[sz]ation|factored form)\s+of\s+(.+)$"),
    ("factor", r"^(?:因式分解|分解因式|分解)\s*(?:多项式)?\s*[:：]?\s*(.+)$"),
    ("factor", r"^(?:把|将|对)?\s*(.+?)\s*(?:进行)?(?:的)?(?:因式分解|分解因式)$"),
]  # fmt: skip
REWRITE = [(operation, re.compile(p, re.IGNORECASE)) for operation, p in REWRITING]


def rewriting(text: str) -> ToolCall | None:
    """``simplify (x^2-1)/(x-1)``, ``因式分解 x^2-5x+6``."""
    for operation, pattern in REWRITE:
        if (found := pattern.match(text)) and (body := slots.expression(found[1])):
            return tool_call(operation, expression=body)
    return None


# -- putting values in ---------------------------------------------------------------------------

VALUE = r"([a-z](?:_?\d)?\s*=\s*[^,，;；=]+?(?:\s*(?:,|，|;|；|and|且|、)\s*[a-z](?:_?\d)?\s*=\s*[^,，;；=]+?)*)"
SUBSTITUTIONS = [
    re.compile(rf"^(?:the )?(?:value of\s+)?(.+?)\s*,?\s+(?:at|when|where|for|if|with)\s+{VALUE}$", re.IGNORECASE),
    re.compile(rf"^(?:if|when|for|given(?: that)?|let)\s+{VALUE}\s*,?\s*(?:then|and)?\s*,?\s*(?:what is|find|evaluate|calculate|compute|what's)?\s*(?:the value of\s+)?(?P<body>.+)$", re.IGNORECASE),
    re.compile(rf"^(?:substitute|plug(?: in)?|put)\s+{VALUE}\s+(?:in|into)\s+(?P<body>.+)$", re.IGNORECASE),
    re.compile(rf"^(?:当|若|如果|已知|设|令)\s*{VALUE}\s*(?:时)?\s*[,，]?\s*(?:则|那么|求|计算)?\s*(?:代数式|式子|多项式)?\s*(?P<body>.+?)\s*(?:的值)?$"),
    re.compile(rf"^(?:代数式|函数|多项式)?\s*(.+?)\s*[,，]?\s*(?:在|当)\s*{VALUE}\s*(?:处|时)?\s*的?(?:值|函数值|取值)?$"),
    re.compile(rf"^{VALUE}\s*[,，]\s*(?:则|then|求|find)?\s*(?P<body>[^=]+?)$", re.IGNORECASE),
    re.compile(rf"^([^=,，]+?)\s*[,，]\s*(?:其中|where)?\s*{VALUE}$", re.IGNORECASE),
    re.compile(rf"^(?:把|将)\s*{VALUE}\s*代入\s*(?P<body>.+)$"),
]  # fmt: skip


AT_A_POINT = re.compile(
    r"^(?:已知|若|设|let|if|given)?\s*([fgh])\s*\(\s*([a-z])\s*\)\s*=\s*(.+?)\s*[,，;；.]\s*(?:求|则|那么|计算|find|what is|"
    r"evaluate|then)?\s*\1\s*\(\s*([^()]+)\s*\)\s*(?:的值|=)?$",
    re.IGNORECASE,
)


def substitution(text: str) -> ToolCall | None:
    """``x^2+1 at x=3``, ``当 x=2 时，求 3x+1 的值``."""
    if re.search(r"求\s*[a-z]\s*$|导|积分|极限|find\s+[a-z]$|what is\s+[a-z]$", text):
        return None
    text = re.sub(r"[,，]?\s*(?:是|为|等于)?\s*(?:多少|几)$", "", text)
    if found := AT_A_POINT.match(text):
        body, point = slots.expression(found[3]), slots.expression(found[4])
        if body and point:
            return tool_call("substitute", expression=body, values=f"{found[2]} = {point}")
    for pattern in SUBSTITUTIONS:
        found = pattern.match(text)
        if not found:
            continue
        named = found.groupdict()
        body, values = (named["body"], found[1]) if named else (found[1], found[2])
        given = slots.equations(re.sub(r"\s*(?:;|；|、|\band\b|且)\s*", ", ", values))
        expression = slots.expression(body)
        trees = slots.trees(given) if given else None
        if not expression or not trees:
            continue
        names = set(variables(slots.trees(expression)[0]))  # type: ignore[index]
        if not all(isinstance(t, Relation) and not variables(t.right) for t in trees):
            continue
        if names & {name for t in trees if isinstance(t, Relation) for name in variables(t.left)}:
            return tool_call("substitute", expression=expression, values=given or "")
    return None


# -- solving -------------------------------------------------------------------------------------

FOR = re.compile(
    r"\s*,?\s*(?:for|in terms of|with respect to)\s+((?:[a-z]|theta)(?:\s*(?:,|and)\s*[a-z])*)$|"
    r"\s*[,，]\s*(?:求|解出|试求)\s*((?:[a-z])(?:\s*(?:,|，|和|、|与)\s*[a-z])*)\s*(?:的值|的解)?$|"
    r"\s*[,，]?\s*(?:关于|对)\s*([a-z])\s*的?(?:解|方程)?$",
    re.IGNORECASE,
)
ROOTS = [
    re.compile(r"^(?:the )?(?:real |complex )?(?:roots?|zeros?|zeroes|solutions?)\s+(?:of|to|for)\s+(.+)$", re.IGNORECASE),
    re.compile(r"^(?:函数|方程|多项式)?\s*(.+?)\s*的\s*(?:所有|全部|实数?)?的?(?:根|零点|解|实根|解集)(?:是|为|有哪些|有)?$"),
]  # fmt: skip
SOLVE = [
    re.compile(r"^(?:solve|resolve)(?:\s+(?:the|this))?(?:\s+(?:following|linear|quadratic|simultaneous|system of))*\s*(?:equations?|inequalit(?:y|ies)|system)?\s*[:：]?\s*(.+)$", re.IGNORECASE),
    re.compile(r"^(?:一元[一二三]次|二元一次|线性)(?:方程组?|不等式组?)\s*[:：]?\s*(.+?)(?:\s*的?(?:解|根|解集|实数根))?$"),
    re.compile(r"^(?:求解|解)\s*(?:下列|关于\s*[a-z]\s*的)?\s*(?:一元[一二三]次|二元一次|线性|联立)?(?:方程组?|不等式组?)?\s*[:：]?\s*(.+?)(?:\s*的?(?:解|解集))?$"),
    re.compile(r"^(?:方程组?|不等式组?)\s*[:：]?\s*(.+?)\s*(?:的?\s*(?:解|根|解集|实数解))?(?:是|为)?$"),
]  # fmt: skip
UNKNOWN = [
    re.compile(r"^(?:find\s+|what is\s+|what's\s+)?(?:the value of\s+|values? of\s+)?([a-z])\s+(?:if|such that|so that|when|where|given(?: that)?|in|for which)\s+(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^(?:if|given(?: that)?|when|suppose(?: that)?)\s+(?P<eq>.+?)\s*,?\s*(?:then\s+)?(?:what is|find|what's|what does|solve for|what are)\s+(?:the value of\s+)?([a-z](?:\s*(?:,|and)\s*[a-z])*)(?:\s+(?:equal|be))?$", re.IGNORECASE),
    re.compile(r"^(?:solve for|find|求|solve)\s+([a-z](?:\s*(?:,|and|和)\s*[a-z])*)\s*(?:in\b|from\b|:|：)\s*(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^([a-z])\s*[:：]\s*(?P<eq>.+)$"),
    re.compile(r"^for (?:what|which)(?: values? of)?\s+([a-z])\s+(?:is|does)\s+(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^(?:若|如果|已知|设|当)\s*(?P<eq>.+?)\s*[,，]\s*(?:则|那么|求|试求|问)*\s*([a-z](?:\s*(?:,|，|和|、|与)\s*[a-z])*)\s*(?:的值|=|等于|是|为)?\s*(?:多少|几)?$"),
    re.compile(r"^(?P<eq>.+?(?:=|等于|equals).+?)\s*[,，]\s*([a-z])\s*(?:=|等于|是|为)?$", re.IGNORECASE),
    re.compile(r"^(?P<eq>.+?)\s*[,，]\s*(?:则|那么|求|试求|问|solve for|find|what is)+\s*([a-z](?:\s*(?:,|，|和|、|与)\s*[a-z])*)\s*(?:的值|=|等于|是|为)?$", re.IGNORECASE),
]  # fmt: skip


def solving(text: str) -> ToolCall | None:
    """``solve x^2=4``, ``求 x^2-5x+6=0 的解``, ``若 2x+3=7，求 x``."""
    for pattern in UNKNOWN:
        if found := pattern.match(text):
            name = next(g for g in found.groups() if g != found["eq"])
            eq = slots.equations(found["eq"])
            if eq:
                return _solve(eq, name)
    body, name = text, ""
    if found := FOR.search(body):
        name, body = next(g for g in found.groups() if g), body[: found.start()]
    for pattern in (*SOLVE, *ROOTS):
        found = pattern.match(body)
        if not found:
            continue
        inner = re.sub(r"^关于\s*[a-z]\s*的\s*(?:方程|不等式)\s*", "", found[1])
        if eq := slots.equations(inner):
            return _solve(eq, name)
        # An expression alone means its zeros, but "solve 2+3" is a calculation.
        if (expression := slots.expression(inner)) and (trees := slots.trees(expression)):
            if variables(trees[0]):
                return _solve(expression, name)
            return tool_call("calculate", expression=expression)
    if (found := re.match(r"^(.+?)\s*的?(?:解集?|根)$", body)) and (
        eq := slots.equations(found[1])
    ):
        return _solve(eq, name)
    if name and (eq := slots.equations(body)):
        return _solve(eq, name)
    return None


def _solve(eq: str, name: str) -> ToolCall:
    names = re.sub(r"\s*(?:and|和|、|，|与)\s*", ", ", name)
    trees = slots.trees(eq)
    free = set().union(*(variables(t) for t in trees)) if trees else set()
    wanted = [n.strip() for n in names.split(",") if n.strip() in free]
    # A system is solved for all its unknowns, also where one was asked for.
    if trees and len(trees) > 1:
        wanted = []
    return tool_call("solve", equations=eq, variables=", ".join(wanted))


# -- complex numbers -----------------------------------------------------------------------------

COMPLEX: list[tuple[str, str]] = [
    ("modulus", r"^(?:the )?(?:modulus|magnitude|absolute value|abs)\s+of\s+(?:the complex number\s+)?(.+)$"),
    ("modulus", r"^(?:复数)?\s*(.+?)\s*的\s*(?:模长?|绝对值)$"),
    ("argument", r"^(?:the )?(?:argument|arg|phase)\s+of\s+(?:the complex number\s+)?(.+)$"),
    ("argument", r"^(?:复数)?\s*(.+?)\s*的\s*(?:辐角(?:主值)?|幅角|相位)$"),
    ("conjugate", r"^(?:the )?(?:complex )?conjugate\s+of\s+(?:the complex number\s+)?(.+)$"),
    ("conjugate", r"^(?:复数)?\s*(.+?)\s*的\s*(?:共轭(?:复数)?)$"),
    ("real", r"^(?:the )?real part\s+of\s+(.+)$"),
    ("real", r"^(?:复数)?\s*(.+?)\s*的\s*实部$"),
    ("imaginary", r"^(?:the )?imaginary part\s+of\s+(.+)$"),
    ("imaginary", r"^(?:复数)?\s*(.+?)\s*的\s*虚部$"),
    ("polar", r"^(?:the )?(?:polar|exponential|trigonometric) (?:form|representation)\s+of\s+(.+)$"),
    ("polar", r"^极坐标(?:形式|表示)?\s*[:：]?\s*(.+)$"),
    ("polar", r"^(?:convert|write|express)?\s*(.+?)\s+(?:in|to|into|as)\s+(?:polar|exponential) (?:form|coordinates)$"),
    ("polar", r"^(?:把|将)?\s*(?:复数)?\s*(.+?)\s*(?:的|化为|化成|写成|用)\s*(?:极坐标|三角|指数|极)(?:形式|表示|式)+$"),
]  # fmt: skip
COMPLEXES = [(action, re.compile(p, re.IGNORECASE)) for action, p in COMPLEX]


def complex_numbers(text: str) -> ToolCall | None:
    """``modulus of 3+4i``, ``3+4i 的共轭复数``."""
    for action, pattern in COMPLEXES:
        if (found := pattern.match(text)) and (body := slots.expression(found[1])):
            return tool_call("complex", action=action, expression=body)
    return None


# -- matrices ------------------------------------------------------------------------------------

MATRICES: list[tuple[str, str, str]] = [
    ("determinant", r"determinant|det", r"行列式(?:的?值)?"),
    ("inverse", r"inverse(?: matrix)?", r"逆矩阵|逆阵|逆"),
    ("transpose", r"transpose", r"转置(?:矩阵)?"),
    ("rank", r"rank", r"秩"),
    ("trace", r"trace", r"迹"),
    ("eigenvalues", r"eigenvalues?(?: and eigenvectors)?|eigenvectors?", r"特征值(?:[和与及]特征向量)?|特征向量"),
    ("rref", r"(?:reduced )?(?:row )?echelon form|rref", r"行?最简形(?:矩阵)?|行阶梯形(?:矩阵)?"),
    ("charpoly", r"characteristic polynomial", r"特征多项式"),
]  # fmt: skip
ONE = [
    (
        action,
        re.compile(rf"^(?:the )?(?:{en})\s*(?:of)?\s*(?:the )?(?:matrix)?\s*(.+)$", re.IGNORECASE),
        re.compile(rf"^(?:矩阵|行列式)?\s*(.+?)\s*的\s*(?:{zh})$"),
        re.compile(rf"^(?:{zh})\s*[:：]?\s*(.+)$"),
        re.compile(r"^(?:invert|transpose)\s+(?:the )?(?:matrix)?\s*(.+)$", re.IGNORECASE),
    )
    for action, en, zh in MATRICES
]
M = r"(\[\s*\[.+?\]\s*\]|\[[^\[\]]+;[^\[\]]+\])"
VECTOR = r"(\[.+\])"
PAIR = [
    ("multiply", re.compile(rf"^(?:multiply|the product of|product of)?\s*(?:the )?(?:matri(?:x|ces))?\s*{M}\s*(?:and|by|times|with|\*|×|·|与|和|乘以?|点乘)\s*(?:矩阵)?\s*{M}\s*(?:的?(?:乘积|积|相乘))?$", re.IGNORECASE)),
    ("solve", re.compile(rf"^(?:solve|解)?.{{0,20}}?{M}\s*\*?\s*x\s*=\s*{VECTOR}$", re.IGNORECASE)),
]  # fmt: skip


def matrices(text: str) -> ToolCall | None:
    """``determinant of [[1,2],[3,4]]``, ``[[1,2],[3,4]] 的逆矩阵``."""
    if "[" not in text and "matrix" not in text and "&" not in text:
        return None
    if "+" not in text:
        for action, pattern in PAIR:
            if found := pattern.match(text):
                first, second = slots.matrix(found[1]), found[2]
                if action == "multiply":
                    second = slots.matrix(second) or ""
                if (
                    first
                    and second
                    and (action != "multiply" or re.search("和|与|and|product|积", text))
                ):
                    return tool_call("matrix", action=action, a=first, b=second)
    for action, *patterns in ONE:
        for pattern in patterns:
            if pattern is patterns[-1] and action not in ("inverse", "transpose"):
                continue
            if (found := pattern.match(text)) and (body := slots.matrix(found[1])):
                wanted = action
                if pattern is patterns[-1]:
                    wanted = "inverse" if text.lower().startswith("invert") else "transpose"
                return tool_call("matrix", action=wanted, a=body)
    return None
