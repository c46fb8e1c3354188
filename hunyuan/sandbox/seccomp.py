"""A filter of system calls as the kernel's own little programs: no new processes, no sockets.

The filter refuses what a computation never needs and what a kernel has most often been broken by.
Threads may be made, processes may not: that ends fork bombs, also for root, whose number of
processes no limit holds. It is loaded by whoever starts the program, before its first instruction.
"""

import platform
import struct

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x10000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_X32 = 0x40000000

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}
_CLONE, _CLONE3 = (56, 220), (435, 435)

# Numbers on x86_64 and aarch64; None where there is no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "syslog": (103, 116),
    "reboot": (169, 142),
    "acct": (163, 89),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    # Memory that no limit of the process counts.
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
}


def known_machine() -> bool:
    """Whether there is a filter for this machine's processor."""
    return platform.machine() in _ARCHITECTURES


def program() -> bytes:
    """The filter for this machine's processor, an array of ``struct sock_filter``."""
    machine = platform.machine()
    column = _COLUMN[machine]
    steps = [
        _step(_LOAD_WORD, _ARCHITECTURE_AT),
        _step(_JUMP_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD_WORD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        # The same calls under other numbers.
        steps += [_step(_JUMP_GE, _X32, 0, 1), _step(_RETURN, _KILL)]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            steps += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | _EPERM)]
    steps += [
        # Its flags lie in memory, where no filter can look; told that there is no such call, the
        # C library falls back to clone.
        _step(_JUMP_EQUAL, _CLONE3[column], 0, 1),
        _step(_RETURN, _ERRNO | _ENOSYS),
        _step(_JUMP_EQUAL, _CLONE[column], 0, 3),
        _step(_LOAD_WORD, _FIRST_ARGUMENT_AT),
        _step(_JUMP_SET, _CLONE_THREAD, 1, 0),
        _step(_RETURN, _ERRNO | _EPERM),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
