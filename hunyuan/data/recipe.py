"""What `hunyuan data prepare` is asked for: a TOML file, read into frozen dataclasses.

Paths are relative to the recipe. ``recipes/data.toml`` is a complete example with every key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hunyuan.settings import read_table, require, settings

Category = Literal["web", "books", "code"]
Executor = Literal["local", "slurm", "ray"]
Personal = Literal["email", "phone", "identity", "card", "ip"]
Label = Literal["zh", "en", "code", "other"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Texts of one origin."""

    name: str
    """Name of the source in the token set and in mixtures; lower case, digits, ``_ . -``."""

    path: str
    """A file, a folder (all of it, recursively) or a pattern such as ``pages/**/*.jsonl.gz``. The
    kind follows from the extension: jsonl, jsonl.gz, jsonl.zst, parquet, txt, md, html, or source
    code."""

    license: str
    """Licence of the texts; goes into the manifest and the report."""

    category: Category
    """Which quality rules apply: ``web`` all of them, ``books`` those for long and well-made text,
    ``code`` those for source code."""

    language: Label | None = None
    """What the texts are known to be; a text that clearly is not is rejected. By default each text
    is looked at."""

    text: tuple[str, ...] = ("text",)
    """jsonl and parquet: the fields that hold the text, joined by a line break."""

    encoding: str = "utf-8"
    """txt, md, html and code: how the files are written, for example ``gb18030``."""

    def __post_init__(self) -> None:
        require(
            _NAME.fullmatch(self.name) is not None,
            f"source.name={self.name!r} must consist of a-z, 0-9, _, . and -",
            f"source.name={self.name!r} 只能由 a-z、0-9、_、. 和 - 组成",
        )
        require(
            bool(self.text),
            f"source {self.name}: text=[] names no field; name at least one",
            f"来源 {self.name}：text=[] 没有指定字段；请至少指定一个",
        )
        try:
            "".encode(self.encoding)
        except LookupError:
            require(
                False,
                f"source {self.name}: encoding={self.encoding!r} is unknown; use utf-8 or gb18030",
                f"来源 {self.name}：未知的 encoding={self.encoding!r}；请使用 utf-8 或 gb18030",
            )


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Which texts are good enough; every rejection has a reason that the report counts."""

    languages: tuple[Label, ...] = ("zh", "en", "code")
    """Languages to keep."""

    min_words: int = 20
    """Fewer words are rejected as ``short``; two Han characters are a word."""

    max_words: int = 100_000
    """Web and code: more words are rejected as ``long``. Books may have any length."""

    max_unreadable: float = 0.01
    """Share of replacement and private-use characters above which a text is ``mojibake``."""

    repetition: bool = True
    """Whether texts that repeat their own lines or phrases are rejected (Gopher's rules)."""

    def __post_init__(self) -> None:
        require(
            1 <= self.min_words <= self.max_words,
            f"filter: min_words={self.min_words} must be between 1 and max_words={self.max_words}",
            f"filter：min_words={self.min_words} 须在 1 与 max_words={self.max_words} 之间",
        )
        _share("filter.max_unreadable", self.max_unreadable)


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """Which texts count as the same; of each group one is kept."""

    exact: bool = True
    """Whether equal texts are removed; that of the source named first stays."""

    near: bool = True
    """Whether nearly equal texts are removed (MinHash over passages)."""

    words: int = 5
    """Words in a passage (twice as many Han characters); shorter texts have no near duplicates."""

    buckets: int = 14
    """Two texts are near duplicates if they agree in any of the buckets..."""

    hashes: int = 8
    """...in all of its hashes: half of the pairs that share (1 / buckets) ** (1 / hashes) of their
    passages are found, 72 % by default, and 92 % of those that share 80 %."""

    def __post_init__(self) -> None:
        for name in ("words", "buckets", "hashes"):
            _positive(f"duplicates.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class DecontaminationSettings:
    """Texts that contain benchmark questions are removed and named."""

    benchmarks: dict[str, str] = field(default_factory=dict)
    """Name of each benchmark and the folder or file with its questions: json, jsonl, csv, tsv,
    parquet or txt, all texts in them."""

    words: int = 13
    """Words in a passage (twice as many Han characters); shorter questions cannot be found."""

    passages: int = 1
    """A text with this many passages of one benchmark is removed."""

    def __post_init__(self) -> None:
        _positive("decontamination.words", self.words)
        _positive("decontamination.passages", self.passages)


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What Slurm needs to know; read if ``run.executor = "slurm"``."""

    partition: str
    """Partition of the jobs."""

    time: str = "24:00:00"
    """Time limit of one task."""

    memory: int = 4
    """GB per task."""

    qos: str = ""
    """Quality of service, if the cluster has any."""

    environment: str = ""
    """Shell command that activates the Python environment on a node."""

    def __post_init__(self) -> None:
        _positive("run.slurm.memory", self.memory)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where and in how many pieces the work is done; does not change the result."""

    executor: Executor = "local"
    """``local`` processes, ``slurm`` array jobs or ``ray`` tasks; the last two need the output
    folder on a file system that all nodes share."""

    workers: int = 0
    """Processes at a time; 0 is one per processor, at most 64 on a cluster."""

    tasks: int = 0
    """Pieces the work is cut into; a killed run repeats only unfinished pieces. 0 is one per 64 MB
    of input and at least one per worker."""

    slurm: SlurmSettings | None = None
    """What Slurm needs to know."""

    def __post_init__(self) -> None:
        for name in ("workers", "tasks"):
            value = getattr(self, name)
            require(
                value >= 0,
                f"run.{name}={value} must not be negative; 0 chooses by itself",
                f"run.{name}={value} 不能为负；0 表示自动选择",
            )
        require(
            self.executor != "slurm" or self.slurm is not None,
            'run.executor="slurm" needs a section [run.slurm] with the partition',
            'run.executor="slurm" 需要带有 partition 的 [run.slurm] 一节',
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One token set: sources, rules and the tokenizer."""

    tokenizer: str
    """Folder or file of the tokenizer (`hunyuan tokenizer train` makes one)."""

    source: tuple[SourceSettings, ...]
    """The sources, ``[[source]]`` each; the earlier has precedence among duplicates."""

    heldout: float = 0.01
    """Share of the documents kept apart for measuring, by the hash of their text."""

    bad_lines: float = 0.01
    """Share of a source's lines or files that may be unreadable before it is an error."""

    shard_tokens: int = 1 << 28
    """A shard ends with the document that reaches this many tokens."""

    samples: int = 3
    """Examples the report shows of each source and of each reason for removal."""

    personal: tuple[Personal, ...] = ("email", "phone", "identity", "card", "ip")
    """Personal data that is replaced by a placeholder."""

    filter: FilterSettings = field(default_factory=FilterSettings)
    """Which texts are good enough."""

    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    """Which texts count as the same."""

    decontamination: DecontaminationSettings = field(default_factory=DecontaminationSettings)
    """Which benchmarks must not be in the data."""

    run: RunSettings = field(default_factory=RunSettings)
    """Where the work is done."""

    def __post_init__(self) -> None:
        require(bool(self.source), "source: there is none", "source：没有任何来源")
        names = [source.name for source in self.source]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(
            not twice,
            f"source.name={', '.join(twice)} occurs twice; names must differ",
            f"source.name={'、'.join(twice)} 重复；名称必须互不相同",
        )
        _share("heldout", self.heldout)
        _share("bad_lines", self.bad_lines)
        _positive("shard_tokens", self.shard_tokens)
        require(
            self.samples >= 0,
            f"samples={self.samples} must not be negative",
            f"samples={self.samples} 不能为负",
        )


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; `UsageError` names the key and the nearest known one."""
    return recipe_of(read_table(path))


def recipe_of(table: Mapping[str, object]) -> Recipe:
    """The recipe of a table as TOML gives it."""
    return settings(Recipe, table)


def _share(name: str, value: float) -> None:
    require(
        0 <= value < 1, f"{name}={value} must be within 0..1", f"{name}={value} 须在 0 到 1 之间"
    )


def _positive(name: str, value: float) -> None:
    require(value > 0, f"{name}={value} must be above 0", f"{name}={value} 必须大于 0")
