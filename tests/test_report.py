"""Reports of training runs: what counts after a resumption, what thinning keeps, what is drawn."""

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hunyuan.cli.main import cli
from hunyuan.cli.main import run as hunyuan
from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.report import heat, page
from hunyuan.report.document import document, inert_json, rounded, static
from hunyuan.report.metrics import Alarm, Eval, Moe, Start, Train, read_metrics
from hunyuan.report.run import EmptyRunError, load_run
from hunyuan.report.sample import smooth, thin

CONFIG = {"layers": 2, "hidden": 64, "experts": 4, "top_k": 1, "shared_experts": 1, "vocab": 512}
Line = dict[str, Any]


def start(at: int = 0, clock: float = 1000.0, **changes: Any) -> Line:
    line = {"kind": "start", "time": clock, "command": "hunyuan train a.toml", "version": "0.1.0"}
    line |= {"commit": None, "parameters": 900, "active_parameters": 300, "resumed_at_step": at}
    return {**line, "config": CONFIG, **changes}


def train(step: int, loss: float = 3.0, clock: float | None = None, **more: Any) -> Line:
    line = {"kind": "train", "step": step, "tokens": 100 * step, "loss": loss}
    line |= {"time": 1000.0 + step if clock is None else clock, "learning_rate": 1e-3}
    return {**line, "grad_norm": 0.5, "tokens_per_second": 1e4, "memory_bytes": 10**9, **more}


def held_out(step: int, loss: float = 3.5, name: str = "books", bits: float | None = 1.2) -> Line:
    line = {"kind": "eval", "step": step, "tokens": 100 * step, "time": 1000.5 + step}
    return {**line, "name": name, "loss": loss, "bits_per_byte": bits}


def moe(step: int, loads: list[list[float]], **more: Any) -> Line:
    layers = [
        {"layer": i, "load": load, "max_violation": max(load) - 1, "dead": load.count(0)}
        | {"router_entropy": 0.5, "load_entropy": 0.9, "top1_weight": 0.6, "recycled": 0.1}
        | {"dropped": 0.0, "recycled_weight": None, "balance_loss": 1.1, "similarity": None}
        for i, load in enumerate(loads)
    ]
    line = {"kind": "moe", "step": step, "tokens": 100 * step, "time": 1000.0 + step}
    return {**line, "layers": layers, **more}


def alarm(step: int, level: str = "warning", en: str = "it grew", zh: str = "变大了") -> Line:
    line = {"kind": "alarm", "step": step, "time": 1000.0 + step, "level": level}
    return {**line, "code": "spike", "en": en, "zh": zh}


