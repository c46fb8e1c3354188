"""Conversations in which tools are called, made to train small models on, each call executed.

Reading order: ``offered`` (the tools as a model is told of them, under changing names), ``execute``
(the real tools), ``phrases.toml`` and ``tasks`` (what people ask, and with which arguments),
``dialogues`` (calls, follow-ups, questions back, refusals), ``make`` (files, split, statistics).

It stands beside the workbench because it needs both the tools and the way a server shows them to
a model.
"""
