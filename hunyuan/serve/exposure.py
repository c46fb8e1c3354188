"""What a server on an open address tells the person who starts it, and the key it needs."""

import secrets

from hunyuan.serve.guard import LOOPBACK


def new_key() -> str:
    """A key nobody guesses."""
    return secrets.token_urlsafe(32)


def notices(address: str, *, generated_key: str | None, encrypted: bool) -> list[tuple[str, str]]:
    """Sentences in English and Chinese on what is exposed; none on this machine alone."""
    if address in LOOPBACK:
        return []
    said = [
        (
            f"listening on {address}: other machines reach the page, the API, and the conversations"
            " and documents kept here; every request but the empty page and /health needs the key",
            f"监听 {address}：其他机器可以访问网页、API 以及此处保存的对话与文档；"
            "除空白网页与 /health 外，所有请求都需要密钥",
        )
    ]
    if generated_key is not None:
        said.append(
            (
                f"API key, shown once: {generated_key}  (set HUNYUAN_API_KEY to choose your own)",
                f"API 密钥（仅显示一次）：{generated_key}  （可用 HUNYUAN_API_KEY 自行指定）",
            )
        )
    if not encrypted:
        said.append(
            (
                "warning: without TLS the key and every text can be read on the way; use --tls-cert"
                " and --tls-key, or a reverse proxy with TLS",
                "警告：未启用 TLS，密钥与全部文本在传输途中可被读取；请使用 --tls-cert 与 "
                "--tls-key，或带 TLS 的反向代理",
            )
        )
    return said