def write(folder: Path, lines: list[Line], tail: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


LOADS = [[1.0, 1.5, 0.0, 1.5], [0.5, 1.0, 1.5, 1.0]]


def example(folder: Path, shift: float = 0.0, steps: int = 60) -> Path:
    """A run with everything in it, killed once, its last line torn."""
    lines = [start()]
    for step in range(1, steps // 2 + 5):
        lines.append(train(step, 99.0 if step > steps // 2 else 3 + shift + 5 / step))
    lines.append(start(steps // 2, clock=5000.0))
    for step in range(steps // 2 + 1, steps + 1):
        clock = 5000.0 + step - steps // 2
        more = {"expert_learning_rate": 3e-4, "peak_share": 0.4, "balance_loss": 1.0}
        lines.append(train(step, 3 + shift + 5 / step, clock, **more, accuracy=0.7))
    for step in range(10, steps + 1, 10):
        lines += [held_out(step), held_out(step, 3.1, "code", None), moe(step, LOADS)]
    lines.append(alarm(20))
    (write(folder, lines, '{"kind":"tra') / "recipe.toml").write_text("# five\nlayers = 5\n")
    return folder


# ---------------------------------------------------------------- reading


def test_every_kind_of_line_becomes_its_record(tmp_path: Path) -> None:
    lines = [start(), train(1, accuracy=0.5), held_out(1), moe(1, LOADS), alarm(1, "stop")]
    first, second, third, fourth, fifth = read_metrics(write(tmp_path, lines) / "metrics.jsonl")
    assert isinstance(first, Start)
    assert (first.active_parameters, first.config, first.commit) == (300, CONFIG, None)
    assert isinstance(second, Train)
    assert (second.loss, second.peak_share, second.scalars) == (3.0, None, {"accuracy": 0.5})
    assert isinstance(third, Eval)
    assert (third.name, third.bits_per_byte) == ("books", 1.2)
    assert isinstance(fourth, Moe)
    assert [list(layer.load) for layer in fourth.layers] == LOADS
    assert [layer.dead for layer in fourth.layers] == [1, 0]
    assert isinstance(fifth, Alarm)
    assert (fifth.level, fifth.zh) == ("stop", "变大了")


def test_a_file_cut_anywhere_gives_the_lines_before_the_cut(tmp_path: Path) -> None:
    path = write(tmp_path, [start(), train(1), alarm(2, zh="海")]) / "metrics.jsonl"
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # A last line without its line end is whole too.
        assert len(list(read_metrics(path))) == sum(cut >= end - 1 for end in ends)


@pytest.mark.parametrize(
    ("line", "english", "chinese"),
    [
        ('{"kind":"train"', "is not JSON", "不是 JSON"),
        ("", "is not JSON", "不是 JSON"),
        ("7", "kind=None is unknown", "未知的 kind=None"),
        ({"kind": "trian"}, "kind='trian' is unknown, it must be train", "应为 train"),
        ({"kind": ["train"]}, "kind=['train'] is unknown", "未知的 kind"),
        ({**train(1), "loss": "low"}, "loss='low' must be a number", "loss='low' 必须是数"),
        ({**train(1), "loss": None}, "loss=None must be a number", "必须是数"),
        ({**train(1), "loss": True}, "loss=True must be a number", "必须是数"),
        ({**train(1), "step": 1.5}, "step=1.5 must be a whole number of at least 0", "整数"),
        ({**train(1), "step": -1}, "step=-1 must be a whole number of at least 0", "整数"),
        ({**train(1), "tokens": 10**400}, "must be a whole number", "整数"),
        ({**train(1), "loss": 10**400}, "must be a number", "数"),
        ({**train(1), "time": math.inf}, "time=inf must be finite", "有限"),
        ({**train(1), "margin": "wide"}, "margin='wide' must be a number", "数"),
        ({k: v for k, v in train(1).items() if k != "loss"}, "field loss is missing", "缺少字段"),
        ({**start(), "config": []}, "config=[] must be an object", "对象"),
        ({**held_out(1), "name": 3}, "name=3 must be a text", "文本"),
        ({**alarm(1), "level": "loud"}, "level='loud' must be warning or stop", "warning 或 stop"),
        ({**moe(1, LOADS), "layers": {}}, "layers={} must be a list", "列表"),
        ({**moe(1, LOADS), "layers": []}, "must be layers of equally many experts", "专家数相同"),
        (moe(1, [[1.0], [1.0, 1.0]]), "layers=[1, 2] must be layers of equally many", "专家数相同"),
        (moe(1, [[-1.0, 3.0]]), "load=[-1.0, 3.0] must be numbers of at least 0", "不小于 0"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, line: str | Line, english: str, chinese: str
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(start())}\n{text}\n{json.dumps(train(2))}\n", encoding="utf-8")
    with pytest.raises(BadDataError) as caught:
        list(read_metrics(path))
    assert caught.value.en.startswith(f"{path}:2: ")
    assert english in caught.value.en
    assert caught.value.zh.startswith(f"{path}:2：")
    assert chinese in caught.value.zh
    assert "\n" not in caught.value.en


def test_fields_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, [start(colour="blue"), train(1), {**held_out(1), "extra": {}}])
    assert load_run(tmp_path).start.parameters == 900


# ---------------------------------------------------------------- what counts


def test_a_resumption_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    lines = [start(), *(train(s, 10.0 + s) for s in range(1, 8)), held_out(5), held_out(7)]
    lines += [moe(4, LOADS), moe(6, LOADS), alarm(6)]
    lines += [start(5, clock=9000.0), train(6, 0.6, 9001.0), train(8, 0.8, 9003.0)]
    run = load_run(write(tmp_path, lines))
    assert run.at.steps.tolist() == [1, 2, 3, 4, 5, 6, 8]
    assert run.columns["loss"].tolist() == [11, 12, 13, 14, 15, 0.6, 0.8]
    assert run.at.seconds.tolist() == [1, 2, 3, 4, 5, 6, 8]  # the pause does not count
    assert run.evals["books"].at.steps.tolist() == [5]
    assert run.experts is not None
    assert run.experts.at.steps.tolist() == [4]
    assert [alarm.step for alarm in run.alarms] == [6]
    assert run.processes == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=6))
def test_what_counts_is_what_a_plain_reading_says(sessions: list[tuple[int, int]]) -> None:
    """Oracle: a dictionary of steps, emptied above each checkpoint."""
    from hunyuan.report.run import Gathered

    gathered = Gathered(Path("x"))
    plain: dict[int, float] = {}
    loss = 0.0
    for at, count in sessions:
        plain = {step: value for step, value in plain.items() if step <= at}
        fields = {key: value for key, value in start(at).items() if key != "kind"}
        gathered.add(Start(**fields))
        for step in range(at + 1, at + 1 + count):
            loss += 1
            plain[step] = loss
            fields = {key: value for key, value in train(step, loss).items() if key != "kind"}
            gathered.add(Train(**fields))
    run = gathered.run(Path("nowhere"))
    found = zip(run.at.steps.tolist(), run.columns["loss"].tolist(), strict=True)
    assert list(found) == sorted(plain.items())


def test_a_step_that_is_logged_twice_counts_as_logged_last(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, [start(), train(1), train(2, 9.0), train(2, 4.0), train(3)]))
    assert run.columns["loss"].tolist() == [3, 4, 3]


def test_final_loss_is_the_mean_of_the_last_tokens(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, [start(), *(train(s, float(s)) for s in range(1, 101))]))
    assert run.final_loss() == np.mean([99, 100])
    assert run.batch_tokens == 100


def test_one_folder_holds_one_run(tmp_path: Path) -> None:
    write(tmp_path, [start(), train(1), moe(1, LOADS), moe(2, [[1.0, 1.0]])])
    with pytest.raises(BadDataError, match=r"'moe' line of step 2 has 1 x 2 .* earlier ones 2 x 4"):
        load_run(tmp_path)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone: does not exist; give the folder of a training"):
        load_run(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"is no training run, it holds no metrics\.jsonl"):
        load_run(tmp_path)
    for lines in ([], [start()]):
        with pytest.raises(EmptyRunError, match="holds no training step yet"):
            load_run(write(tmp_path, lines))
    with pytest.raises(BadDataError, match="step 1 comes before the first 'start' line"):
        load_run(write(tmp_path, [train(1)]))


# ---------------------------------------------------------------- fewer points

numbers = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=0, max_size=400)


@given(numbers, st.integers(1, 40))
def test_thinning_keeps_ends_and_extremes_of_every_bucket(values: list[float], n: int) -> None:
    array = np.array(values, np.float64)
    kept = thin(array, n)
    finite = np.flatnonzero(np.isfinite(array))
    assert len(kept) <= 2 * n + 2
    assert set(kept) <= set(finite)
    assert (np.diff(kept) > 0).all()
    if not len(finite):
        return
    assert kept[0] == finite[0]
    assert kept[-1] == finite[-1]
    for bucket in np.array_split(finite, n):
        if len(bucket):
            inside = array[np.intersect1d(kept, bucket)]
            assert inside.min() == array[bucket].min()
            assert inside.max() == array[bucket].max()


@given(st.integers(0, 120), st.integers(0, 99), st.floats(1, 50))
def test_smoothing_is_the_weighted_mean_that_it_says(n: int, seed: int, window: float) -> None:
    random = np.random.default_rng(seed)
    array = np.where(random.random(n) < 0.1, np.nan, random.normal(0, 1, n))
    found = smooth(array, window)
    widths = np.clip(np.arange(len(array)) / 10, 1, window)
    keep = (widths - 1) / (widths + 1)
    finite = np.isfinite(array)
    for i in range(len(array)):
        weights = [
            finite[j] * math.prod(keep[min(i, j) + 1 : max(i, j) + 1]) for j in range(len(array))
        ]
        if sum(weights) == 0:
            assert np.isnan(found[i])
        else:
            mean = np.average(np.where(finite, array, 0), weights=weights)
            assert found[i] == pytest.approx(mean, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(2**-6, 2**6), min_size=1))
def test_loads_survive_their_code(loads: list[float]) -> None:
    found = heat.decode(heat.encode(np.array(loads)))
    assert np.abs(np.log2(found) - np.log2(loads)).max() <= heat.OCTAVES / 127 / 2 + 1e-9


def test_special_loads_have_their_codes() -> None:
    assert heat.encode(np.array([0, 1, 1e-9, 1e9])).tolist() == [0, 128, 1, 255]
    assert heat.decode(np.array([0, 128], np.uint8)).tolist() == [0, 1]


def test_a_heat_map_column_is_the_mean_of_its_lines(tmp_path: Path) -> None:
    lines = [moe(s, [[2.0, 0.0], [0.0, 2.0]] if s % 2 else [[0.0, 2.0], [2.0, 0.0]]) for s in
             range(1, 49)]  # fmt: skip
    experts = load_run(write(tmp_path, [start(), train(1), *lines])).experts
    assert experts is not None
    found = heat.heat_map(experts, cells=1)
    assert found["columns"] == heat.LEAST_COLUMNS
    assert found["step"] == list(range(4, 49, 4))
    assert found["final"] == [[0.0, 2.0], [2.0, 0.0]]
    import base64

    codes = np.frombuffer(base64.b64decode(found["codes"]), np.uint8)
    assert codes.shape == (2 * 2 * 12,)
    assert set(codes) == {128}


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-9, 123456.789, 3e14])
def test_rounded_numbers(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=1e-4)
    assert rounded(math.nan) is None
    assert json.dumps(rounded(5.0)) == "5"


