"""One model on many processes, with torch's own distributed engine; the only user of it.

Reading order: ``layout`` (how many processes do what, checked before anything runs), ``mesh`` (the
processes), ``apply`` (puts all of it on a `Transformer` from outside), then one file per kind:
``tensor``, ``experts``, ``context``, ``pipeline``. ``unstable`` holds every torch function that is
not public. The model imports none of this, and a run on one process needs none of it.
"""
