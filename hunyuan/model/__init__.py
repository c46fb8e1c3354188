"""One decoder-only Transformer; every difference between families is a field of `ModelConfig`.

Reading order: ``config`` (what varies), ``rope``, ``ops`` (what lies between the products),
``layers``, ``attention`` (GQA, then sharing across layers), ``routing`` (which expert takes which
token), ``grouped`` and ``moe`` (follow one token), ``transformer`` (all of it together). Nothing
here knows about files, serving or training.

The letters of tensor shapes, the same in the whole package:

    B  batch rows            D  hidden width             E  experts
    T  tokens of this call   H  query heads              F  width of an expert or dense MLP
    S  keys attended to      K  key/value heads          N  rows of a flat token list, B * T
    V  vocabulary rows       C  width of one head        G  tokens of one capacity group
    L  layers                U  cache slots, ceil(L / share)

"Paper" is the Hunyuan-Large report, arXiv 2411.02265; "specification" this project's own account of
it and of the published configurations, whose sections are cited by number.
"""
