"""Text to token ids and back, and conversations to prompts; no torch anywhere.

Reading order: `tokenizer` (the one class everybody uses), `markup` (why a user's text never becomes
a special token), `chat` and `template` (messages to text, in a bounded sandbox); then where
tokenizers come from: `hugging_face`, `hunyuan_large`, `gguf_vocabulary`, all behind `load`; and
`save` for the way back.
"""
