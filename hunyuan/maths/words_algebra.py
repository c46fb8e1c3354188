# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: rewriting, solving, putting values in, complex numbers, matrices."""

import re

from hunyuan.maths import numerals, slots
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
    re.compile(r"^(?:find\s+|what is\s+|what's\s+)?(?:the value of\s+|(?:all )?(?:the )?values? of\s+|all\s+)?([a-z])\s+(?:if|such that|so that|when|where|given(?: that)?|in|for which)\s+(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^(?:if|given(?: that)?|when|suppose(?: that)?)\s+(?P<eq>.+?)\s*,?\s*(?:then\s+)?(?:what is|find|what's|what does|solve for|what are)\s+(?:the value of\s+)?([a-z](?:\s*(?:,|and)\s*[a-z])*)(?:\s+(?:equal|be))?$", re.IGNORECASE),
    re.compile(r"^(?:solve for|find|求|solve)\s+([a-z](?:\s*(?:,|and|和)\s*[a-z])*)\s*(?:in\b|from\b|:|：)\s*(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^([a-z])\s*[:：]\s*(?P<eq>.+)$"),
    re.compile(r"^for (?:what|which)(?: values? of)?\s+([a-z])\s+(?:is|does)\s+(?P<eq>.+)$", re.IGNORECASE),
    re.compile(r"^(?:若|如果|已知|设|当)\s*(?P<eq>.+?)\s*[,，]\s*(?:则|那么|求|试求|问)*\s*([a-z](?:\s*(?:,|，|和|、|与)\s*[a-z])*)\s*(?:的值|=|等于|是|为)?\s*(?:多少|几)?$"),
    re.compile(r"^(?P<eq>.+?(?:=|等于|equals).+?)\s*[,，]\s*([a-z])\s*(?:=|等于|是|为)?$", re.IGNORECASE),
    re.compile(r"^(?P<eq>.+?)\s*[,，;；.。]\s*(?:and\s+)?(?:则|那么|求|试求|问|solve for|find|what is|what are|\s)+\s*([a-z](?:\s*(?:,|，|和|、|与|\band\b)\s*[a-z])*)\s*(?:的值|=|等于|是|为)?$", re.IGNORECASE),
]  # fmt: skip


def solving(text: str) -> ToolCall | None:
    """``solve x^2=4``, ``求 x^2-5x+6=0 的解``, ``若 2x+3=7，求 x``."""
    if call := _rearranged(text) or _within(text) or _unknown_number(text):
        return call
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


UNKNOWN_NUMBER = re.compile(
    r"\b(?:a|some|the|this|that|my|an unknown) number\b|(?:一个|某个?|这个|那个)数", re.IGNORECASE
)
WHICH = re.compile(
    r"[\s,，.。;；?？]*(?:(?:and |then )?(?:what(?:'s| is)|find|determine|calculate)?\s*(?:the|that|this|my) (?:unknown )?number(?: is it)?|which number is it|what number is it|(?:求|问)?(?:这个|那个|该)?数(?:是)?(?:多少|几)?|求这个数)[\s?？.。]*$",
    re.IGNORECASE,
)
STORY = [
    (r"(?:if |when )?you (?=add|subtract|multiply|divide|double)", ""),
    (r"\b(?:twice|double|two times) x", "2*x"), (r"\b(?:triple|thrice|three times) x", "3*x"), (r"\b(\d+) times x", r"\1*x"),
    (r"(\d+(?:\.\d+)?) (?:more|greater) than ((?:\d+(?:\.\d+)? ?\* ?)?x)", r"\2 + \1"),
    (r"(\d+(?:\.\d+)?) (?:less|fewer) than ((?:\d+(?:\.\d+)? ?\* ?)?x)", r"\2 - \1"),
    (r"(?:the )?sum of x and (\S+)", r"x + \1"), (r"(?:the )?difference (?:between|of) x and (\S+)", r"x - \1"),
    (r"(?:the )?product of x and (\S+)", r"x * \1"), (r"\bx (?:is )?increased by\b", "x + "), (r"\bx (?:is )?decreased by\b", "x - "),
    (r"\bhalf (?:of )?x", "x/2"), (r"\bplus\b", "+"), (r"\bminus\b", "-"), (r"\btimes\b", "*"), (r"\bdivided by\b", "/"),
    (r"\b(?:is equal to|equals?|gives?|makes?|results? in|is)\b", "="),
    (r"x\s*的?\s*(\d+(?:\.\d+)?)\s*倍", r"\1*x"), (r"x\s*的一?半", "x/2"),
    (r"(\S+?)\s*比\s*(\S+?)\s*多\s*(\d+(?:\.\d+)?)$", r"\1 = \2 + \3"), (r"(\S+?)\s*比\s*(\S+?)\s*少\s*(\d+(?:\.\d+)?)$", r"\1 = \2 - \3"),
    (r"加上?", "+"), (r"减去?", "-"), (r"乘以?", "*"), (r"除以", "/"), (r"[,，]?\s*(?:结果|和|差|得数|积|商)?\s*(?:等于|是|得到?|为)", "="),
]  # fmt: skip


