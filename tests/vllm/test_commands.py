"""``hunyuan serve --engine vllm`` up to the start of vLLM: commands, checks, refusals."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from asking import make_large
from click.testing import CliRunner, Result

from hunyuan.cli.serve import serve
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.model.config import preset
from hunyuan.serve.vllm_process import check_layout, check_plugin, find_vllm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large(tmp_path_factory.mktemp("commands") / "tiny-large", layers=6)


def run(*words: Any) -> Result:
    result = CliRunner().invoke(serve, [str(word) for word in words])
    if isinstance(result.exception, HunyuanError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def printed(model: Path, *words: Any) -> list[str]:
    result = run(model, "--engine", "vllm", "--print-command", *words)
    return [line for line in result.stdout.splitlines() if not line.startswith("#")]


def test_the_command_of_one_machine(model: Path) -> None:
    (line,) = printed(model, "--context", 4096, "--port", 9001, "--vllm-option", "--seed 3")
    words = shlex.split(line)
    start = words.index("vllm")
    environment = dict(word.split("=", 1) for word in words[:start])
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_HOST_IP"] == "127.0.0.1"
    assert words[start : start + 3] == ["vllm", "serve", str(model)]
    options = words[start:]

    def value(name: str) -> str:
        return options[options.index(name) + 1]

    assert value("--served-model-name") == "tiny-large"
    assert (value("--host"), value("--port")) == ("127.0.0.1", "9001")
    assert value("--max-model-len") == "4096"
    assert value("--allowed-origins") == "[]"
    assert "--enable-prefix-caching" in options
    assert options[-2:] == ["--seed", "3"]
    assert "--max-num-seqs" not in options  # the default of --parallel is a laptop's
    assert "--max-num-seqs 9" in printed(model, "--parallel", 9)[0]


def test_the_commands_of_many_machines(model: Path) -> None:
    layout = ("--nodes", 3, "--tensor-parallel", 2, "--pipeline-parallel", 2)
    head, *others, last = printed(model, *layout)
    assert "ray start --head" in head
    assert len(others) == 2
    assert all("ray start --address=HEAD_ADDRESS:6379" in line for line in others)
    assert "--distributed-executor-backend ray" in last
    assert "VLLM_HOST_IP" not in last
    # Three groups of two layers on two stages: every process must know where the cut is.
    assert all("VLLM_PP_LAYER_PARTITION=4,2" in line for line in (head, *others, last))


def test_a_key_is_on_no_command_line(model: Path) -> None:
    result = run(
        model, "--engine", "vllm", "--print-command", "--api-key", "sesame", "--host", "0.0.0.0"
    )
    assert "sesame" not in result.output


def test_layouts_of_the_real_shape() -> None:
    large = preset("large")
    for tensor, pipeline in ((1, 1), (8, 1), (8, 2), (16, 8), (2, 32)):
        assert check_layout(large, tensor, pipeline) is None
    partition = check_layout(large, 8, 3)
    assert partition is not None
    assert (sum(partition), {count % 2 for count in partition}) == (64, {0})
    with pytest.raises(UsageError, match="nearest that does: 8"):
        check_layout(large, 7, 1)
    with pytest.raises(UsageError, match="32 or fewer"):
        check_layout(large, 1, 33)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tensor-parallel", 3], "the nearest that does: 2"),
        (["--pipeline-parallel", 4], "take 3 or fewer"),
        (["--kv-dtype", "int8"], "use auto, bfloat16"),
        (["--memory", "2G"], "takes a MODEL, and not"),
        (["--vllm", "/nowhere/vllm"], "no such command"),
    ],
)
def test_what_cannot_work_is_refused(model: Path, words: list[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(model, "--engine", "vllm", *words)


def test_options_of_vllm_want_vllm(model: Path) -> None:
    for words in (["--nodes", 2], ["--vllm-only"], ["--vllm", "x"], ["--print-command"]):
        with pytest.raises(UsageError, match=f"{words[0]} is for vLLM"):
            run(model, *words)


def test_missing_vllm_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="pip install 'hunyuan") as caught:
        find_vllm(None)
    assert "hunyuan[vllm]" in caught.value.zh


def test_an_environment_without_the_plugin_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(UsageError, match="install --no-deps hunyuan"):
        check_plugin(str(tmp_path / "vllm"))


def test_quantised_forms_of_ours_are_refused(model: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    blocks = tmp_path / "blocks"
    blocks.mkdir()
    raw = json.loads((model / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "hunyuan-blocks", "types": {}}
    (blocks / "config.json").write_text(json.dumps(raw))
    for path in (gguf, blocks):
        with pytest.raises(UsageError, match="hunyuan convert"):
            run(path, "--engine", "vllm", "--print-command")
