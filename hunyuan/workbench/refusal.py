"""Errors of the workbench's routes that have a status and facts of their own."""

from typing import Any

from hunyuan.errors import UsageError


class RefusedError(UsageError):
    """A request that is refused; ``extra`` goes beside ``message`` into the error's JSON."""

    def __init__(
        self,
        en: str,
        zh: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(en, zh)
        self.status = status
        self.code = code
        self.param = param
        self.extra = extra or {}

    def beside(self) -> dict[str, Any]:
        """What the reply holds beside ``error``."""
        return {}


def not_found(kind_en: str, kind_zh: str, name: str) -> RefusedError:
    """404 for an id that is not there (any more)."""
    shown = name[:40]
    return RefusedError(
        f"there is no {kind_en} {shown}; it may have been deleted",
        f"不存在{kind_zh} {shown}；可能已被删除",
        status=404,
        code="not_found",
    )
