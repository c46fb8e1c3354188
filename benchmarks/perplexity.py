"""What quantising costs: perplexity of our types, and of llama.cpp's quantiser at equal size.

    python benchmarks/perplexity.py smollm2-135m-instruct \\
        --wikitext test.txt --calibration valid.txt

WikiText-2's test text in windows of 512 tokens, every model through this project's own kernels, so
that only the weights differ. The float model is the pulled GGUF in float32 with its channels
shuffled: published files are quantised already, and their values lie on the very grid of blocks of
32 columns that is being measured. Shuffling the hidden channels, the inner channels of every MLP
and the value channels of every head changes no output and no value, only which columns share a
block; the function is checked to be the same.

llama.cpp (through llama-cpp-python of another environment, ``--llama PYTHON``) quantises the same
float file: once with its own mix of types, once with ours; and this project's quantiser also
writes llama.cpp's mix. Equal types are equal bits, and neither side has seen a text then: ours
weights errors by what random tokens make of the model, as `hunyuan convert` does. Writes
benchmarks/results/perplexity-MODEL.json.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import exp
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, provenance
from torch import Tensor

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.calibrate import importance
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import load_packed, tokenizer_of
from hunyuan.checkpoint.quantize import block_types, read_quantized
from hunyuan.checkpoint.write import StoredType, write_gguf_file
from hunyuan.engine.cache import PagedCache
from hunyuan.formats.gguf import GGMLType
from hunyuan.native.library import BLOCK_TOKENS
from hunyuan.native.transformer import NativeTransformer
from hunyuan.tokenizer.gguf_export import gguf_metadata

WINDOW = 512
LLAMA = Path(__file__).parent / ".venvs/llama-default/bin/python"


# ---------------------------------------------------------------- perplexity


class _OneSequence:
    """A paged cache in which one sequence has all the blocks, in order."""

    def __init__(self, cache: PagedCache, tokens: int) -> None:
        self.k, self.v, self.k_scale, self.v_scale = cache.k, cache.v, None, None
        self.counts = torch.tensor([tokens], dtype=torch.int32)
        self.tables = torch.arange(cache.k.shape[1], dtype=torch.int32)[None]


def window_losses(model: NativeTransformer, windows: Tensor) -> Tensor:
    """Ids (windows, T) -> mean negative log-likelihood (windows,) of tokens 1 to T-1, float64."""
    count = windows.shape[1]
    view = _OneSequence(PagedCache(model.config, count // BLOCK_TOKENS, torch.float32), count)
    positions, wanted = torch.arange(count), torch.arange(count, dtype=torch.int32)
    losses = []
    for ids in windows:
        logits = model.step_logits(ids.contiguous(), positions, view, wanted)
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).double())
    return torch.stack(losses)


def measure(path: Path, windows: Tensor, baseline: Tensor | None) -> tuple[dict[str, Any], Tensor]:
    """Perplexity and size of one file, beside the float losses."""
    begin = time.monotonic()
    losses = window_losses(load_packed(path), windows)
    checkpoint = open_checkpoint(path)
    assert checkpoint.gguf is not None
    stored = [t for t in checkpoint.gguf.tensors.values()]
    bits = 8 * sum(t.nbytes for t in stored) / checkpoint.config.total_parameters
    result: dict[str, Any] = {
        "perplexity": exp(float(losses.mean())),
        "bits_per_weight": round(bits, 4),
        "types": dict(Counter(t.type.name for t in stored)),
        "seconds": round(time.monotonic() - begin, 1),
    }
    if baseline is not None:
        difference = losses - baseline
        result["increase_percent"] = 100 * (exp(float(difference.mean())) - 1)
        # of the increase, over windows: the same text on both sides
        result["standard_error_percent"] = 100 * float(difference.std()) / len(losses) ** 0.5
    return result, losses


# ---------------------------------------------------------------- the float model


def shuffled(checkpoint: Checkpoint) -> Callable[[str], Tensor]:
    """Reads leaves of the same function with shuffled channels, float32."""
    config = checkpoint.config
    generator = torch.Generator().manual_seed(0)

    def order(size: int) -> Tensor:
        return torch.randperm(size, generator=generator)

    hidden = order(config.hidden)
    inner: dict[str, Tensor] = {}
    value = [order(config.head_dim) for _ in range(config.layers)]

    def of_heads(layer: int, heads: int) -> Tensor:
        within = value[layer - layer % config.cla_share]  # of the layer that owns V
        return (torch.arange(heads)[:, None] * config.head_dim + within).flatten()

    def read(leaf: str) -> Tensor:
        x = checkpoint.read(leaf)
        if leaf in ("model.embed_tokens.weight", "lm_head.weight"):
            return x[:, hidden]
        if "query_layernorm" in leaf or "key_layernorm" in leaf:
            return x
        if "norm" in leaf or leaf.endswith("o_proj.bias"):
            return x[hidden]
        layer = int(leaf.split(".")[2])
        if ".v_proj." in leaf:
            x = x[of_heads(layer, config.kv_heads)]
        if leaf.endswith(".bias"):
            return x
        if ".o_proj." in leaf:
            return x[hidden][:, of_heads(layer, config.heads)]
        mlp = leaf.rsplit(".", 2)[0]
        if ".down_proj." in leaf:
            return x[hidden][:, inner.setdefault(mlp, order(x.shape[1]))]
        x = x[:, hidden]
        if ".gate_proj." in leaf or ".up_proj." in leaf:
            return x[inner.setdefault(mlp, order(x.shape[0]))]
        return x

    return read


def write_float(checkpoint: Checkpoint, path: Path) -> None:
    """The float32 file that everything starts from."""
    read = shuffled(checkpoint)
    types: dict[str, StoredType] = dict.fromkeys(leaves(checkpoint.config), torch.float32)
    tokenizer = gguf_metadata(tokenizer_of(checkpoint), rows=checkpoint.config.vocab)
    with path.open("wb") as file:
        write_gguf_file(file, checkpoint.config, types, lambda leaf, _: read(leaf), tokenizer)


# ---------------------------------------------------------------- quantised files


def write_ours(
    source: Path,
    path: Path,
    blocks: Mapping[str, GGMLType],
    weights: Mapping[str, Tensor] | None = None,
) -> float:
    """Quantise a float file with this project's quantiser to given types; seconds."""
    checkpoint = open_checkpoint(source)
    types: dict[str, StoredType] = dict.fromkeys(leaves(checkpoint.config), torch.float32)
    types |= blocks

    def read(leaf: str, kind: StoredType) -> Tensor:
        if isinstance(kind, GGMLType):
            return read_quantized(checkpoint, leaf, kind, (weights or {}).get(leaf))
        return checkpoint.read(leaf)

    begin = time.monotonic()
    with path.open("wb") as file:
        write_gguf_file(file, checkpoint.config, types, read, {})
    return time.monotonic() - begin


