"""Hunyuan-Large inside vLLM: its configuration and its model, by vLLM's own parallel layers.

vLLM calls `register` (entry point group ``vllm.general_plugins``) in each of its processes. Only
then, and only here, is anything of vLLM imported; the rest of the project never imports this
package.
"""


def register() -> None:
    """Tell vLLM the class ``HunYuanForCausalLM`` and the config type ``hunyuan``; repeatable."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from hunyuan.vllm_plugin.config import HunyuanConfig

    AutoConfig.register(HunyuanConfig.model_type, HunyuanConfig, exist_ok=True)
    # As text: vLLM imports the class in the processes that need it.
    ModelRegistry.register_model(
        "HunYuanForCausalLM", "hunyuan.vllm_plugin.model:HunYuanForCausalLM"
    )
