"""What ``mailgate worker`` and ``flower`` give to Celery."""

from __future__ import annotations

import socket

import pytest

from mailgate.model.state import Lane
from mailgate.worker.command import flower_arguments, worker_options
from mailgate.worker.settings import WorkerSettingsError

HOST = socket.gethostname()


def test_a_worker_takes_every_lane_highest_first() -> None:
    found = worker_options(None, set(Lane), "prefork", "info", None)
    every = ["mailgate.high", "mailgate.normal", "mailgate.bulk", "mailgate.chores"]
    assert found["queues"] == every
    assert found["hostname"] == f"mailgate@{HOST}"
    assert found["concurrency"] is None


def test_a_worker_for_some_lanes_has_a_name_of_its_own() -> None:
    found = worker_options(1, [Lane.NORMAL, Lane.HIGH], "prefork", "info", None)
    assert found["queues"] == ["mailgate.high", "mailgate.normal", "mailgate.chores"]
    assert found["hostname"] == f"mailgate-high-normal@{HOST}"
    assert found["concurrency"] == 1
    urgent = worker_options(1, [Lane.HIGH], "prefork", "info", "two")
    assert urgent["queues"] == ["mailgate.high"]
    assert urgent["hostname"] == f"two@{HOST}"


def test_a_worker_without_a_lane_is_refused() -> None:
    with pytest.raises(WorkerSettingsError, match="at least one lane"):
        worker_options(None, [], "prefork", "info", None)


def test_flower_stays_on_this_machine_and_only_looks() -> None:
    found = flower_arguments(None, None, (), True, {})
    columns = "--tasks_columns=name,args,state,result,received,runtime,worker"
    only_looks = ["--address=127.0.0.1", "--read_only=True", columns, "--conf=/dev/null"]
    assert found == ["flower", *only_looks]


@pytest.mark.parametrize("environ", [{}, {"FLOWER_ADDRESS": "0.0.0.0"}])
def test_flower_open_to_the_network_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(WorkerSettingsError, match=r"Flower on 0\.0\.0\.0"):
        flower_arguments(None if environ else "0.0.0.0", None, (), True, environ)


def test_flower_with_a_password_may_be_open() -> None:
    found = flower_arguments("0.0.0.0", 5000, ["ann:word"], False, {})
    assert "--address=0.0.0.0" in found
    assert "--port=5000" in found
    assert "--basic_auth=ann:word" in found
    assert "--read_only=False" in found
    assert flower_arguments("0.0.0.0", None, (), True, {"FLOWER_BASIC_AUTH": "ann:word"})


def test_flowers_own_variables_hold() -> None:
    environ = {
        "FLOWER_ADDRESS": "localhost",
        "FLOWER_CONF": "mine.py",
        "FLOWER_READ_ONLY": "false",
        "FLOWER_TASKS_COLUMNS": "name",
    }
    assert flower_arguments(None, None, (), True, environ) == ["flower", "--address=localhost"]
