"""The warm interpreter of one sandbox worker: imports once, then forks a process for each program, and a tester for
many.

It reads no job and runs no program, so what a program inherits by the fork is pristine: no test, no verdict, no other
program's text. Each child lives in a pid namespace of its own as its process 1: it can name no other process, and
when it ends the kernel kills whatever it started. When the tester has judged, the program is killed, and the private
file system is replaced if it was touched. The tester gets its end of the connection to each new program as passed
descriptors.

Control messages on `control`: to the owner one JSON line for "ready" and one for each job's end; from it b"K" and a
byte kill the job of that number (counted from 0, modulo 256), so that a late kill cannot hit the next job. End of
file means that the owner has gone: everything ends.
"""

# few imports inside, and running programs is the point:
# ruff: noqa: PTH108, PTH112, PTH116, PTH118, PTH123, PTH208, S108
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportReturnType=false

import gc
import importlib
import itertools
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import sys

from . import confine, program, tester, wire  # noqa: F401  (the fork inherits them, imports paid once)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_RDONLY, MS_NOEXEC, MS_NOATIME, MNT_DETACH = 2, 4, 1, 8, 1024, 2
PR_SET_DUMPABLE = 4
TASKS = 64  # threads and processes that a sandbox may have beyond what Limits.processes allows


