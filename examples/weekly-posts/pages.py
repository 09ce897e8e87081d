"""The blog as a site (Flask): read the posts, write one. FLASK_APP=pages flask run

It sends nothing and knows nothing of mailgate. What is written here is in Saturday's mail.
"""

import sqlite3
from contextlib import closing

from flask import Flask, redirect, render_template_string, request

app = Flask(__name__)

PAGE = """<!doctype html>
<title>The harbour's blog</title><h1>The harbour's blog</h1>
<form method="post"><input name="title" required maxlength="200" aria-label="Title">
<input name="summary" aria-label="Summary"><button>Publish</button></form>
<ul>{% for title, summary in posts %}<li>{{ title }}{% if summary %}: {{ summary }}{% endif %}</li>
{% endfor %}</ul>"""


@app.get("/")
def page():
    with closing(sqlite3.connect("blog.db")) as database:
        rows = database.execute("SELECT title, summary FROM posts ORDER BY published_at DESC")
        return render_template_string(PAGE, posts=rows.fetchall())


@app.post("/")
def publish():
    title = request.form["title"]
    address = "https://blog.example/" + title.lower().replace(" ", "-")
    with closing(sqlite3.connect("blog.db")) as database, database:
        database.execute(
            "INSERT INTO posts VALUES (?, ?, ?, NULL, datetime('now'))",
            (title, address, request.form.get("summary") or None),
        )
    return redirect("/")
