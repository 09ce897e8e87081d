"""A contact form, and mail that is sent now or in one minute and watched as it goes.

FLASK_APP=app MAILGATE_URL=… flask run
"""

import os
from datetime import UTC, datetime, timedelta

from flask import Flask, abort, jsonify, redirect, render_template_string, request, url_for

from mailgate.client import InvalidMessage, NoAnswer
from mailgate.client.flask import Mail

app = Flask(__name__)
app.config.update(
    MAILGATE_URL=os.environ["MAILGATE_URL"],
    MAILGATE_PRODUCER="site",
    MAIL_DEFAULT_SENDER=("The Site", "site@example.com"),
)
#: How long "in one minute" is; the example's test has less time.
DELAY = timedelta(seconds=float(os.environ.get("SITE_DELAY", "60")))
mail = Mail(app)

PAGE = """<!doctype html>
<title>{{ title }}</title><h1>{{ title }}</h1><p>{{ text }}</p>
<form method="post">
{% for name in fields %}<p><label>{{ name }} <input name="{{ name }}" required></label></p>
{% endfor %}{% for name in buttons %}<button name="when" value="{{ name }}">{{ name }}</button>
{% endfor %}</form>"""

STATUS = """<!doctype html>
<title>Status</title><h1 id="state">…</h1>
<form method="post" action="{{ url_for('cancel', key=key) }}"><button>Cancel it</button></form>
<script>
async function look() {
  const reply = await fetch("{{ url_for('state', key=key) }}");
  document.getElementById("state").textContent = (await reply.json()).state;
  setTimeout(look, 1000);
}
look();
</script>"""


def form(title, text, fields, buttons):
    return render_template_string(PAGE, title=title, text=text, fields=fields, buttons=buttons)


@app.route("/contact", methods=["GET", "POST"])
def contact():
    fields = ["name", "email", "message"]
    if request.method == "GET":
        return form("Write to us", "", fields, ["send"])
    said = {name: request.form[name] for name in fields}
    try:
        mail.send_message(
            recipients=["team@example.com"],
            reply_to=(said["name"], said["email"]),
            template="contact_feedback",
            data=said,
        )
    except InvalidMessage as error:
        return form("Write to us", f"Please look again: {error}", fields, ["send"]), 400
    return form("Thank you", "We have your message.", [], [])


@app.route("/send", methods=["GET", "POST"])
def send():
    if request.method == "GET":
        return form("Send", "", ["to", "text"], ["now", "in one minute"])
    later = request.form["when"] == "in one minute"
    receipt = mail.send_message(
        "A mail from the site",
        recipients=[request.form["to"]],
        body=request.form["text"],
        send_at=datetime.now(UTC) + DELAY if later else None,
    )
    if receipt is None:  # suppressed: the app is being tested
        abort(503)
    return redirect(url_for("status", key=receipt.idempotency_key))


@app.get("/status/<key>")
def status(key):
    return render_template_string(STATUS, key=key)


@app.get("/status/<key>/state")
def state(key):
    """How the mail stands, asked of mailgate."""
    try:
        answer = mail.client.ask(idempotency_key=key, wait=5)
    except NoAnswer as error:
        heard = error.last["command"]["result"] if error.last else "no answer"
        return jsonify(state=heard)
    recipients = answer["command"].get("recipients")
    return jsonify(state=recipients[0]["state"] if recipients else answer["command"]["result"])


@app.post("/status/<key>/cancel")
def cancel(key):
    mail.client.cancel(idempotency_key=key, reason="cancelled on the page")
    return redirect(url_for("status", key=key))
