"""The tokenizer of a model, whatever form the model comes in."""

from pathlib import Path

from hunyuan.errors import BadDataError
from hunyuan.formats.gguf import read_gguf
from hunyuan.tokenizer.gguf_vocabulary import from_gguf_metadata
from hunyuan.tokenizer.hugging_face import from_folder
from hunyuan.tokenizer.hunyuan_large import from_ranks
from hunyuan.tokenizer.tokenizer import Tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file or of a folder (tokenizer.json, or one ``*.tiktoken`` file).

    Raises `BadDataError` naming the file and what to do.
    """
    if path.is_file():
        return from_gguf_metadata(read_gguf(path).metadata)
    ranks = sorted(path.glob("*.tiktoken"))
    if (path / "tokenizer.json").is_file() or not ranks:
        return from_folder(path)
    if len(ranks) > 1:
        names = ", ".join(file.name for file in ranks)
        raise BadDataError(
            f"{path}: has several rank files ({names}); leave only the model's own",
            f"{path}：有多个词表文件（{names}）；请只保留该模型自己的文件",
        )
    return from_ranks(path, ranks[0])
