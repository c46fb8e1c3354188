"""The command line as a process: outputs, exit codes, one line per error."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import write_random_checkpoint

from hunyuan.cli.main import VERBS
from hunyuan.cli.progress import ProgressLine
from hunyuan.model.config import preset


def hunyuan(*arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "HUNYUAN"))}
    return subprocess.run(
        [sys.executable, "-m", "hunyuan", *arguments],
        capture_output=True,
        text=True,
        input=text,
        check=False,
        env=clean | {"HUNYUAN_LANG": "en"} | environment,
        timeout=120,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Hunyuan-shaped checkpoint with a byte tokenizer."""
    config = replace(preset("tiny"), vocab=259)
    return write_random_checkpoint(tmp_path_factory.mktemp("model"), config)


def failed(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    lines = [s for s in done.stderr.strip().splitlines() if not s.startswith("note: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    done = hunyuan("--help")
    assert done.returncode == 0
    for verb, text in VERBS.items():
        assert f"{verb} " in done.stdout
        assert text in done.stdout
    program = (
        "import sys\n"
        "from hunyuan.cli.main import run\n"
        "code = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'transformers', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    done = hunyuan(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: hunyuan {verb}")


def test_generate_prints_one_json_object(model: Path) -> None:
    arguments = [
        "generate",
        str(model),
        "Hello",
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--json",
    ]
    first, second = hunyuan(*arguments), hunyuan(*arguments)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert set(result) >= {"text", "tokens", "finish_reason", "timings"}
    assert len(result["tokens"]) <= 8
    assert result["finish_reason"] in ("length", "stop")
    assert result["prompt_tokens"] == 5
    assert json.loads(second.stdout)["tokens"] == result["tokens"]


def test_generate_streams_plain_text(model: Path) -> None:
    settings = ["--max-tokens", "8", "--temperature", "0"]
    plain = hunyuan("generate", str(model), "Hello", *settings)
    as_json = json.loads(
        hunyuan("generate", str(model), "-", *settings, "--json", text="Hello").stdout
    )
    assert plain.stdout == as_json["text"] + "\n"
    chat = hunyuan("generate", str(model), "Hello", "--chat", "--json", *settings)
    assert json.loads(chat.stdout)["prompt_tokens"] > 5


def test_what_torch_must_compute_is_said_once(model: Path) -> None:
    """The kernels need heads of a multiple of 16; ``auto`` goes on without them."""
    done = hunyuan("generate", str(model), "x", "--max-tokens", "3", "--temperature", "0")
    assert done.returncode == 0
    assert done.stderr.count("head_dim=8 is no multiple of 16; torch computes instead") == 1
    quiet = hunyuan("generate", str(model), "x", "--max-tokens", "3", "--dtype", "float32")
    assert "note" not in quiet.stderr


def test_info_of_presets_and_folders(model: Path) -> None:
    large = json.loads(hunyuan("info", "large", "--json").stdout)
    assert large["parameters"] == 388_698_128_640
    assert large["active_parameters"] == pytest.approx(52.1e9, rel=1e-3)
    assert large["kv_bytes_per_token"] == 81_920
    assert large["kv_share_of_mha"] == 0.05
    assert large["memory"]["bfloat16"] == 2 * large["parameters"]
    own = json.loads(hunyuan("info", str(model), "--json").stdout)
    assert own["family"] == "hunyuan"
    assert own["parameters"] == replace(preset("tiny"), vocab=259).total_parameters
    assert "5.0%" in hunyuan("info", "large").stdout


def test_convert_and_verify(model: Path, tmp_path: Path) -> None:
    done = hunyuan("convert", str(model), str(tmp_path / "out"), "--verify", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verify"]["max_difference"] == 0
    again = hunyuan("generate", str(tmp_path / "out"), "Hi", "--max-tokens", "2")
    assert again.returncode == 0, again.stderr


def test_list_knows_the_catalogue(tmp_path: Path) -> None:
    done = hunyuan("list", "--json", HUNYUAN_HOME=str(tmp_path))
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["qwen2.5-coder-0.5b-instruct"]["default"]
    assert rows["smollm2-135m-instruct"]["path"] is None
    assert "hunyuan-large-instruct" in rows


def test_doctor_reports_and_checks() -> None:
    done = hunyuan("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["checks"] == {"model": None, "store": None}
    assert facts["torch"] == torch.__version__


def test_chat_answers_in_the_terminal(model: Path) -> None:
    said = "hello\n/new\n/what\nhello\n/exit\n"
    done = hunyuan("chat", str(model), "--max-tokens", "4", "--seed", "1", text=said)
    assert done.returncode == 0, done.stderr
    assert "[new conversation]" in done.stdout
    assert "unknown command /what" in done.stdout
    answers = [part.split("\n")[0] for part in done.stdout.split("you> ")[1:]]
    assert answers[0] == answers[3] != ""


# ---------------------------------------------------------------- errors


def test_wrong_usage_is_code_2(model: Path) -> None:
    failed(hunyuan("genrate"), 2, "did you mean 'generate'?")
    failed(hunyuan("generate"), 2, "MODEL")
    failed(hunyuan("generate", str(model), "x", "--temprature", "1"), 2, "--temperature")
    failed(hunyuan("generate", str(model), "x", "--temperature", "9"), 2, "temperature=9.0")
    failed(hunyuan("generate", str(model), "x", "--dtype", "int3"), 2, "int3", "stored", "bfloat16")
    failed(hunyuan("generate", str(model), "x", "--kv-dtype", "int4"), 2, "kv_dtype='int4'", "int8")
    failed(hunyuan("generate", str(model), "x", "--dtype", "stored"), 2, "head_dim=8", "float32")
    failed(hunyuan("generate", "no-such-model", "x"), 2, "no-such-model")
    failed(hunyuan("convert", str(model), str(model)), 2, "exists already")


def test_no_verb_shows_the_help() -> None:
    done = hunyuan()
    assert done.returncode == 2
    assert done.stdout.startswith("Usage: hunyuan")
    assert "pull  " in done.stdout


def test_what_does_not_fit_is_code_3(model: Path) -> None:
    failed(hunyuan("generate", str(model), "x" * 600), 3, "600", "512")
    failed(hunyuan("generate", str(model), "x", "--context", "9999"), 3, "9999", "512")


def test_bad_data_is_code_4(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    failed(hunyuan("info", str(tmp_path / "x.gguf")), 4, "x.gguf")
    (tmp_path / "m").mkdir()
    failed(hunyuan("generate", str(tmp_path / "m"), "x"), 4, "config.json")
    failed(hunyuan("convert", str(model), str(tmp_path / "y.gguf")), 4, "cla_share=2")
    assert not (tmp_path / "y.gguf").exists()


def test_traceback_shows_the_rest(tmp_path: Path) -> None:
    for arguments in (
        ["--traceback", "info", str(tmp_path)],
        ["info", str(tmp_path), "--traceback"],
    ):
        done = hunyuan(*arguments)
        assert done.returncode == 4
        assert "Traceback (most recent call last)" in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_errors_in_chinese(tmp_path: Path) -> None:
    for setting in ({"HUNYUAN_LANG": "zh"}, {"HUNYUAN_LANG": "", "LANG": "zh_CN.UTF-8"}):
        done = hunyuan("info", str(tmp_path), **setting)
        assert done.stderr.startswith("错误: ")
        assert "文件不存在" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m hunyuan info large | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_progress_is_silent_for_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine("loading")
    for done in range(11):
        line.update(done, 10)
    line.close()
    assert capsys.readouterr().err == ""


def test_progress_in_a_log_is_a_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine("loading", quiet_seconds=-1)
    for done in range(1, 1001):
        line.update(done * 1000, 1_000_000)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("loading:  10 %  100.0 kB of 1.0 MB")