_QUANTISE = """
import ctypes, json, sys, llama_cpp
from llama_cpp import llama_cpp as llama
source, target, name, types = sys.argv[1:]
params = llama.llama_model_quantize_default_params()
params.ftype, params.nthread = getattr(llama, "LLAMA_FTYPE_MOSTLY_" + name), 2
types = json.loads(types)
rows = [(f"^{tensor}$".encode(), kind) for tensor, kind in types.items()] + [(None, 0)]
array = (llama.llama_model_tensor_override * len(rows))(*rows)
if types:
    params.tt_overrides = array
    params.token_embedding_type = types["token_embd.weight"]
    params.output_tensor_type = types.get("output.weight", types["token_embd.weight"])
failed = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
print(json.dumps({"version": llama_cpp.__version__, "failed": failed}))
"""


def write_llama(
    python: Path, source: Path, path: Path, name: str, types: Mapping[str, GGMLType] | None = None
) -> str:
    """Quantise a float file with llama.cpp: its type ``name``, or the given types; its version."""
    command = [str(python), "-c", _QUANTISE, str(source), str(path), name]
    command.append(json.dumps({tensor: int(kind) for tensor, kind in (types or {}).items()}))
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(run.stdout.strip().split("\n")[-1])
    assert answer["failed"] == 0, run.stderr[-2000:]
    return str(answer["version"])