# ---------------------------------------------------------------- the page


def page_data(html: bytes) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html.decode())
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def unpacked(curves: dict[str, Any], name: str) -> dict[int, float]:
    """A curve of the page as {step: value}."""
    steps = np.cumsum(curves["step"])
    rows = np.cumsum(curves["series"][name]["at"])
    return dict(zip(steps[rows].tolist(), curves["series"][name]["y"], strict=True))


def test_the_page_holds_every_point_of_a_short_run(tmp_path: Path) -> None:
    run = load_run(example(tmp_path / "a"))
    data = page_data(page.report_page([run]))
    (drawn,) = data["runs"]
    losses = unpacked(drawn["train"], "loss")
    assert list(losses) == list(range(1, 61))
    assert losses[60] == pytest.approx(3 + 5 / 60, rel=1e-4)
    assert np.cumsum(drawn["train"]["tenths"]).tolist() == [10 * s for s in range(1, 61)]
    assert list(unpacked(drawn["train"], "accuracy")) == list(range(31, 61))
    assert unpacked(drawn["evals"]["books"], "bits_per_byte")[60] == 1.2
    assert "bits_per_byte" not in drawn["evals"]["code"]["series"]
    assert unpacked(drawn["experts"]["curves"], "dead.mean")[10] == 1
    assert unpacked(drawn["experts"]["curves"], "max_violation.high")[10] == 0.5
    assert "recycled_weight.mean" not in drawn["experts"]["curves"]["series"]
    assert drawn["alarms"][0]["tokens"] == 2000
    assert drawn["recipe"] == "# five\nlayers = 5\n"
    assert drawn["summary"]["evals"]["code"] == {"loss": 3.1, "bits_per_byte": None}