class Zygote:
    """State of one worker: its settings, its C library, its seccomp filters, its sockets."""

    def __init__(self, settings):
        self.settings = settings
        self.limits = settings["limits"]
        self.isolated = settings["isolated"]
        self.control = socket.socket(fileno=settings["control"])
        self.job = settings["job"]
        self.home = "/tmp" if self.isolated else settings["home"]
        self.c = confine.libc()
        self.clone = confine.CLONE[0 if platform.machine() == "x86_64" else 1]
        self.filters = {}
        if self.isolated:
            self.filters = {
                "program": confine.Filter(processes=self.limits["processes"] > 1, execute=self.limits["processes"] > 1),
                "command": confine.Filter(processes=True, execute=True),
                "tester": confine.Filter(processes=False, execute=False),
            }
        self.clean = None

    def become_unprivileged(self):
        """Out of root for good, then into a user namespace of its own, whose rights end at this sandbox."""
        if os.geteuid() == 0 and self.settings["root"]:
            os.setgroups([])
            uid = self.settings["uid"]  # nobody else's, so that the limit on tasks counts only ours
            try:
                os.setresgid(uid, uid, uid)
            except OSError:  # a container that maps few ids
                uid = 65534
                os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        uid, gid = os.geteuid(), os.getegid()
        self.c.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # changing user closed /proc/self to us
        confine.check(self.c.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare (user namespace)")
        for name, text in (("setgroups", "deny"), ("gid_map", f"1000 {gid} 1"), ("uid_map", f"1000 {uid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
        self.c.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        confine.promise_no_new_privileges(self.c)
        self.mount("tmpfs", "/proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=1,mode=0555")
        self.fresh_home(first=True)

    def mount(self, kind, where, flags, options):
        confine.check(self.c.mount(b"none", where.encode(), kind.encode(), flags, options.encode()), f"mount {where}")

    def fresh_home(self, first=False):
        """An empty private file system for the next program, if the last one touched it."""
        if not self.isolated:
            for name in os.listdir(self.home):
                path = os.path.join(self.home, name)
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
            return
        if not first:
            if self.home_state() == self.clean:
                return
            confine.check(self.c.umount2(self.home.encode(), MNT_DETACH), "umount")
        size = self.limits["disk_mb"]
        self.mount("tmpfs", self.home, MS_NOSUID | MS_NODEV | MS_NOATIME, f"size={size}m,nr_inodes=4096,mode=0700")
        os.utime(self.home, ns=(0, 0))
        self.clean = self.home_state()

    def home_state(self):
        """All that a program can leave behind in its folder without leaving a file; times set to 0 betray a change even
        within one tick of the kernel's clock."""
        s = os.stat(self.home)
        kept = (s.st_mode, s.st_nlink, s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
        return kept, os.listdir(self.home), os.listxattr(self.home)

    def fork(self):
        """A child that is process 1 of a new pid namespace (a plain fork where nothing isolates); 0 in the child.

        The bare system call, without Python's hooks after a fork: this process has one thread and no lock, so they
        have nothing to repair, and they touch (hence copy) two hundred pages of memory.
        """
        if not self.isolated:
            return os.fork()
        return confine.check(
            self.c.syscall(self.clone, CLONE_NEWPID | signal.SIGCHLD, 0, 0, 0, 0), "clone (pid namespace)"
        )

    def new_tester(self):
        """Forks a tester; it takes its jobs until it ends itself or is killed."""
        self.desk, desk = socket.socketpair()
        self.tester_pid = self.fork()
        if self.tester_pid == 0:
            self.child(lambda: self.tester(desk))
        desk.close()

    def new_program(self):
        """Forks the next program and hands its connections to the tester; the program's pid."""
        link_t, link_p = socket.socketpair()
        (in_r, in_w), (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe(), os.pipe()
        pid = self.fork()
        if pid == 0:
            self.child(lambda: self.program(link_p.fileno(), in_r, out_w, err_w))
        socket.send_fds(self.desk, [b"J"], [link_t.fileno(), out_r, err_r, in_w])
        link_t.close()
        link_p.close()
        for fd in (in_r, in_w, out_r, out_w, err_r, err_w):
            os.close(fd)
        return pid

    def child(self, main):
        """Runs `main` in a fresh child; its return value is the exit code."""
        code = 120
        try:
            code = main() or 0
        except BaseException as e:  # a child must never return into the zygote's loop
            if self.settings["debug"]:
                import traceback

                traceback.print_exc()
            del e
        finally:
            os._exit(code)

    def tester(self, desk):
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2) if not self.settings["debug"] else (0, 1):
            os.dup2(null, fd)
        self.keep({self.job, desk.fileno()})
        os.setpgid(0, 0)  # a new session would cost a scheduling group each
        self.confine({**self.limits, "memory_mb": self.limits["memory_mb"] + 512, "cpu_s": 0}, "tester")
        tester.serve(self.job, desk, self.home)

    def program(self, link, into, out, err):
        """Confines itself first and only then reads the program."""
        os.dup2(into, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(link, 3)
        self.keep({3})
        os.setpgid(0, 0)  # a new session would cost a scheduling group each
        os.chdir(self.home)
        self.confine(self.limits, "command" if self.settings["commands"] else "program")
        program.serve(3)

    def keep(self, fds):
        """Closes every descriptor but 0, 1, 2 and `fds`."""
        last = 2
        for fd in sorted(fds):
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, 1 << 16)

    def confine(self, limits, which):
        confine.set_limits(limits)
        if self.isolated:
            confine.drop_capabilities(self.c)
            confine.lock(self.c, self.filters[which])

    def work(self):
        """Serves jobs until the owner goes."""
        ended = b""
        self.new_tester()
        for number in itertools.count():
            self.fresh_home()
            pid = self.new_program()
            self.control.sendall(ended + b'{"ready":true}\n')
            status, killed = self.await_end(pid, number)
            ended = json.dumps({"status": status, "killed": killed}).encode() + b"\n"

    def await_end(self, pid, number):
        """Waits for the job's end; (the program's wait status if it ended by itself, whether the owner killed it)."""
        killed, status, program_fd, answer = False, None, -1, b""
        poll = select.poll()
        control, desk = self.control.fileno(), self.desk.fileno()
        poll.register(control, select.POLLIN)
        poll.register(desk, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if control in ready:
                order = self.control.recv(2, socket.MSG_WAITALL)
                if not order:
                    self.kill(pid)
                    self.kill(self.tester_pid)
                    os._exit(0)
                if order[1] == number % 256:
                    killed = True
                    break
            if desk in ready:
                try:
                    answer = self.desk.recv(1)
                except ConnectionResetError:  # the tester died with a message unread
                    answer = b""
                if answer != b"W":
                    break
                poll.unregister(desk)
                program_fd = os.pidfd_open(pid)
                poll.register(program_fd, select.POLLIN)
            elif program_fd in ready:
                break
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            self.kill(pid)
        if program_fd >= 0:
            os.close(program_fd)
        if answer not in (b"D", b"W"):  # killed in the middle, dead, or due for replacement ("R")
            self.kill(self.tester_pid)
            self.desk.close()
            self.new_tester()
        return status, killed

    def kill(self, pid):
        try:
            if not self.isolated:  # the best that can be had without a pid namespace: its session's process group
                os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main(text):
    """Starts a worker from its settings as JSON; reports a failure to start on the control socket."""
    settings = json.loads(text)
    sys.path[:] = [p for p in sys.path if os.path.isdir(p)] + settings["path"]
    zygote = Zygote(settings)
    try:
        missing = []
        for name in settings["imports"]:
            try:
                importlib.import_module(name)
            except ImportError:
                missing.append(name)
        if zygote.isolated:
            zygote.become_unprivileged()
        os.environ.clear()
        os.umask(0o077)
        random.seed(0)  # the same program gets the same verdict
        confine.set_common_limits(settings["limits"], TASKS + settings["limits"]["processes"] if zygote.isolated else 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        gc.collect()
        gc.freeze()
        zygote.control.sendall(json.dumps({"started": True, "missing": missing}).encode() + b"\n")
    except BaseException as e:
        zygote.control.sendall(json.dumps({"failed": f"{type(e).__name__}: {e}"}).encode() + b"\n")
        return
    zygote.work()
