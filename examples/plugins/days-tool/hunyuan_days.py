"""A tool for `hunyuan chat --tools`: how many days lie between two dates."""

from datetime import date

from hunyuan.plugins import Tool


def _run(start: str, end: str) -> str:
    days = (date.fromisoformat(end) - date.fromisoformat(start)).days
    return f"{days} days"


_DATE = {"type": "string", "description": "a date as YYYY-MM-DD", "pattern": r"\d{4}-\d{2}-\d{2}"}

days_between = Tool(
    description="Number of days between two dates",
    parameters={
        "type": "object",
        "properties": {"start": _DATE, "end": _DATE},
        "required": ["start", "end"],
    },
    run=_run,
)