def test_spikes_of_a_long_run_survive_within_the_limit(tmp_path: Path) -> None:
    """A million steps in columns, as they are after reading, with 64 layers of 64 experts."""
    run = load_run(example(tmp_path))
    random = np.random.default_rng(0)
    steps = np.arange(1.0, 1_000_001)
    columns = {name: random.random(len(steps)) for name in run.columns}
    columns["loss"][654_321] = 50.0
    columns["grad_norm"][123_456] = -7.0
    at = replace(run.at, steps=steps, tokens=steps * 4_194_304, seconds=steps * 1.7)
    assert run.experts is not None
    places = np.arange(400)
    experts = replace(
        run.experts,
        layers=tuple(range(64)),
        at=replace(run.at, steps=steps[places], tokens=steps[places], seconds=steps[places]),
        load=random.random((400, 64, 64), np.float32),
        columns={name: random.random((400, 64)) for name in run.experts.columns},
    )
    html = page.report_page([replace(run, at=at, columns=columns, experts=experts)])
    assert len(html) < 2_000_000
    whole = page_data(html)["runs"][0]
    assert unpacked(whole["train"], "loss")[654_322] == 50
    assert unpacked(whole["train"], "grad_norm")[123_457] == -7
    assert whole["window"] == 20_000
    late = [y for step, y in unpacked(whole["smooth"], "loss").items() if step > 10_000]
    assert min(late) > 0.45
    assert max(late) < 0.55
    assert not {"learning_rate", "expert_learning_rate"} & whole["smooth"]["series"].keys()
    # Twelve long runs share the same room.
    short = slice(30_000)
    at = replace(
        run.at, **{axis: getattr(at, axis)[short] for axis in ("steps", "tokens", "seconds")}
    )
    columns = {name: column[short] for name, column in columns.items()}
    many = [
        replace(run, folder=Path(f"r{i}"), at=at, columns=columns, experts=experts)
        for i in range(12)
    ]
    assert len(page.report_page(many)) < 2_000_000


