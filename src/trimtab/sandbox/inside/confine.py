"""Takes from the current process what an untrusted program must not have: capabilities, calls, memory, processes.

The seccomp filter is classic BPF written here byte by byte (no library): it refuses the calls below with EPERM,
answers ENOSYS to whatever is newer than the list (so that a new kernel opens no door), and kills foreign
architectures. It limits the kernel's surface; the namespaces do the isolating. x86_64 and aarch64.
"""

# few imports inside, and running programs is the point:
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import ctypes
import errno
import os
import platform
import resource
import struct

X86, ARM = 0xC000003E, 0xC00000B7  # AUDIT_ARCH_*
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LAST_KNOWN_CALL = 456  # futex_requeue (Linux 6.7)
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* (of time too, but its bit means that only to clone3)
CLONE_THREAD, AF_UNIX = 0x10000, 1

# name: (x86_64, aarch64); None where the architecture lacks the call
REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0),
    "io_destroy": (207, 1), "io_submit": (209, 2), "io_getevents": (208, 4), "io_pgetevents": (333, 292),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "personality": (135, 92), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    "vhangup": (153, 58), "sysfs": (139, None), "_sysctl": (156, None), "uselib": (134, None),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "process_madvise": (440, 440), "process_mrelease": (448, 448), "mbind": (237, 235),
    "set_mempolicy": (238, 237), "get_mempolicy": (239, 236), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "set_mempolicy_home_node": (450, 450), "mknod": (133, None), "mknodat": (259, 33), "vmsplice": (278, 75),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "seccomp": (317, 277), "map_shadow_stack": (453, 453),
}  # fmt: skip
NEW_PROCESS = {"fork": (57, None), "vfork": (58, None)}
EXECUTE = {"execve": (59, 221), "execveat": (322, 281)}
CLONE, CLONE3, SOCKETPAIR = (56, 220), (435, 435), (53, 199)

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 38, 47


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def libc():
    """The C library with errno kept; calls hold the interpreter lock (clone must not release it)."""
    return ctypes.PyDLL(None, use_errno=True)


def check(result, what):
    """Raises OSError for a failed C call."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def seccomp_filter(*, processes, execute):
    """The BPF program as bytes: with `processes` it may fork (never into new namespaces), with `execute` it may exec.

    A binary search over ranges of call numbers, because the kernel tries every number when a filter is installed.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        raise OSError(errno.ENOSYS, f"no seccomp filter is written for the machine {machine!r}")
    column = 0 if machine == "x86_64" else 1
    refused = {**REFUSED, **({} if processes else NEW_PROCESS), **({} if execute else EXECUTE)}
    leaf = {pair[column]: [_give(ERRNO | errno.EPERM)] for pair in refused.values() if pair[column] is not None}
    leaf[CLONE3[column]] = [_give(ERRNO | errno.ENOSYS)]  # its flags are behind a pointer; now the C library uses clone
    leaf[CLONE[column]] = _clone_leaf(processes)
    leaf[SOCKETPAIR[column]] = [
        _load(16), _op(0x15, 1, 0, AF_UNIX), _give(ERRNO | errno.EPERM), _give(ALLOW),
    ]  # fmt: skip
    ranges = [(0, [_give(ALLOW)])]
    for number in sorted(leaf):
        if ranges[-1][0] == number:
            ranges.pop()
        ranges += [(number, leaf[number]), (number + 1, [_give(ALLOW)])]
    # also every x32 call, whose numbers have bit 30 set
    ranges = [r for r in ranges if r[0] <= LAST_KNOWN_CALL] + [(LAST_KNOWN_CALL + 1, [_give(ERRNO | errno.ENOSYS)])]
    head = [_load(4), _op(0x15, 1, 0, (X86, ARM)[column]), _give(KILL), _load(0)]
    return b"".join([*head, *_search(ranges)])


def _op(code, jump_true, jump_false, k):
    return struct.pack("<HBBI", code, jump_true, jump_false, k)


def _load(offset):
    return _op(0x20, 0, 0, offset)  # of struct seccomp_data: 0 the number, 4 the architecture, 16 + 8 i argument i


def _give(action):
    return _op(0x06, 0, 0, action)


def _clone_leaf(processes):
    """Threads always, processes if allowed, new namespaces never."""
    out = [_load(16), _op(0x45, 0, 1, NEW_NAMESPACES), _give(ERRNO | errno.EPERM)]
    if not processes:
        out += [_op(0x45, 1, 0, CLONE_THREAD), _give(ERRNO | errno.EAGAIN)]
    return [*out, _give(ALLOW)]


def _search(ranges):
    """Code that runs the last (start, code) whose start is not above the call's number."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    return [_op(0x35, len(low), 0, ranges[middle][0]), *low, *high]  # jge


class Filter:
    """A seccomp program in memory, ready to install."""

    def __init__(self, *, processes, execute):
        program = seccomp_filter(processes=processes, execute=execute)
        self.buffer = ctypes.create_string_buffer(program, len(program))
        self.description = _Program(len(program) // 8, ctypes.addressof(self.buffer))


def set_common_limits(limits, nproc):
    """Lowers for good the limits that the zygote shares with its children; `nproc` counts all tasks of this sandbox."""
    megabyte = 1 << 20
    wanted = {
        resource.RLIMIT_FSIZE: limits["disk_mb"] * megabyte,
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: 8 * megabyte,
    }
    if nproc:
        wanted[resource.RLIMIT_NPROC] = nproc
    for name in ("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO"):
        if hasattr(resource, name):
            wanted[getattr(resource, name)] = 0
    for kind, value in wanted.items():
        _lower(kind, value)


def set_limits(limits):
    """Lowers this process's memory and CPU seconds (0: no limit on those) for good."""
    try:
        _lower(resource.RLIMIT_AS, limits["memory_mb"] << 20)
    except (OSError, ValueError):
        if os.uname().sysname == "Linux":  # macOS knows no limit on the address space
            raise
    if limits["cpu_s"]:
        _lower(resource.RLIMIT_CPU, limits["cpu_s"])


def _lower(kind, value):
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


HEADER, NOTHING = struct.pack("=Ii", 0x20080522, 0), bytes(24)


def drop_capabilities(c):
    """Empties the capability sets of this process; with no_new_privs nothing can fill them again."""
    check(c.capset(HEADER, NOTHING), "capset")


def promise_no_new_privileges(c):
    """No program that this process or a child executes gains rights; no capability is handed down."""
    c.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    check(c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def lock(c, filter):
    """Installs the seccomp filter: nothing after this call can undo it."""
    check(c.prctl(PR_SET_SECCOMP, 2, ctypes.byref(filter.description), 0, 0), "seccomp")
