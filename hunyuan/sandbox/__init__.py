"""Running programs that a model or a person wrote, so that they can harm nothing.

Two runners with one interface: `MontyRunner` interprets Python in worker processes that know no
files, no network and no processes; `CPythonRunner` runs full Python, off unless asked for, and only
where the system offers the layers that hold it. Reading order: ``result`` (what comes back, and the
limits), ``monty``, then for full Python ``layers`` (what this machine offers), ``seccomp``,
``inside`` (the half that runs behind the walls) and ``cpython``. ``runners`` puts them together.
"""