def test_thirteen_runs_are_too_many(tmp_path: Path) -> None:
    run = load_run(example(tmp_path))
    with pytest.raises(UsageError, match="13 runs: one page shows at most 12"):
        page.report_page([replace(run, folder=Path(f"r{i}")) for i in range(13)])


def test_runs_are_told_apart_by_as_many_parents_as_needed(tmp_path: Path) -> None:
    run = load_run(example(tmp_path / "a" / "x"))
    runs = [replace(run, folder=tmp_path / name) for name in ("a/x", "b/x", "b/y")]
    assert page.names(runs) == ["a/x", "b/x", "b/y"]
    assert page.names(runs[1:]) == ["x", "y"]


def test_a_diverged_run_says_so(tmp_path: Path) -> None:
    lines = [start(), train(1), train(2, math.nan), train(3, math.inf)]
    run = load_run(write(tmp_path, lines))
    found = page.summary(run)
    assert found["loss"] is None
    assert found["not_finite"] == {"count": 2, "step": 2}
    assert list(unpacked(page_data(page.report_page([run]))["runs"][0]["train"], "loss")) == [1]


def test_the_middle_of_many_alarms_is_left_out(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, [start(), train(1), *(alarm(s) for s in range(1, 301))]))
    drawn = page_data(page.report_page([run]))["runs"][0]
    steps = [alarm["step"] for alarm in drawn["alarms"]]
    assert steps == [*range(1, 101), *range(201, 301)]
    assert drawn["summary"]["alarms"] == 300


HOSTILE = "</script><img src=x onerror=alert(1)> @STYLE@ \u2028 &amp; <!-- "


def test_nothing_a_log_says_becomes_markup() -> None:
    html = document(HOSTILE, (), {"x": HOSTILE}).decode()
    assert page_data(html.encode()) == {"x": HOSTILE}
    assert html.count("</script") == 2
    assert "<img" not in html
    assert "&lt;/script>" in html
    assert "\u2028" not in inert_json({"x": HOSTILE})


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    html = page.report_page([load_run(example(tmp_path))]).decode()
    outside = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", html)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(?:fetch|import|XMLHttpRequest|WebSocket|eval)\s*\(", html)
    assert "default-src 'none'" in html


def test_both_languages_have_every_text_that_is_asked_for() -> None:
    english, chinese = (
        dict(re.findall(r"(\w+): (\".*?\")[,\n]", block))
        for block in re.findall(r"^  (?:en|zh): \{\n(.*?)^  \},", static("texts.js"), re.M | re.S)
    )
    assert english.keys() == chinese.keys()
    assert len(english) > 80
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key
    scripts = "".join(static(n) for n in ("element.js", "chart.js", "heat.js", "run.js"))
    scripts += static("scaling.js")
    asked = set(re.findall(r"say\(\"(\w+)\"", scripts))
    assert asked <= english.keys()
    # What nothing mentions is never shown, but for levels of alarms and scalars of tasks.
    mentioned = set(re.findall(r"\"(\w+)\"", scripts))
    assert english.keys() - mentioned <= {"warning", "stop", "margin"}


# ---------------------------------------------------------------- the command


