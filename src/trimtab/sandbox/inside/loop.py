"""An event loop that needs no socket, for coroutines of programs and tests: sockets are refused in the sandbox."""

import asyncio
import functools
import time


class _Clock:
    """In the place of a selector: nothing ever arrives by it, time passes. Threads are noticed within 5 ms."""

    def select(self, timeout):
        time.sleep(0.005 if timeout is None else min(max(0.0, timeout), 0.005))
        return []

    def close(self):
        pass


class Loop(asyncio.BaseEventLoop):
    """asyncio's own loop with timers alone."""

    def __init__(self):
        super().__init__()
        self._selector = _Clock()

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass


class Policy(asyncio.DefaultEventLoopPolicy):
    """Makes `asyncio.run` take this loop."""

    _loop_factory = Loop


def use():
    """From now on `asyncio.run` in this process works without sockets."""
    asyncio.set_event_loop_policy(Policy())


def run(awaitable):
    """Runs an awaitable of the program in one loop that stays the same."""

    async def outcome():
        return await awaitable

    return _own().run_until_complete(outcome())


@functools.cache
def _own():
    return Loop()
