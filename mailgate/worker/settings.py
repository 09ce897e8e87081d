"""From the configuration to Celery's settings.

Owns the names of queues, what Celery and kombu are told, and the order of the
limits in time. Pure: never connects, never reads a file or the environment.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mailgate.config.shape import Config
from mailgate.model.state import Lane
from mailgate.worker.broker import broker_settings

if TYPE_CHECKING:
    from kombu import Queue

TASK = "mailgate.deliver"
#: What beat has a worker do each hour, and for how long at most (seconds).
CLEAN, CLEAN_FOR = "mailgate.clean", 10.0
#: What fires a schedule: its name, and the time (ms).
FIRE = "mailgate.fire"
#: How long that may take (seconds): two sources, and the writing. Whoever takes a fire has it
#: for longer (``schedules.firing.TAKEN``).
FIRE_SOFT, FIRE_HARD = 90, 100
#: The queue of what beat has workers do.
CHORES = "mailgate.chores"
#: The exchange of all of them, and of a lane's queue its arguments (``queues`` says why).
EXCHANGE = "mailgate.rings"
RINGS = MappingProxyType({"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "drop-head"})

#: RabbitMQ closes the channel of a consumer that acknowledges later than this (its
#: ``consumer_timeout``, 30 minutes by default).
_CONSUMER_TIMEOUT = 1800.0

#: Seconds; a broker that is silent for two of these is gone, and so are we for it.
_HEARTBEAT = 10


class WorkerSettingsError(ValueError):
    """The configuration is valid, but no worker can run with it; says which key and why."""


class TimeLimits(NamedTuple):
    """How long a delivery task may take, in seconds, each limit above the one before it.

    The task returns at its ``deadline`` by itself. ``overdue`` is when the waiting
    thread gives it up, in any pool; ``soft`` and ``hard`` are Celery's, in the
    prefork pool only: an exception, then SIGKILL. After ``visibility`` Redis gives
    an unacknowledged ring to another worker.
    """

    deadline: float
    overdue: float
    soft: float
    hard: float
    visibility: float


def time_limits(deadline: float) -> TimeLimits:
    """The limits that follow from ``worker.deadline``; raises ``WorkerSettingsError``."""
    hard = deadline + 60
    if hard >= _CONSUMER_TIMEOUT:
        raise WorkerSettingsError(
            f"worker.deadline is {deadline:g} seconds; it must be less than "
            f"{_CONSUMER_TIMEOUT - 60:g}: RabbitMQ gives up on a consumer that works longer"
        )
    return TimeLimits(deadline, deadline + 20, deadline + 25, hard, 3 * hard)


def queue_name(lane: Lane) -> str:
    """The queue of a lane; on Redis also the key of its list."""
    return f"mailgate.{lane.value}"


def queues() -> tuple[Queue, ...]:
    """A queue per lane, highest first, and one for what beat has workers do.

    A ring is disposable: each worker looks at the journal once a second without
    one. So the queues are classic, not replicated (quorum queues would also make
    Celery declare its 28 delay queues), the rings in them are not written to disk,
    and one ring a queue is enough: the oldest gives way to the newest. The queues
    are durable since RabbitMQ 4 deprecates shared queues that are not.
    """
    # Here and not above: who only rings needs nothing of kombu.
    from kombu import Exchange, Queue

    exchange = Exchange(EXCHANGE, type="direct")
    rings = tuple(
        Queue(
            queue_name(lane),
            exchange,
            routing_key=queue_name(lane),
            durable=True,
            queue_arguments=dict(RINGS),
        )
        for lane in Lane
    )
    # What the clock asks for is no ring, and must not give way to one.
    classic = {"x-queue-type": "classic"}
    return (
        *rings,
        Queue(CHORES, exchange, routing_key=CHORES, durable=True, queue_arguments=classic),
    )


def route(
    name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any
) -> dict[str, str] | None:
    """Celery's router: a ring goes to the queue of the lane that it names."""
    if name in (CLEAN, FIRE):
        return {"queue": CHORES}
    if name != TASK:
        return None
    lane = kwargs["lane"] if kwargs and "lane" in kwargs else args[0]
    return {"queue": queue_name(Lane(lane))}


def celery_settings(config: Config) -> dict[str, Any]:
    """All that Celery is told; raises ``WorkerSettingsError`` when there is no broker."""
    if config.broker.url is None:
        raise WorkerSettingsError(
            "broker.url is not set: workers need a broker (redis://… or amqp://…); "
            "'mailgate up' brings its own"
        )
    # Here and not above: who only rings needs nothing of Celery.
    from celery.schedules import crontab

    limits = time_limits(config.worker.deadline)
    return {
        **broker_settings(config.broker.url, limits.visibility),
        "broker_connection_timeout": 4.0,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A channel error (a queue that is locked or missing for a while after a
        # failover) would end the worker; it may as well try again.
        "broker_channel_error_retry": True,
        "broker_heartbeat": _HEARTBEAT,
        "task_queues": queues(),
        "task_routes": (route,),
        "task_default_queue": queue_name(Lane.NORMAL),
        "task_default_exchange": EXCHANGE,
        "task_create_missing_queues": False,
        "task_default_delivery_mode": 1,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        # No result is stored; the counts travel in the event that Flower shows.
        "task_ignore_result": True,
        # Late, so that a busy worker does not sit on rings that an idle one could take.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # A ring that killed its worker is not rung again: a task that kills would do so
        # dozens of times in a second (celery #9082). The next look rings.
        "task_reject_on_worker_lost": False,
        "task_soft_time_limit": limits.soft,
        "task_time_limit": limits.hard,
        # True would kill conversations in the middle of DATA when the broker goes away.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_max_tasks_per_child": 10_000,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Celery's own defaults are shared with every other Celery app on the broker.
        "control_exchange": "mailgate.control",
        "event_exchange": "mailgate.workers",
        "event_queue_prefix": "mailgate.workers",
        # Exclusive, as by default, a half-open connection keeps the queue locked against
        # the worker that comes back, and that worker dies (RESOURCE_LOCKED).
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        # In memory: beat has nothing to remember, every fire is a unique row.
        "beat_scheduler": "mailgate.worker.clock:Clock",
        "beat_schedule": {
            CLEAN: {
                # Nobody there to do it: the next hour's will do.
                "task": CLEAN,
                "schedule": crontab(minute="17"),
                "options": {"expires": 3600},
            }
        },
        "timezone": "UTC",
        "enable_utc": True,
    }
