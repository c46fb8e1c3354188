"""A chat template, which is a program by a stranger, run in a bounded sandbox.

Templates are Jinja as Hugging Face checkpoints carry it: blocks trimmed, ``break`` and
``continue``, the globals ``raise_exception``, ``strftime_now``, ``namespace``, ``range``, ``dict``,
the filter ``tojson`` without HTML escapes, and ``{% generation %}`` marks, which change nothing.

The sandbox hides every attribute that starts with an underscore and every method that modifies a
value. Beyond that, a rendering may take `TIME_LIMIT` seconds, checked at each turn of a loop or
call of a macro and wherever text is joined, and may build `TEXT_LIMIT` characters plus 64 per
character of the conversation, checked before they are built. Methods whose result has a size that
is written as a number (``center``, ``ljust``, ``zfill``, ...) and filters that are not listed here
do not exist.

Not bounded: one single built-in operation on values that are already there, such as searching,
sorting or comparing them, is not interrupted at the time limit; and compiling a template takes
time in proportion to its length.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from hunyuan.errors import UsageError

TIME_LIMIT = 10.0
"""Seconds one rendering may take."""
TEXT_LIMIT = 1 << 26
"""Characters one rendering may build, intermediate texts included."""

_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_SIZED_BY_NUMBER = frozenset(
    ("center", "ljust", "rjust", "zfill", "expandtabs", "translate", "encode")
)
_FILTERS_OF_VALUES = (
    *("abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int"),
    *("items", "last", "length", "map", "max", "min", "reject", "rejectattr", "reverse", "round"),
    *("select", "selectattr", "sort", "unique"),
)
_FILTERS_OF_TEXT = (
    *("capitalize", "e", "escape", "lower", "safe", "striptags", "title", "trim", "truncate"),
    *("upper", "urlencode", "wordcount"),
)


class _Budget:
    """What one rendering may still use."""

    def __init__(self, input_characters: int) -> None:
        self._characters = TEXT_LIMIT + 64 * input_characters
        self._deadline = time.monotonic() + TIME_LIMIT

    def charge(self, characters: int) -> None:
        """Take ``characters`` off; raise `SecurityError` when the text or the time is used up."""
        self._characters -= characters
        if self._characters < 0:
            raise SecurityError("builds too much text")
        if time.monotonic() > self._deadline:
            raise SecurityError(f"takes longer than {TIME_LIMIT:g} s")


# Jinja calls filters and operators without a place to hand the budget through.
_budget: ContextVar[_Budget] = ContextVar("_budget")


def _charge(characters: int) -> None:
    _budget.get().charge(characters)


def _size(value: Any) -> int:
    """Characters of ``value`` as text, about; nested values are walked, and the walk is charged."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        _charge(len(value))
        return sum(_size(key) + _size(item) + 4 for key, item in value.items())
    if isinstance(value, list | tuple):
        _charge(len(value))
        return sum(_size(item) + 2 for item in value)
    if value is None or isinstance(value, int | float | Undefined):
        return 16
    raise SecurityError(f"writes out a {type(value).__name__}")


