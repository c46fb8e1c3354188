"""``python -m hunyuan`` is the ``hunyuan`` command."""

from hunyuan.cli.main import main

main()
