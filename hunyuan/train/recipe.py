"""What a training run can be told: a TOML file of sections, each a frozen dataclass.

Numbers the paper does not publish have defaults that are this project's choice, marked so; those
it does publish cite their section. Durations are in tokens or epochs, never in bare steps, so that
another batch size trains on the same data.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hunyuan.model.config import Routing
from hunyuan.parallel.layout import Layout
from hunyuan.settings import require
from hunyuan.train.lora_settings import LoraConfig

Task = Literal["pretrain", "distil", "sft", "dpo"]
NumberType = Literal["float32", "bfloat16"]


def _positive(where: str, value: float) -> None:
    require(value > 0, f"{where}={value} must be above 0", f"{where}={value} 必须大于 0")


def _share(where: str, value: float) -> None:
    require(
        0 <= value <= 1, f"{where}={value} must be within 0..1", f"{where}={value} 须在 0 到 1 之间"
    )


def _below_one(where: str, value: float) -> None:
    require(
        0 <= value < 1,
        f"{where}={value} must be at least 0 and below 1",
        f"{where}={value} 须不小于 0 且小于 1",
    )


def _not_negative(where: str, value: float) -> None:
    require(value >= 0, f"{where}={value} must not be negative", f"{where}={value} 不能为负")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is trained; exactly one of the first three."""

    preset: str | None = None
    """A fresh model of a named shape, one of ``hunyuan/model/presets.toml``."""

    shape: dict[str, Any] | None = None
    """A fresh model of this shape: the fields of `hunyuan.model.config.ModelConfig`."""

    base: str | None = None
    """An existing model: a folder, a file, a run folder, or the name of a pulled model."""

    change: dict[str, Any] = field(default_factory=dict)
    """Fields of the preset or of the base to change, such as ``context`` and ``rope`` for a
    long-context stage. Shapes of weights must stay."""

    dtype: NumberType = "bfloat16"
    """Number type of the matrices; masters, router and norms are float32 in any case."""

    routing: Routing = field(default_factory=Routing)
    """How tokens find experts while training; evaluation and serving are always dropless."""

    tokenizer: str | None = None
    """Folder or model the tokenizer comes from; by default the base's or the token set's."""

    def __post_init__(self) -> None:
        given = [n for n in ("preset", "shape", "base") if getattr(self, n) is not None]
        require(
            len(given) == 1,
            f"model: has {' and '.join(given) or 'no source'}; give one of preset, shape, base",
            f"model：给出了 {'、'.join(given) or '零个来源'}；请在 preset、shape、base 中选一个",
        )