def test_the_command_writes_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    one, two = example(tmp_path / "one"), example(tmp_path / "two", 0.5)
    assert hunyuan(["report", str(one)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0] == "one: 60 steps, 6,000 tokens, training loss 3.084, books 3.5, code 3.1, 1 alarm"
    )
    assert out[1].startswith(f"{one}/report.html (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUNYUAN_LANG", "zh")
    assert hunyuan(["report", str(one), str(two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == ("two：60 步，6,000 个词元，训练损失 3.584，books 3.5，code 3.1，1 条警报")
    assert (tmp_path / "report.html").is_file()
    assert hunyuan(["report", str(one), "--json", "-o", "x/y.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"]["one"]["loss"] == pytest.approx(3.084, abs=1e-3)
    assert found["bytes"] == (tmp_path / "x" / "y.html").stat().st_size


@pytest.mark.parametrize(
    ("lines", "code", "says"),
    [
        (None, 2, "is no training run"),
        ([start()], 4, "holds no training step yet"),
        ([start(), {"kind": "train"}], 4, "metrics.jsonl:2: field step is missing"),
    ],
)
def test_the_command_fails_in_one_line(
    lines: list[Line] | None,
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    if lines is not None:
        write(tmp_path, lines)
    assert hunyuan(["report", str(tmp_path)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    run = example(tmp_path / "one")
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(HunyuanError):
        cli.main(["report", str(run), "-o", str(target / "x.html")], standalone_mode=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "one"]


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page is not looked at")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


def opened(browser: Any, html: Path, width: int = 1000, locale: str = "en-US") -> Any:
    """A page from a file; ``complaints`` gathers what the console and the network say."""
    context = browser.new_context(locale=locale, viewport={"width": width, "height": 900})
    context.set_default_timeout(5000)
    tab = context.new_page()
    tab.complaints = []
    tab.on("console", lambda m: tab.complaints.append(m.text))
    tab.on("pageerror", lambda e: tab.complaints.append(str(e)))
    tab.on("dialog", lambda d: tab.complaints.append(d.message) or d.dismiss())
    tab.on("request", lambda r: r.url.startswith("file:") or tab.complaints.append(r.url))
    tab.goto(html.as_uri())
    tab.wait_for_selector("svg.plot .axis-line", state="attached")
    return tab


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    runs = [load_run(example(folder / name, i / 2)) for i, name in enumerate(("ash", "birch"))]
    target = folder / "report.html"
    target.write_bytes(page.report_page(runs))
    return target


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1920])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_page_opens_without_complaint_at_any_width(
    browser: Any, html: Path, width: int, locale: str
) -> None:
    tab = opened(browser, html, width, locale)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator("html").get_attribute("lang") == locale[:2] + ("-CN" * (locale == "zh-CN"))
    chinese = locale == "zh-CN"
    assert tab.inner_text(".kind") == ("训练报告" if chinese else "Training report")
    assert tab.inner_text("#alarms li div >> nth=0") == "ash: " + (
        "变大了" if chinese else "it grew"
    )
    tab.click(".tongue")
    assert tab.inner_text(".kind") == ("Training report" if chinese else "训练报告")
    assert tab.locator("figure").count() > 15
    assert tab.complaints == []
    tab.context.close()


@pytest.mark.browser
def test_curves_are_drawn_where_the_numbers_say(browser: Any, html: Path) -> None:
    """The loss is read back by pointing at it, over each of the three axes."""
    tab = opened(browser, html)
    plot = tab.locator("#loss svg.plot")
    for axis, expected in enumerate(["step 60", "6K tokens", "1 min"]):
        tab.locator("#loss .switch").nth(1).locator("button").nth(axis).click()
        plot.scroll_into_view_if_needed()
        time.sleep(0.1)
        box = plot.bounding_box()
        tab.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
        tip = tab.inner_text("#loss .tip")
        assert expected in tip.splitlines()[0]
        assert "3.083" in tip  # 3 + 5 / 60
        assert "3.583" in tip
        assert "3.5" in tip
    tab.locator("#loss .legend button", has_text="birch").click()
    plot.focus()
    tab.keyboard.press("ArrowRight")
    tip = tab.inner_text("#loss .tip")
    assert tip.startswith("step 1 ")
    assert "8" in tip
    assert "birch" not in tip
    assert tab.complaints == []
    tab.context.close()


GEOMETRY = """() => {
  const plot = document.querySelector('#loss svg.plot');
  const labels = (anchor) => [...plot.querySelectorAll(`text[text-anchor=${anchor}]`)];
  const lines = [...plot.querySelectorAll('.grid-line')];
  return [
    labels('middle').map((t) => [Number(t.textContent), Number(t.getAttribute('x'))]),
    labels('end').map((t, i) => [Number(t.textContent), Number(lines[i].getAttribute('y1'))]),
    [...plot.querySelectorAll('path.curve')].at(-1).getAttribute('d'),
  ];
}"""


@pytest.mark.browser
@pytest.mark.parametrize("log", [True, False])
def test_curves_lie_where_the_axes_say(browser: Any, html: Path, log: bool) -> None:
    """What is drawn, measured with the labels of the axes as a ruler, is what was logged."""
    tab = opened(browser, html)
    tab.locator("#loss .switch").nth(0).locator("button").nth(0 if log else 1).click()
    tab.wait_for_selector("#loss svg.plot path.curve", state="attached")
    across, up, path = tab.evaluate(GEOMETRY)
    drawn = np.array([point.split(",") for point in re.split("[ML]", path)[1:]], np.float64)
    # The last label is moved inwards to stay inside the picture.
    steps, x = np.array(across[:-1]).T
    values, y = np.array(up).T
    found_steps = np.polyval(np.polyfit(x, steps, 1), drawn[:, 0])
    found = np.polyval(np.polyfit(y, np.log(values) if log else values, 1), drawn[:, 1])
    expected = 3.5 + 5 / np.arange(1, 61)
    assert found_steps == pytest.approx(np.arange(1, 61), abs=0.2)
    assert (np.exp(found) if log else found) == pytest.approx(expected, rel=0.01)
    assert tab.complaints == []
    tab.context.close()


@pytest.mark.browser
def test_heat_maps_tell_their_cells(browser: Any, html: Path) -> None:
    tab = opened(browser, html)
    final = tab.locator(".final canvas")
    final.scroll_into_view_if_needed()
    box = final.bounding_box()
    for row, column, text in ((0, 1, "layer 0, expert 1\n1.5×"), (0, 2, "no tokens"),
                              (1, 0, "layer 1, expert 0\n0.5×")):  # fmt: skip
        x, y = box["width"] * (column + 0.5) / 4, box["height"] * (row + 0.5) / 2
        tab.mouse.move(box["x"] + x, box["y"] + y)
        assert text in re.sub(r"\n+", "\n", tab.inner_text(".final .tip"))
    pixels = "[...document.querySelector('.final canvas').getContext('2d')"
    bytes_ = tab.evaluate(pixels + ".getImageData(0, 0, 4, 2).data]")
    even, above, below, dead = (bytes_[4 * i : 4 * i + 3] for i in (0, 1, 4, 2))
    assert above[0] > above[2] + 40  # orange
    assert below[2] > below[0] + 40  # blue
    assert max(even) - min(even) < 20
    assert max(dead) < 40
    over_time = tab.locator(".maps canvas").nth(1)
    over_time.hover(position={"x": 2, "y": 1})
    tip = tab.inner_text(".maps figure:nth-child(2) .tip")
    assert "layer 1, expert 0 · step 10" in tip
    assert "0.503×" in tip  # the code nearest to a half
    assert tab.complaints == []
    tab.context.close()


@pytest.mark.browser
def test_hostile_and_tiny_runs_are_only_text(browser: Any, tmp_path: Path) -> None:
    lines = [start(command=HOSTILE, config={}), train(1, math.nan), alarm(1, "stop", HOSTILE)]
    folder = write(tmp_path / "a <b> run", lines)
    (folder / "recipe.toml").write_text(HOSTILE, encoding="utf-8")
    target = tmp_path / "x.html"
    target.write_bytes(page.report_page([load_run(folder)]))
    tab = opened(browser, target)
    assert tab.inner_text("h1") == "a <b> run"
    assert HOSTILE.split()[0] in tab.inner_text("#alarms")
    assert "no number" in tab.inner_text(".figures")
    assert tab.locator("img").count() == 0
    assert tab.complaints == []
    tab.context.close()