class _Namespace(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(*arguments: Any, **values: Any) -> None:
        # One star, so that a template may name a value "self".
        self, given = arguments[0], dict(*arguments[1:], **values)
        for name in given:
            _refuse_private(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        Namespace.__setitem__(self, name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"namespace attribute {name!r} begins with an underscore")


class _GenerationMarks(Extension):
    """``{% generation %}...{% endgeneration %}`` marks what an assistant wrote, for training."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Puts a charge into every loop body and macro, and in the place of ``~``."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._metered(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._metered(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._metered(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _environment_call("concatenate", node.nodes)

    def _metered(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        fixed_text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        charge = _environment_call("charge", [nodes.Const(fixed_text)])
        node.body.insert(0, nodes.ExprStmt(charge))
        if isinstance(node, nodes.For) and node.test is not None:
            # A loop whose filter refuses every item never reaches its body.
            test_charge = _environment_call("charge", [nodes.Const(0)])
            node.test = nodes.And(nodes.Not(test_charge), node.test)
        return node


def _environment_call(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a meter at everything that makes text grow."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finalize,
            extensions=[loopcontrols, _GenerationMarks],
        )
        self.globals.clear()
        self.globals.update(
            range=safe_range,
            dict=_new_dict,
            namespace=_Namespace,
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
        )
        filters = {name: self.filters[name] for name in _FILTERS_OF_VALUES}
        filters |= {name: _metered(self.filters[name]) for name in _FILTERS_OF_TEXT}
        self.filters = dict(
            filters,
            format=_format,
            indent=_indent,
            join=_join,
            list=_list,
            replace=_replace,
            string=_string,
            tojson=_tojson,
        )

    def charge(self, characters: int) -> None:
        """The meter, as compiled templates call it."""
        _charge(characters)

    def concatenate(self, *values: Any) -> str:
        """The operator ``~``."""
        _charge(sum(map(_size, values)))
        return "".join(map(str, values))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No private attributes, nothing that modifies, no text of a size written as a number."""
        if isinstance(obj, str | bytes) and attr in _SIZED_BY_NUMBER:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result can be much larger than its operands."""
        if operator == "+":
            _charge(_length(left) + _length(right))
        elif operator == "*":
            _charge(_product_size(left, right))
        elif operator == "**":
            if not (isinstance(left, int | float) and isinstance(right, int | float)):
                raise SecurityError("power of something that is no number")
            if abs(right) > 64 or _bits(left) > 64:
                raise SecurityError("power of a large number")
        elif isinstance(left, str):
            _charge_format(left, [right])
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format``, which the sandbox replaces by its own."""
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None

        def metered(*arguments: Any, **named: Any) -> str:
            _charge_format(value.__self__, (*arguments, *named.values()))
            return formatted(*arguments, **named)

        return metered

    # Jinja calls this with the template's own keyword arguments, hence the names.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call: of a method of a text that can multiply it, or of anything else."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            method = __obj.__name__
            if method == "replace" and len(args) >= 2:
                _charge_replacement(owner, *args[:2])
            elif method == "join" and args:
                items = list(args[0])
                args = (items,)
                _charge(_size(items) + len(owner) * len(items))
        return super().call(__context, __obj, *args, **kwargs)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _product_size(left: Any, right: Any) -> int:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
            return len(sequence) * max(times, 0)
    if _bits(left) + _bits(right) > 4096:
        raise SecurityError("product of large numbers")
    return 0


def _finalize(value: Any) -> Any:
    """Meter what is printed."""
    # Constants of the template are printed while it is compiled, before there is a budget.
    if budget := _budget.get(None):
        budget.charge(_size(value))
    return value


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of text, which writes out a list it is given instead."""

    def metered(*arguments: Any, **named: Any) -> Any:
        _charge(sum(_size(value) for value in arguments if isinstance(value, list | tuple | dict)))
        return function(*arguments, **named)

    # Where Jinja keeps whether a filter wants the environment.
    metered.__dict__.update(function.__dict__)
    return metered


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment, value: Any, d: Any = "", attribute: str | int | None = None
) -> str:
    items = list(
        value if attribute is None else map(make_attrgetter(environment, attribute), value)
    )
    _charge(_size(items) + len(str(d)) * len(items))
    return str(d).join(map(str, items))


def _list(value: Iterable[Any]) -> list[Any]:
    _charge(_length(value))
    return list(value)


def _string(value: Any) -> str:
    _charge(_size(value))
    return str(value)


def _format(value: Any, *arguments: Any, **named: Any) -> str:
    _charge_format(str(value), (*arguments, *named.values()))
    return str(value) % (named or arguments)


def _charge_format(pattern: str, arguments: Iterable[Any]) -> None:
    fields = pattern.replace("{{", "").replace("}}", "")
    if re.search(r"\d{4}|\*|\{[^}]*\{", fields):
        raise SecurityError("format with a wide or computed field")
    _charge(len(pattern) * (1 + sum(map(_size, arguments))))


def _charge_replacement(text: str, old: Any, new: Any) -> None:
    places = len(text) // max(1, len(str(old))) + 1
    _charge(len(text) + places * len(str(new)))


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    _charge_replacement(str(text), old, new)
    return str(text).replace(str(old), str(new), count)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    columns = width if isinstance(width, int) else len(width)
    _charge(len(text) + columns * (text.count("\n") + 1))
    return do_indent(text, width, first, blank)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 16:
        raise SecurityError(f"tojson with indent={indent}")
    _charge(_size(value))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _new_dict(*arguments: Any, **values: Any) -> dict[Any, Any]:
    return dict(*arguments, **values)


def _strftime_now(form: str) -> str:
    if len(form) > 64:
        raise SecurityError("strftime_now with a long format")
    return datetime.now().strftime(form)


def _raise_exception(message: Any) -> NoReturn:
    raise jinja2.TemplateError(_string(message))


class ChatTemplate:
    """A compiled template; immutable, and safe to use from several threads."""

    def __init__(self, source: str) -> None:
        """Compile; raise `UsageError` naming the line if ``source`` is no Jinja template."""
        environment = _Environment()
        try:
            tree = _Meter().visit(environment.parse(source))
            code = environment.compile(tree, filename="chat_template")
        except _FAILURES as error:
            raise _failed(error) from error
        self._template = jinja2.Template.from_code(environment, code, environment.globals)

    def render(self, variables: Mapping[str, Any], input_characters: int) -> str:
        """The text for ``variables``, which must be plain JSON-like values.

        ``input_characters`` is the size of the conversation, which the limit on text grows with.
        Raises `UsageError` if the template fails, refuses the conversation or breaks a limit.
        """
        previous = _budget.set(_Budget(input_characters))
        try:
            return _joined(self._template.generate(variables))
        except _FAILURES as error:
            raise _failed(error) from error
        finally:
            _budget.reset(previous)


def _joined(chunks: Iterable[str]) -> str:
    collected = []
    for chunk in chunks:
        _charge(len(chunk))
        collected.append(chunk)
    return "".join(collected)


def _failed(error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    line = getattr(error, "lineno", None)
    where, where_zh = (f" (line {line})", f"（第 {line} 行）") if line else ("", "")
    return UsageError(
        f"the chat template fails{where}: {reason}; change the messages to what it accepts, or use "
        "plain completion",
        f"对话模板出错{where_zh}：{reason}；请按模板的要求修改消息，或改用普通续写",
    )