@dataclass(frozen=True, kw_only=True)
class Mix:
    """One source of a pretraining mixture."""

    source: str
    """Name of a source of the token set."""

    weight: float | None = None
    """Share of the tokens, relative to the others; by default the size of the source."""

    min_tokens: int = 1
    """Only documents at least this long (whole books, for the long-context stages)."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is trained on."""

    tokens: Path | None = None
    """pretrain, distil: a token set of ``hunyuan data prepare``."""

    mixture: tuple[Mix, ...] = ()
    """Sources and shares; empty is all sources by their size."""

    files: tuple[Path, ...] = ()
    """sft, dpo: jsonl or jsonl.gz files of conversations or preferences."""

    heldout: tuple[Path, ...] = ()
    """sft, dpo: files to evaluate on; empty takes `heldout_share` of the files."""

    heldout_share: float = 0.02
    """sft, dpo: share of the conversations kept apart for evaluation."""

    limit: int | None = None
    """sft, dpo: only this many conversations, drawn at random."""

    too_long: Literal["truncate", "drop"] = "truncate"
    """sft: what happens to a conversation longer than a row; either is counted."""

    learn_prompt_end: bool = True
    """sft: also learn to predict the prompt's own last token, as the release does."""

    malformed_share: float = 0.01
    """sft, dpo: share of lines that may be unusable before it is an error."""

    def __post_init__(self) -> None:
        _share("data.heldout_share", self.heldout_share)
        _share("data.malformed_share", self.malformed_share)
        if self.limit is not None:
            _positive("data.limit", self.limit)


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How much is computed at a time."""

    rows: int = 4
    """Rows per micro-batch, the B of every tensor."""

    row_tokens: int = 512
    """Tokens per row, the T of every tensor."""

    accumulate: int = 1
    """Micro-batches per optimiser step."""

    def __post_init__(self) -> None:
        for name in ("rows", "row_tokens", "accumulate"):
            _positive(f"batch.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW (paper, section 2.2.4); betas, decay and clipping are our choice."""

    learning_rate: float
    """Peak of the schedule."""

    expert_ratio: float = 0.31
    """Learning rate of the routed experts relative to `learning_rate` (paper, section 2.2.4)."""

    noise_scale: float | None = None
    """Tokens of the gradient noise scale; if given, the ratio is computed from it instead of
    `expert_ratio`: (1 + x) / (sqrt(n) (1 + x/n)) with x = batch / noise scale and n experts. The
    paper prints the inverse, which contradicts its "scaled down" (specification, 11.3)."""

    beta1: float = 0.9
    """Decay of the mean of gradients."""

    beta2: float = 0.95
    """Decay of the mean of squares."""

    eps: float = 1e-8
    """Added to the root of the mean of squares."""

    weight_decay: float = 0.1
    """Decay of matrices; norms and biases have none."""

    clip: float = 1.0
    """Largest norm of all gradients together; 0 is no limit."""

    def __post_init__(self) -> None:
        _positive("optimizer.learning_rate", self.learning_rate)
        _positive("optimizer.expert_ratio", self.expert_ratio)
        _positive("optimizer.eps", self.eps)
        for name in ("beta1", "beta2"):
            _below_one(f"optimizer.{name}", getattr(self, name))
        for name in ("weight_decay", "clip"):
            _not_negative(f"optimizer.{name}", getattr(self, name))
        if self.noise_scale is not None:
            _positive("optimizer.noise_scale", self.noise_scale)


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Warm-up, long decay, short annealing (paper, section 2.3.2)."""

    tokens: int | None = None
    """pretrain, distil: tokens of the whole run."""

    epochs: int | None = None
    """sft, dpo: times over the data."""

    warmup: float = 0.02
    """Share of the run over which the rate rises from 0; our choice."""

    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the long decay; our choice."""

    decay_to: float = 0.3
    """Rate, relative to the peak, where the annealing begins; our choice."""

    anneal: float = 0.05
    """Share of the run for the annealing at its end (paper: the last 5 % of tokens)."""

    final: float = 0.1
    """Rate at the end, relative to the peak (paper: a tenth)."""

    def __post_init__(self) -> None:
        for name in ("warmup", "decay_to", "anneal", "final"):
            _share(f"schedule.{name}", getattr(self, name))
        for name in ("tokens", "epochs"):
            if getattr(self, name) is not None:
                _positive(f"schedule.{name}", getattr(self, name))
        require(
            self.warmup + self.anneal <= 1,
            f"schedule: warmup={self.warmup} and anneal={self.anneal} are more than the whole run",
            f"schedule：warmup={self.warmup} 与 anneal={self.anneal} 之和超过整个训练",
        )


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What is added to the loss of the task."""

    balance: float = 0.01
    """Coefficient of the balance loss, per capacity group; our choice (not published)."""

    router_z: float = 0.001
    """Coefficient of the router's z-loss, the mean squared log-sum-exp; our choice."""

    dpo_beta: float = 0.1
    """dpo: strength of the pull towards the reference; our choice."""

    dpo_nll: float = 0.2
    """dpo: coefficient of the negative log-likelihood of the chosen answer (paper, 3.2, without
    a figure); our choice."""

    teacher: str | None = None
    """distil: the model whose predictions are learned."""

    def __post_init__(self) -> None:
        for name in ("balance", "router_z", "dpo_nll"):
            _not_negative(f"loss.{name}", getattr(self, name))
        _positive("loss.dpo_beta", self.dpo_beta)


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """dpo: preferences between the policy's own answers, made before each epoch."""

    prompts: tuple[Path, ...]
    """jsonl or jsonl.gz files of conversations to answer."""

    reward: str
    """The model that ranks answers, by how likely it finds them."""

    reward_reference: str | None = None
    """A model whose log-likelihood is subtracted from the reward's."""

    pairs: int = 64
    """Prompts that are answered before each epoch."""

    samples: int = 4
    """Answers to each."""

    temperature: float = 1.0
    """Temperature of the answers."""

    max_tokens: int = 256
    """Tokens of an answer at most."""

    def __post_init__(self) -> None:
        for name in ("pairs", "temperature", "max_tokens"):
            _positive(f"online.{name}", getattr(self, name))
        require(
            self.samples >= 2,
            f"online.samples={self.samples}: two answers at least make a pair",
            f"online.samples={self.samples}：至少两个回答才能组成一对",
        )


@dataclass(frozen=True, kw_only=True)
class DropoutSettings:
    """Dropout while training (paper, section 3.1: attention 0.1, hidden 0.2 in SFT)."""

    attention: float = 0.0
    """Share of attention probabilities; attention then runs without the compiled kernel."""

    hidden: float = 0.0
    """Share of the outputs of every attention and MLP."""

    def __post_init__(self) -> None:
        _below_one("dropout.attention", self.attention)
        _below_one("dropout.hidden", self.hidden)


