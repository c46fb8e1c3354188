"""A tiny world, in English and Chinese, that a tiny model can learn in minutes.

`words` is all there is to know in it; `text` makes documents and conversations of that. What a
model of some millions of parameters says after the tour it has memorised here, and nothing else.
"""
