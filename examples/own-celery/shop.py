"""A shop's own Celery application. Its tasks do the shop's work; mailgate does the mail.

Everything that is sent goes through one task, ``send``, which only publishes. It stands at
the end of a ``link``, of a chain and of a chord, and under a schedule of the shop's own.
"""

import os
import sqlite3
from contextlib import closing

from celery import Celery, Task, chain, chord
from celery.schedules import crontab

from mailgate.client import Client, Message, NotPublished

BROKER = os.environ["SHOP_BROKER"]
DATABASE = os.environ.get("SHOP_DATABASE", "shop.db")
BOSS = "boss@shop.example"

app = Celery("shop", broker=BROKER, backend=BROKER)
app.conf.update(
    # Away from mailgate's own queues, which may live on the same broker.
    task_default_queue="shop",
    # Flower listens to mailgate's workers: there the shop's are seen beside them.
    event_exchange="mailgate.workers",
    worker_send_task_events=True,
    task_send_sent_event=True,
    beat_schedule={
        "clean up": {
            "task": "shop.clean_up",
            "schedule": crontab(hour=0, minute=0),
            "options": {"link": None},  # set below, once ``send`` is there
        }
    },
    timezone="Europe/Berlin",
)

mail = Client(os.environ["MAILGATE_URL"], producer="shop")


@app.task(
    bind=True,
    name="shop.send",
    autoretry_for=(NotPublished,),
    retry_backoff=True,
    max_retries=None,
)
def send(self: Task, notice: dict, to: str, key: str = "") -> str:
    """Publish one mail. Run twice, for whatever reason, it is still one: by its key.

    Without a key of its own it is known by the run that it is the end of.
    """
    message = Message(
        to=to, template="notice", data=notice, idempotency_key=key or self.request.root_id
    )
    return mail.publish(message).idempotency_key


@app.task(name="shop.make_invoice")
def make_invoice(order: int) -> dict:
    return {"title": f"Invoice {order}", "body": f"Your order {order} comes to {order * 3} EUR."}


@app.task(name="shop.fetch")
def fetch(day: str) -> list[int]:
    with closing(sqlite3.connect(DATABASE)) as database:
        rows = database.execute("SELECT amount FROM orders WHERE day = ?", [day])
        return [amount for (amount,) in rows]


@app.task(name="shop.summarise")
def summarise(amounts: list[int], day: str) -> dict:
    body = f"{len(amounts)} orders, {sum(amounts)} EUR in all."
    return {"title": f"Sales of {day}", "body": body}


@app.task(name="shop.count")
def count(day: str) -> int:
    return len(fetch(day))


@app.task(name="shop.add_up")
def add_up(counts: list[int]) -> dict:
    return {"title": "The week", "body": f"{sum(counts)} orders in {len(counts)} days."}


@app.task(name="shop.clean_up")
def clean_up() -> dict:
    """At midnight: baskets that nobody came back to."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        gone = database.execute("DELETE FROM baskets WHERE touched < date('now', '-30 days')")
        return {"title": "Clean-up", "body": f"{gone.rowcount} old baskets were thrown away."}


app.conf.beat_schedule["clean up"]["options"]["link"] = send.s(BOSS)


def invoice(order: int, to: str) -> None:
    """``link``: when the invoice is made, its mail is published."""
    make_invoice.apply_async((order,), link=send.s(to, f"invoice-{order}"))


def report(day: str, to: str) -> None:
    """A chain: fetch, summarise, send."""
    chain(fetch.s(day), summarise.s(day), send.s(to, f"report-{day}"))()


def week(days: list[str], to: str) -> None:
    """A chord: the days are counted side by side; when all are, one mail goes."""
    chord([count.s(day) for day in days], chain(add_up.s(), send.s(to, f"week-{days[0]}")))()