def _unknown_number(text: str) -> ToolCall | None:
    """``twice a number plus 6 is 20``, ``一个数的 3 倍加 4 等于 25，求这个数``."""
    if not UNKNOWN_NUMBER.search(text):
        return None
    said = UNKNOWN_NUMBER.sub("x", WHICH.sub("", text))
    said = numerals.digits(said).strip(" ,，.。")
    if said.count("x") != 1:
        return None
    for pattern, new in STORY:
        said = re.sub(pattern, new, said, flags=re.IGNORECASE)
    # What is still a word was not understood.
    if re.search(r"[A-Za-wyz\u4e00-\u9fff]", said) or said.count("=") != 1 or "x" not in said:
        return None
    eq = slots.equations(said)
    return tool_call("solve", equations=eq, variables="x") if eq else None


SUBJECT = [
    re.compile(r"^make\s+([a-z])\s+(?:the )?subject\s*(?:of|in|:)?\s*(?:the (?:formula|equation)\s*)?(.+)$", re.IGNORECASE),
    re.compile(r"^(?:rearrange|solve|transpose)\s+(.+?)\s+(?:to make\s+([a-z])\s+the subject|for\s+([a-z]))$", re.IGNORECASE),
    re.compile(r"^(?:由|从|把|将)\s*(.+?)\s*(?:中)?(?:解出|求出|变形为用.{1,6}表示)\s*([a-z])$"),
]  # fmt: skip


def _rearranged(text: str) -> ToolCall | None:
    """``make r the subject of A = pi r^2``."""
    for index, pattern in enumerate(SUBJECT):
        if found := pattern.match(text):
            first, *others = [g for g in found.groups() if g]
            name, body = (first, others[0]) if index == 0 else (others[0], first)
            if (eq := slots.equations(body)) and "," not in eq:
                return _solve(eq, name)
    return None


END = r"([-+]?[\w./*π()]+?)"
INTERVAL = re.compile(
    rf"\s*[,，]?\s*(?:其中|且|for|where|with|when|if|given)?\s*(?:that\s+)?{END}\s*(?:<=|≤|<)\s*([a-zθ])\s*(?:<=|≤|<)\s*{END}$|"
    rf"\s*[,，]?\s*(?:其中|且|for|where|with|when|if|given)?\s*(?:that\s+)?()([a-zθ])?\s*(?:is\s+)?(?:in|∈|属于|在|between|from|on|over)\s*(?:the interval|区间)?\s*(?:[\[(]\s*{END}\s*[,，]\s*{END}\s*[\])]|{END}\s*(?:到|至|to|and|和|与|~)\s*{END})\s*(?:之间|上|内|范围内)?(?:的解)?$",
    re.IGNORECASE,
)


def _within(text: str) -> ToolCall | None:
    """``sin x = 1/2, 0 <= x <= 2pi``: one equation and an interval for its unknown."""
    found = INTERVAL.search(text)
    if not found or found.start() == 0:
        return None
    groups = found.groups()
    low = next(g for g in (groups[0], groups[5], groups[7]) if g)
    high = next(g for g in (groups[2], groups[6], groups[8]) if g)
    name = groups[1] or groups[4]
    body = text[: found.start()]
    for pattern in SOLVE:
        if inner := pattern.match(body):
            body = inner[1]
            break
    eq, lower, upper = slots.equations(body), slots.number(low), slots.number(high)
    trees = slots.trees(eq) if eq else None
    if (
        not trees
        or len(trees) != 1
        or not isinstance(trees[0], Relation)
        or trees[0].operator != "="
    ):
        return None
    free = variables(trees[0])
    if len(free) != 1 or (name and name not in free) or not lower or not upper:
        return None
    return tool_call("solve", equations=eq or "", variables=free[0], lower=lower, upper=upper)


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


COMPLEX_NAMES = {
    "modulus": "modulus", "magnitude": "modulus", "absolute value": "modulus", "模长": "modulus",
    "模": "modulus", "argument": "argument", "phase": "argument", "辐角主值": "argument",
    "辐角": "argument", "幅角": "argument", "conjugate": "conjugate", "共轭复数": "conjugate",
    "共轭": "conjugate", "real part": "real", "实部": "real", "imaginary part": "imaginary",
    "虚部": "imaginary",
}  # fmt: skip
PART_NAME = re.compile("|".join(COMPLEX_NAMES), re.IGNORECASE)
LISTED = rf"(?:{PART_NAME.pattern})(?:\s*(?:,\s*and|and|,|，|、|和|与|及)\s*(?:the )?(?:{PART_NAME.pattern}))+"
PARTS = re.compile(
    rf"^(?:the )?(?P<first>{LISTED})\s+of\s+(?:the complex number\s+)?(?P<a>.+)$|"
    rf"^(?:复数)?\s*(?:z\s*=)?\s*(?P<b>.+?)\s*的\s*(?P<last>{LISTED})$",
    re.IGNORECASE,
)


