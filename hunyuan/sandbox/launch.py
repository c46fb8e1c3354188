"""Starts a command inside sandlock; its program dies with it.

A process of its own, because sandlock's supervisor runs threads beside the program, and a library
that young should not share the server's memory.
"""

import os
import sys


def main() -> None:
    """Arguments: private folder, its room in bytes, readable paths, then the command."""
    from sandlock import BranchAction, Sandbox

    private, room, readable, *command = sys.argv[1:]
    sandbox = Sandbox(
        fs_readable=[path for path in readable.split(os.pathsep) if os.path.exists(path)],
        fs_writable=[private],
        workdir=private,
        cwd=private,
        max_disk=int(room),
        on_exit=BranchAction.ABORT,
        max_processes=1,
        max_open_files=64,
        no_coredump=True,
        env={"HOME": private},
    )
    sys.exit(sandbox.run_interactive(command))


if __name__ == "__main__":
    main()
