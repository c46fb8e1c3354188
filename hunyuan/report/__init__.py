"""From what training runs wrote down to pages that people read; nothing here needs torch.

``metrics`` reads the log line by line, ``run`` makes curves of it, ``sample`` and ``heat`` make
them small, ``page`` writes one HTML file. ``scaling`` fits laws to a folder of runs by budgets,
``surface`` by all runs at once, ``scaling_page`` draws both.
"""