@dataclass(frozen=True, kw_only=True)
class SavingSettings:
    """Checkpoints."""

    every_minutes: float = 10.0
    """Time between checkpoints; one is also written at the end and on SIGTERM."""

    keep_last: int = 2
    """Newest checkpoints that are kept."""

    keep_best: bool = True
    """Whether the one with the lowest evaluation loss is kept besides."""

    ema: float = 0.0
    """Decay per step of the moving average of the weights that is saved in their place (paper,
    section 3.2, for DPO); 0 saves the weights themselves."""

    def __post_init__(self) -> None:
        _positive("saving.every_minutes", self.every_minutes)
        _positive("saving.keep_last", self.keep_last)
        _below_one("saving.ema", self.ema)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The held-out part, always dropless and in float32 logits."""

    every: float = 0.05
    """Share of the run between evaluations; one more at the beginning and at the end."""

    rows: int = 32
    """Rows of every held-out source."""

    def __post_init__(self) -> None:
        _positive("evaluation.every", self.every)
        _positive("evaluation.rows", self.rows)


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is written down."""

    every: int = 10
    """Steps between lines of metrics."""

    experts_every: int = 50
    """Steps between records of what the experts do."""

    tensorboard: bool = False
    """Whether TensorBoard gets the same figures (needs the package ``tensorboard``)."""

    def __post_init__(self) -> None:
        _positive("log.every", self.every)
        _positive("log.experts_every", self.experts_every)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about one training run."""

    task: Task
    """pretrain: next token; distil: a teacher's predictions; sft: answers; dpo: preferences."""

    model: ModelSettings
    """The model."""

    data: DataSettings
    """The data."""

    optimizer: OptimizerSettings
    """The optimiser."""

    schedule: ScheduleSettings
    """How long, and the learning rate over time."""

    batch: BatchSettings = field(default_factory=BatchSettings)
    """The batch."""

    loss: LossSettings = field(default_factory=LossSettings)
    """Coefficients of the losses."""

    lora: LoraConfig | None = None
    """Low-rank adapters beside the frozen base; without this section everything is trained."""

    online: OnlineSettings | None = None
    """dpo: pairs sampled from the model while it is trained."""

    dropout: DropoutSettings = field(default_factory=DropoutSettings)
    """Dropout."""

    saving: SavingSettings = field(default_factory=SavingSettings)
    """Checkpoints."""

    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Evaluation."""

    log: LogSettings = field(default_factory=LogSettings)
    """Metrics."""

    parallel: Layout = field(default_factory=Layout)
    """How many processes do what; one does everything."""

    recompute: bool = False
    """Whether activations of each block are computed again in the backward pass: memory for one
    block instead of all, for a third more time."""

    seed: int = 0
    """Seed of weights, data order, dropout and recycle routing."""

    def __post_init__(self) -> None:
        _not_negative("seed", self.seed)
        by_tokens = self.task in ("pretrain", "distil")
        wanted, other = ("tokens", "epochs") if by_tokens else ("epochs", "tokens")
        require(
            getattr(self.schedule, wanted) is not None and getattr(self.schedule, other) is None,
            f"task={self.task}: needs schedule.{wanted}, and no schedule.{other}",
            f"task={self.task}：需要 schedule.{wanted}，且不能有 schedule.{other}",
        )
        require(
            self.lora is None or self.model.base is not None,
            "lora: adapts an existing model; set model.base",
            "lora：用于已有模型；请设置 model.base",
        )
        require(
            self.online is None or self.task == "dpo",
            f"task={self.task}: online belongs to task=dpo",
            f"task={self.task}：online 仅用于 task=dpo",
        )
        source = "tokens" if by_tokens else "files"
        require(
            bool(getattr(self.data, source)),
            f"task={self.task}: needs data.{source}",
            f"task={self.task}：需要 data.{source}",
        )
        require(
            (self.loss.teacher is not None) == (self.task == "distil"),
            f"task={self.task}: loss.teacher belongs to task=distil, which needs it",
            f"task={self.task}：loss.teacher 仅用于且必须用于 task=distil",
        )
        routing = self.model.routing
        require(
            routing.mode == "dropless"
            or (self.batch.rows * self.batch.row_tokens) % routing.capacity_group == 0,
            f"batch: rows * row_tokens = {self.batch.rows * self.batch.row_tokens} is no multiple "
            f"of model.routing.capacity_group={routing.capacity_group}; choose a divisor as group",
            f"batch：rows * row_tokens = {self.batch.rows * self.batch.row_tokens} 不是 "
            f"model.routing.capacity_group={routing.capacity_group} 的整数倍；请选择其约数作为分组",
        )
