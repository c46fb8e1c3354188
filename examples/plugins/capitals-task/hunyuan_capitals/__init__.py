"""A benchmark for `hunyuan eval`: suites.toml names it, capitals.yaml is the harness's task."""
