"""LangChain's own integration suites against a server; `run.py` runs this in an environment of its
own and says where the server is.
"""

import os
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
)

BASE_URL = os.environ["SUITE_BASE_URL"]


class TestChat(ChatModelIntegrationTests):
    """Chat completions, and what LangChain builds on them."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": os.environ["SUITE_MODEL"],
            "base_url": BASE_URL,
            "api_key": os.environ.get("SUITE_API_KEY", "none"),
            "max_retries": 0,
            "stream_usage": True,
            "use_responses_api": os.environ.get("SUITE_API") == "responses",
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False  # one model is served


class TestEmbeddings(EmbeddingsIntegrationTests):
    """Embeddings."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            "model": os.environ["SUITE_EMBEDDINGS"],
            "base_url": BASE_URL,
            "api_key": os.environ.get("SUITE_API_KEY", "none"),
            # Otherwise it sends the token ids of OpenAI's own vocabulary.
            "check_embedding_ctx_length": False,
        }