def complex_numbers(text: str) -> ToolCall | None:
    """``modulus of 3+4i``, ``3+4i 的共轭复数``."""
    if found := PARTS.match(text):
        body = slots.expression(found["a"] or found["b"])
        names = [
            COMPLEX_NAMES[n.lower()] for n in PART_NAME.findall(found["first"] or found["last"])
        ]
        if body and len(set(names)) > 1:
            return tool_call("complex", action=", ".join(names), expression=body)
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


ROWS = r"[-\d./\s]+(?:,[-\d./\s]+)*"
WRITTEN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\{\s*\{(.+?)\}\s*\}"), r"[[\1]]"),
    (re.compile(r"\(\s*\(([-\d./,\s()]+?)\)\s*\)"), r"[[\1]]"),
    (re.compile(rf"\|({ROWS}(?:;{ROWS})+)\|"), r"[\1]"),
    (
        re.compile(
            r"(?<![\[\d])(?<!; )(?<!;)(?<!\d )\(?\s*((?:[-\d./]+[\s,]+)+[-\d./]+\s*(?:;\s*(?:[-\d./]+[\s,]+)+[-\d./]+\s*)+)\)?(?!\])"
        ),
        r"[\1]",
    ),
]
"""Other ways to write a matrix, and as the grammar has it."""


def _bracketed(text: str) -> str:
    """``{{1,2},{3,4}}``, ``|1 2; 3 4|`` and a bare ``1 2; 3 4`` in brackets."""
    for pattern, new in WRITTEN:
        text = pattern.sub(new, text)
    return re.sub(r"(?<=[\d\s])[})]\s*,\s*[{(](?=[-\d\s])", "],[", text) if "[[" in text else text


NAMING = re.compile(rf"\b([A-Z])\s*=\s*{M}\s*(?:[,，;；.。、]|and|和|与|且|\s)*")
ASKS = re.compile(
    r"^(?:(?:已知|设|若|令|有|矩阵|给定|let|given|if|the|matri(?:x|ces)|for|with)[\s,，:：]*)+|[,，.。\s]*(?:then|then what is|则|求|试求|计算|find|compute|calculate|what is|evaluate|的结果|的值|where|if|when|given|with|for)+[\s:：]*",
    re.IGNORECASE,
)


def named_matrices(text: str) -> ToolCall | None:
    """``A=[[1,2],[3,4]], B=[[0,1],[1,0]], find AB``: what is asked of named matrices."""
    text = _bracketed(text)
    named = dict(NAMING.findall(text))
    if not named:
        return None
    asked = ASKS.sub(" ", NAMING.sub(" ", text)).strip(" ,，.。?？")
    if not asked or any(c.isdigit() for c in re.sub(r"\^\s*\(?-?\d\)?|\d\s*(?=[A-Z])", "", asked)):
        return None
    used = set(re.findall(r"(?<![A-Za-z])[A-Z](?![a-z])|(?<=[A-Z])[A-Z](?![a-z])", asked))
    if not used or not used <= named.keys():
        return None
    letters = "".join(sorted(named))
    spaced = re.sub(rf"(?<=[{letters}])\s*(?=[{letters}](?![a-z]))", "*", asked)
    spaced = re.sub(rf"(?<=\d)\s*(?=[{letters}])", "*", spaced)
    spaced = re.sub(r"\^\s*\(?\s*-\s*1\s*\)?", "^(-1)", spaced)
    written = re.sub(rf"(?<![A-Za-z])([{letters}])(?![A-Za-z])", lambda m: named[m[1]], spaced)
    if re.fullmatch(rf"[-+*^()\d\s{letters}]+", spaced) and slots.trees(written) is not None:
        return tool_call("calculate", expression=written)
    return matrices(re.sub(r"\bmatrix\b|矩阵(?=\[)", "", written).strip())


def matrices(text: str) -> ToolCall | None:
    """``determinant of [[1,2],[3,4]]``, ``[[1,2],[3,4]] 的逆矩阵``."""
    if re.search(
        r"matrix|determinant|inverse|eigen|rank|trace|transpose|矩阵|行列式|特征|秩|转置|迹",
        text,
        re.IGNORECASE,
    ):
        text = re.sub(r"^[二三四234]阶(?=行列式|矩阵|方阵)", "", _bracketed(text))
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
    names = {name: action for action, en, zh in MATRICES for name in (en, zh)}
    whole = "|".join(f"(?:{name})" for name in names)
    listed = rf"(?P<names>(?:{whole})(?:\s*(?:,|and|，|、|和|与|及)\s*(?:the )?(?:{whole}))+)"
    several = re.match(
        rf"^(?:the )?{listed}\s*of\s*(?:the )?(?:matrix)?\s*(?P<m>.+)$", text, re.IGNORECASE
    ) or re.match(rf"^(?:矩阵)?\s*(?P<m>.+?)\s*的\s*{listed}$", text)
    if several and (body := slots.matrix(several["m"])):
        found_names = re.split(r"\s*(?:,|\band\b|，|、|和|与|及)\s*(?:the )?", several["names"])
        actions = [
            next((a for n, a in names.items() if re.fullmatch(n, part, re.IGNORECASE)), "")
            for part in found_names
        ]
        if all(actions):
            return tool_call("matrix", action=", ".join(actions), a=body)
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