def stored_types(path: Path) -> dict[str, GGMLType]:
    """Leaf -> type, of the quantised leaves of a GGUF file."""
    checkpoint = open_checkpoint(path)
    types = {leaf: checkpoint.stored_type(leaf) for leaf in checkpoint.pieces}
    return {leaf: kind for leaf, kind in types.items() if kind is not GGMLType.F32}


# ---------------------------------------------------------------- all of it


def run(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Every variant of one model."""
    original = open_checkpoint(locate(name))
    config = original.config
    source = scratch / "float.gguf"
    write_float(original, source)
    ids = torch.tensor(tokenizer_of(original).encode(options.wikitext.read_text(encoding="utf-8")))
    available = len(ids) // WINDOW
    count = min(available, options.windows or available)
    windows = ids[: count * WINDOW].view(count, WINDOW)

    plain = scratch / "plain.gguf"  # the same float weights, not shuffled
    with plain.open("wb") as file:
        types: dict[str, StoredType] = dict.fromkeys(leaves(config), torch.float32)
        write_gguf_file(file, config, types, lambda leaf, _: original.read(leaf), {})
    first = windows[:2]
    before = window_losses(load_packed(plain), first)
    after = window_losses(load_packed(source), first)
    plain.unlink()
    unchanged = float((before - after).abs().max())
    assert unchanged < 1e-4, unchanged

    result: dict[str, Any] = {"windows": count, "of": available, "tokens": count * (WINDOW - 1)}
    result["shuffling_changes_loss_by"] = unchanged
    variants: dict[str, dict[str, Any]] = {}
    variants["float32"], baseline = measure(source, windows, None)

    def add(label: str, path: Path, **facts: Any) -> None:
        variants[label] = measure(path, windows, baseline)[0] | facts
        print(f"{name} {label}: {json.dumps(variants[label])}", flush=True)
        path.unlink()

    print(f"{name} float32: {json.dumps(variants['float32'])}", flush=True)
    made = scratch / "made.gguf"
    seconds = write_ours(source, made, block_types(config, "q8"))
    add("ours q8", made, quantising_seconds=round(seconds, 1))
    floats, wanted = open_checkpoint(source), block_types(config, "q4")
    write_ours(source, made, wanted)
    add("ours q4, unweighted", made)
    begin = time.monotonic()
    random = importance(floats, "q4", None)
    calibrating = time.monotonic() - begin
    seconds = write_ours(source, made, wanted, random)
    facts = {"calibrating_seconds": round(calibrating, 1), "quantising_seconds": round(seconds, 1)}
    add("ours q4", made, **facts)
    write_ours(source, made, wanted, importance(floats, "q4", options.calibration))
    add("ours q4, calibrated", made)
    if options.llama.exists():
        result["llama-cpp-python"] = write_llama(options.llama, source, made, "Q8_0")
        add("llama.cpp Q8_0", made)
        ours = {floats.pieces[leaf].name: kind for leaf, kind in wanted.items()}
        write_llama(options.llama, source, made, "Q4_K_S", ours)
        if stored_types(made) == wanted:
            add("llama.cpp, types of ours q4", made)
        write_llama(options.llama, source, made, "Q4_K_M")
        mix = stored_types(made)
        add("llama.cpp Q4_K_M", made)
        write_ours(source, made, mix, random)
        add("ours, types of llama.cpp Q4_K_M", made)
    result["variants"] = variants
    return result


def main() -> None:
    """Run the comparison for each model named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--wikitext", type=Path, required=True, help="WikiText-2's test.txt")
    parser.add_argument("--calibration", type=Path, required=True, help="another text")
    parser.add_argument("--windows", type=int, help="only the first N windows of 512 tokens")
    parser.add_argument("--llama", type=Path, default=LLAMA, help="a Python with llama-cpp-python")
    options = parser.parse_args()
    for name in options.models:
        with tempfile.TemporaryDirectory(prefix="perplexity-") as scratch:
            measured = run(name, options, Path(scratch))
        result = {
            "model": name,
            **provenance(),
            "caveat": "the weights were quantised once already by their publisher "
            f"({locate(name).name}); the float model here is what that left",
            **measured,
        }
        path = RESULTS / f"perplexity-{name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
