"""The workbench: one page with chat, writing, mathematics, knowledge, code and models."""
