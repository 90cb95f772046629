"""Builds the walls with system calls alone, where bubblewrap is not installed, then becomes the zygote.

New mount, pid, network, IPC, host-name and cgroup namespaces (under a user namespace unless we are real root), a root
file system that holds only what `settings["binds"]` names, read-only, and empty /dev with five harmless devices. What
remains of the host's file tree is unmounted.
"""

# few imports inside, and running programs is the point:
# ruff: noqa: PTH103, PTH106, PTH112, PTH120, PTH123, PTH211, S108, S606
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import json
import os
import signal
import sys

from . import confine

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH, PR_SET_PDEATHSIG = 2, 1
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DEVICES = ("null", "zero", "full", "random", "urandom")
STAGE = "/tmp"


def mount(c, source, target, kind, flags, options=None):
    """mount(2) on paths as text; OSError says what failed."""
    confine.check(
        c.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            flags,
            options.encode() if options else None,
        ),
        f"mount {source} on {target}",
    )


def enter_namespaces(c, root):
    """New namespaces of every kind; as an ordinary user inside a new user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    if not root:
        confine.check(c.unshare(NEWUSER), "unshare (user namespace)")
        for name, text in (("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1"), ("uid_map", f"{uid} {uid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    confine.check(c.unshare(NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS), "unshare (mount, pid, net, ipc, uts)")
    c.unshare(NEWCGROUP)  # kernels before 4.6 have none; nothing of cgroups is mounted anyway
    c.sethostname(b"sandbox", 7)


def build_root(c, settings):
    """Mounts the new root on STAGE and makes it `/`."""
    mount(c, "none", "/", None, MS_REC | MS_PRIVATE)
    sources = [(os.open(source, os.O_PATH), target) for source, target in settings["binds"]]  # some may be below STAGE
    mount(c, "none", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    for fd, target in sources:
        bind(c, f"/proc/self/fd/{fd}", STAGE + target)
        os.close(fd)
    for folder in settings["masks"]:
        mount(c, "none", STAGE + folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,nr_inodes=1")
    for target, link in settings["links"]:
        os.makedirs(os.path.dirname(STAGE + target), exist_ok=True)
        os.symlink(link, STAGE + target)
    for device in DEVICES:
        place(STAGE + "/dev/" + device, False)
        mount(c, "/dev/" + device, STAGE + "/dev/" + device, None, MS_BIND)
    for folder in ("/tmp", "/proc", "/old"):
        os.makedirs(STAGE + folder, exist_ok=True)
    mount(c, "/proc", STAGE + "/proc", None, MS_BIND | MS_REC)  # the zygote writes its uid map there, then covers it
    os.chdir(STAGE)
    number = PIVOT_ROOT[os.uname().machine]
    confine.check(c.syscall(number, b".", b"old"), "pivot_root")
    os.chdir("/")
    confine.check(c.umount2(b"/old", MNT_DETACH), "umount of the old root")
    os.rmdir("/old")
    mount(c, "none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def bind(c, source, target):
    """A read-only bind mount of a file or folder."""
    place(target, os.path.isdir(source))
    mount(c, source, target, None, MS_BIND | MS_REC)
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
    kept = os.statvfs(target).f_flag  # flags that the host set may not be dropped in a user namespace
    flags |= kept & (8 | 1024 | 2048)  # noexec, noatime, nodiratime share their bits with MS_*
    mount(c, "none", target, None, flags)


def place(path, folder):
    """An empty folder or file to mount on."""
    if folder:
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def main(text):
    """Builds the box and executes the zygote in it; waits for it outside."""
    settings = json.loads(text)
    c = confine.libc()
    try:
        enter_namespaces(c, settings["root"])
        pid = os.fork()
        if pid == 0:
            c.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            build_root(c, settings)
            os.execve(settings["argv"][0], settings["argv"], settings["env"])
    except BaseException as e:
        os.write(settings["control"], json.dumps({"failed": f"{type(e).__name__}: {e}"}).encode() + b"\n")
        os._exit(1)
    os.close(settings["control"])
    os.close(settings["job"])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1])
