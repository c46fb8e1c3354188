"""What the other providers' requests share on their way to becoming a chat request."""

from typing import Any, TypeVar

from pydantic import ValidationError

from hunyuan.serve.schema import ChatRequest, FieldError, Lenient

Model = TypeVar("Model", bound=Lenient)


def chat_request(fields: dict[str, Any]) -> ChatRequest:
    """A chat request of ``fields``; `FieldError` for what it does not take."""
    request = read(ChatRequest, fields, "")
    request.check()
    return request


def read(model: type[Model], value: Any, where: str) -> Model:
    """``value`` as a ``model``; `FieldError` with its place below ``where``."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = max(error.errors(), key=lambda found: len(found["loc"]))
        # Beside names and places pydantic tells which member of a union was tried.
        parts = [str(p) for p in first["loc"] if str(p) not in ("str", "[key]")]
        place = ".".join(([where] if where else []) + [p for p in parts if "[" not in p])
        raise FieldError(
            place, f"{place}: {first['msg']}", f"{place}：无效（{first['msg']}）"
        ) from error


def unsupported(where: str, kind: Any, known: tuple[str, ...]) -> FieldError:
    """The refusal of a kind of something by its name, with those that are ``known``."""
    shown = repr(str(kind)[:40])
    return FieldError(
        where,
        f"{where}: {shown} is not supported by this server; it takes {', '.join(known)}",
        f"{where}：本服务不支持 {shown}；可用：{'、'.join(known)}",
    )


def refuse_field(field: str, value: Any) -> FieldError:
    """The refusal of a field that would change the answer and cannot be followed."""
    shown = repr(value)[:60]
    return FieldError(
        field,
        f"{field}={shown} is not supported by this server; leave it out",
        f"本服务不支持 {field}={shown}；请去掉该字段",
    )


def known_tool(name: Any, names: set[str], where: str) -> str:
    """``name`` if it is one of the tools' ``names``, else `FieldError`."""
    if isinstance(name, str) and name in names:
        return name
    listed = ", ".join(sorted(names)[:8]) or "-"
    shown = repr(str(name)[:60])
    raise FieldError(
        where,
        f"{where}={shown}: not among the functions in tools ({listed})",
        f"{where}={shown}：不在 tools 的函数之中（{listed}）",
    )
