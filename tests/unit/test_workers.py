"""Where a map runs: order kept, failures named, hung workers replaced."""

import os
import time
from functools import partial

import pytest

from trimtab import workers
from trimtab.workers import Failure, cpu_count, map_items

pytestmark = pytest.mark.slow  # all together: `make quick` leaves them out


def square_or_fail(x):
    if x == 2:
        raise ValueError("two is not allowed")
    return x * x


def misbehave(x):
    if x == "hang":
        time.sleep(60)
    if x == "die":
        os._exit(7)
    return x


@pytest.mark.parametrize("workers", [0, 2])
def test_order_is_kept_and_a_raise_is_one_failure(workers):
    got = list(map_items(square_or_fail, [3, 2, 1], workers=workers))
    assert got == [9, Failure("ValueError: two is not allowed"), 1]


def test_hung_and_dead_workers_fail_their_item_alone():
    got = list(map_items(misbehave, ["a", "hang", "b", "die", "c"], workers=2, timeout_s=4.0))
    assert [got[0], got[2], got[4]] == ["a", "b", "c"]
    assert got[1] == Failure("took longer than 4.0 s")
    assert isinstance(got[3], Failure) and "died" in got[3].reason


def test_stopping_early_does_not_wait_for_the_rest():
    results = map_items(misbehave, ["a", "hang", "hang", "hang"], workers=1, timeout_s=60)
    assert next(results) == "a"
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 20


def pid(_):
    return os.getpid()


def test_one_worker_does_what_takes_no_time():
    slow_start = partial(time.sleep, 2)  # the items take far less, also on a busy machine
    assert len(set(map_items(pid, range(50), workers=4, timeout_s=60, warm=slow_start))) == 1


@pytest.mark.parametrize(
    ("start", "worked", "done", "left", "pays"),
    [(4, 3, 9, 900, False), (4, 5, 9, 900, True), (4, 5, 90, 10, False), (4, 5, 0, 1, True), (0.1, 0.2, 1, 3, True)],
)
def test_more_workers_pay_once_one_has_worked_for_a_start_and_has_more_to_do(
    monkeypatch, start, worked, done, left, pays
):
    crew = workers._Crew.__new__(workers._Crew)
    crew.begun, crew.ready_at = 100.0, 100.0 + start
    monkeypatch.setattr(workers.time, "monotonic", lambda: 100.0 + start + worked)
    assert crew.is_slow(done, left) is pays


def test_some_processor_is_counted():
    assert cpu_count() >= 1
