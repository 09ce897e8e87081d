"""Reminders: stored with SQLAlchemy, mailed at their time, their state on the page as it changes.

A reminder and its mail are one transaction (``Outbox``). mailgate keeps the mail until its
time; this program may be restarted, or be away, when it comes. What became of it comes back
as events, which a thread writes into the reminder's row.
"""

import os
import threading
from datetime import UTC, datetime, timedelta

from flask import Flask, jsonify, redirect, render_template, request
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from mailgate.client import Client, Message, NoAnswer
from mailgate.client.outbox import Outbox

app = Flask(__name__)
mail = Client(os.environ["MAILGATE_URL"], producer="reminders")
engine = create_engine(os.environ.get("REMINDERS_DATABASE", "sqlite:///reminders.db"))


class Base(DeclarativeBase):
    pass


class Reminder(Base):
    __tablename__ = "reminders"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254))
    text: Mapped[str] = mapped_column(String(500))
    at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(20), default="saved")

    @property
    def key(self) -> str:
        return f"reminder-{self.id}"


outbox = Outbox(Base.metadata, mail)
outbox.on_insert(
    Reminder,
    lambda one: Message(
        to=one.email,
        template="notice",
        data={"title": "Your reminder", "body": one.text},
        send_at=one.at.replace(tzinfo=UTC),
        idempotency_key=one.key,
        metadata={"reminder": one.id},
    ),
)


def follow() -> None:
    """Each event of ours becomes the state of its reminder. Comes again when we die here."""
    for event in mail.events():
        number = event.message.get("metadata", {}).get("reminder")
        if number is None or event.get("command"):
            continue
        with Session(engine) as session, session.begin():
            if found := session.get(Reminder, number):
                found.state = event.name


@app.get("/")
def page() -> str:
    with Session(engine) as session:
        found = session.scalars(select(Reminder).order_by(Reminder.at.desc()).limit(100)).all()
        return render_template("page.html", reminders=found)


@app.post("/")
def save() -> object:
    """Now, or in so many seconds. The page is back at once, whatever the relays do."""
    at = datetime.now(UTC) + timedelta(seconds=float(request.form.get("in") or 0))
    with Session(engine) as session, session.begin():
        session.add(
            Reminder(
                email=request.form["email"],
                text=request.form["text"],
                at=at.replace(tzinfo=None),
            )
        )
    return redirect("/")


@app.get("/states")
def states() -> object:
    """What the page asks for every second: cheap, since events brought it here."""
    with Session(engine) as session:
        rows = session.execute(select(Reminder.id, Reminder.state)).all()
        return jsonify({str(number): state for number, state in rows})


@app.get("/reminders/<int:number>")
def ask(number: int) -> object:
    """One message asked for by its id: mailgate itself says how it stands, now."""
    try:
        answer = mail.ask(idempotency_key=f"reminder-{number}", wait=5)
    except NoAnswer:
        return jsonify({"error": "mailgate does not answer"}), 503
    return jsonify(answer["command"])


@app.post("/reminders/<int:number>/cancel")
def cancel(number: int) -> object:
    mail.cancel(idempotency_key=f"reminder-{number}", reason="cancelled on the page")
    return redirect("/")


def start() -> None:
    Base.metadata.create_all(engine)
    outbox.start(engine)
    threading.Thread(target=follow, name="events", daemon=True).start()


if __name__ == "__main__":
    start()
    app.run(port=int(os.environ.get("PORT", "5000")), threaded=True)
