"""The inbox's page in a real browser, also with mails that mean harm."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from tests.integration.studio import browser
from tests.integration.studio.browser import until
from tests.integration.studio.inbox.conftest import RunningInbox


class Tab(browser.Tab):
    """The inbox in a tab."""

    def subjects(self) -> list[str]:
        found = self.driver.find_elements(By.CSS_SELECTOR, "#mails .subject")
        return [one.text for one in found]


@pytest.fixture
def tab(chrome: Chrome, inbox: RunningInbox) -> Iterator[Tab]:
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    opened = Tab(chrome, f"{inbox.url}/")
    yield opened
    chrome.get("about:blank")


RICH = """<!doctype html><html><head><style>
body{margin:0;background:#f2f4f8;font:16px/1.5 sans-serif;color:#222}
.card{max-width:560px;margin:24px auto;padding:28px;background:#fff;border-radius:10px}
a.b{display:inline-block;padding:12px 22px;background:#3457d5;color:#fff;border-radius:8px;
text-decoration:none}
@media (prefers-color-scheme: dark){body{background:#111}.card{background:#222;color:#eee}}
</style><meta name="color-scheme" content="light dark"></head><body><div class="card">
<img src="cid:logo@example.com" width="40" height="40" alt="Logo" style="border-radius:8px">
<h1>Reset your password</h1>
<p>Hello Ann, somebody asked for a new password for your account. It is good for one hour.</p>
<p><a class="b" href="https://app.example.com/reset?token=abc">Choose a new password</a></p>
<p>If that was not you, nothing has changed and nothing needs to be done.</p></div></body></html>"""


def test_mails_appear_by_themselves_and_are_read(tab: Tab, inbox: RunningInbox, sample):
    until(lambda: tab.shows("#empty"))
    assert tab.text("#smtp") == f"127.0.0.1:{inbox.smtp_port}"
    tab.picture("empty")
    inbox.send(sample.plain("Your weekly digest"), "news@example.com", "bob@example.org")
    inbox.send(sample.rich(RICH, "Reset your password"), "app@example.com", "ann@example.com")
    until(lambda: tab.subjects() == ["Reset your password", "Your weekly digest"])
    assert tab.text("#status") == "2 mails"

    tab.find("#mails a").click()
    until(lambda: tab.text("#title") == "Reset your password")
    assert "app@example.com → ann@example.com" in tab.text("#meta")
    assert "Rechnung März.pdf" in tab.text("#attachments")
    frame = tab.find("#paper iframe")
    tab.driver.switch_to.frame(frame)
    assert tab.text("h1") == "Reset your password"
    logo = tab.find("img")
    assert until(lambda: tab.driver.execute_script("return arguments[0].naturalWidth", logo)) == 1
    tab.driver.switch_to.default_content()
    tab.picture("html-wide")

    tab.find("#tab-text").click()
    assert tab.text("#text").strip() == "The text."
    tab.picture("text-wide")
    tab.find("#tab-headers").click()
    assert "Ann Bell <ann@example.com>" in tab.text("#headers")
    tab.picture("headers-wide")
    tab.find("#tab-source").click()
    until(lambda: "Content-Type: multipart/mixed" in tab.text("#source"))
    tab.picture("source-wide")
    assert tab.complaints() == []


def test_the_frame_is_as_wide_as_a_phone_and_as_dark_as_one_wishes(tab: Tab, inbox, sample):
    inbox.send(sample.rich(RICH))
    until(tab.subjects)
    tab.find("#mails a").click()
    frame = tab.find("#paper iframe")
    assert frame.size["width"] > 700
    tab.find("[data-width=phone]").click()
    assert until(lambda: frame.size["width"] == 377)
    tab.find("[data-scheme=dark]").click()
    tab.driver.switch_to.frame(frame)
    ground = "return getComputedStyle(document.body).backgroundColor"
    until(lambda: tab.driver.execute_script(ground) == "rgb(17, 17, 17)")
    tab.driver.switch_to.default_content()
    tab.picture("html-phone-dark-frame")
    tab.find("[data-scheme=light]").click()
    tab.driver.switch_to.frame(frame)
    until(lambda: tab.driver.execute_script(ground) == "rgb(242, 244, 248)")
    tab.driver.switch_to.default_content()
    assert tab.complaints() == []


def test_search_narrows_the_list(tab: Tab, inbox, sample):
    for word in ("Invoice 1", "Welcome", "Invoice 2"):
        inbox.send(sample.plain(word))
    until(lambda: len(tab.subjects()) == 3)
    tab.press("/")
    assert tab.focused() == "search"
    tab.press("invoice")
    until(lambda: tab.subjects() == ["Invoice 2", "Invoice 1"])
    assert tab.text("#status") == "2 of 3 mails"
    tab.press(Keys.ESCAPE)
    until(lambda: len(tab.subjects()) == 3)
    assert tab.complaints() == []


def test_everything_can_be_done_with_the_keyboard(tab: Tab, inbox, sample):
    for number in range(3):
        inbox.send(sample.rich(RICH, f"Mail {number}"))
    until(lambda: len(tab.subjects()) == 3)
    tab.driver.execute_script("document.querySelector('#mails a').focus()")
    tab.press(Keys.ARROW_DOWN)
    tab.press(Keys.ENTER)
    until(lambda: tab.text("#title") == "Mail 1")
    tab.driver.execute_script("document.querySelector('#tab-html').focus()")
    tab.press(Keys.ARROW_RIGHT)
    assert tab.focused() == "tab-text"
    assert tab.shows("#text")
    tab.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert tab.focused() == "tab-source"
    assert tab.complaints() == []


def test_delete_one_then_all(tab: Tab, inbox, sample):
    for number in range(3):
        inbox.send(sample.plain(f"Mail {number}"))
    until(lambda: len(tab.subjects()) == 3)
    tab.find("#mails a").click()
    until(lambda: tab.text("#title") == "Mail 2")
    tab.find("#delete").click()
    until(lambda: tab.subjects() == ["Mail 1", "Mail 0"])
    until(lambda: tab.text("#title") == "Mail 1")
    tab.find("#clear").click()
    until(lambda: tab.shows("#confirm"))
    tab.picture("confirm")
    tab.press(Keys.ESCAPE)
    assert not tab.find("#confirm").is_displayed()
    assert len(tab.subjects()) == 2
    tab.find("#clear").click()
    tab.find("#confirm button[value=yes]").click()
    until(lambda: tab.shows("#empty"))
    assert tab.complaints() == []


def test_on_a_phone_the_list_and_the_mail_take_turns(tab: Tab, inbox, sample):
    tab.size(375, 740)
    for number in range(9):
        inbox.send(
            sample.rich(RICH, f"A subject that is rather longer than a phone is wide {number}")
        )
    until(lambda: len(tab.subjects()) == 9)
    assert not tab.find(".reading").is_displayed()
    tab.picture("list-phone")
    wide = "return document.documentElement.scrollWidth"
    assert tab.driver.execute_script(wide) == 375
    tab.find("#mails a").click()
    until(lambda: tab.shows("#title"))
    assert not tab.find(".list").is_displayed()
    assert tab.driver.execute_script(wide) == 375
    tab.picture("html-phone")
    tab.find("#tab-source").click()
    until(lambda: "multipart" in tab.text("#source"))
    assert tab.driver.execute_script(wide) == 375
    tab.find("#tab-headers").click()
    tab.picture("headers-phone")
    tab.find(".back").click()
    until(lambda: tab.shows(".list"))
    assert tab.complaints() == []


def test_the_page_is_dark_when_the_system_is(tab: Tab, inbox, sample):
    tab.scheme("dark")
    inbox.send(sample.plain("One"))
    inbox.send(sample.rich(RICH, "Two"))
    until(tab.subjects)
    tab.find("#mails a").click()
    until(lambda: tab.shows("#paper iframe"))
    tab.picture("dark-wide")
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert tab.driver.execute_script(ground) == "rgb(18, 21, 28)"
    assert tab.complaints() == []


class Tracker:
    """A server elsewhere that notes every connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.seen: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.seen.append(b"connected")
            with connection:
                connection.settimeout(1)
                with contextlib.suppress(OSError):
                    self.seen.append(connection.recv(500))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    running = Tracker()
    yield running
    running.close()


HOSTILE = """<!doctype html><html><head>
<base href="{t}/" target="_top">
<meta http-equiv="refresh" content="0;url={t}/refresh">
<link rel="stylesheet" href="{t}/style.css"><link rel="preconnect" href="{t}">
<link rel="prefetch" href="{t}/prefetch"><link rel="icon" href="{t}/icon">
<script>top.location = "{t}/script"; parent.document.title = "owned"; alert(1)</script>
<script src="{t}/script.js"></script>
<style>@import "{t}/import.css"; @font-face {{font-family: x; src: url({t}/font)}}
body {{font-family: x; background: url({t}/background)}}</style></head>
<body onload="fetch('{t}/onload')" background="{t}/body">
<h1>Hello</h1>
<img src="{t}/pixel.gif"><img src="x" onerror="parent.document.title='owned'">
<img srcset="{t}/srcset 2x"><picture><source srcset="{t}/source"><img></picture>
<svg onload="parent.document.title='owned'"><image href="{t}/svg"/></svg>
<iframe src="{t}/frame"></iframe><iframe srcdoc="<script>parent.parent.x=1</script>"></iframe>
<object data="{t}/object"></object><embed src="{t}/embed"><video src="{t}/video" autoplay></video>
<audio src="{t}/audio" autoplay></audio><input type="image" src="{t}/input">
<form id="f" action="{t}/form"><input name="q" autofocus onfocus="this.form.submit()">
<button id="submit">Go</button></form>
<a id="js" href="javascript:parent.document.title='owned'">js</a>
<a id="jstop" target="_top" href="javascript:document.title='owned'">js</a>
<a id="jsblank" target="_blank" href="javascript:opener.document.title='owned'">js</a>
<a id="top" target="_top" href="{t}/top">top</a>
<a id="data" target="_self" href="data:text/html,<script>parent.document.title=1</script>">d</a>
</body></html>"""


def test_a_mail_that_means_harm_stays_inert(tab: Tab, inbox, sample, tracker: Tracker):
    html = HOSTILE.format(t=f"http://127.0.0.1:{tracker.port}")
    subject = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    inbox.send(sample.rich(html, subject))
    until(lambda: tab.subjects() == [subject])
    tab.find("#mails a").click()
    until(lambda: tab.text("#title") == subject)
    frame = tab.find("#paper iframe")
    tab.driver.switch_to.frame(frame)
    until(lambda: tab.text("h1") == "Hello")
    for link in ("js", "jstop", "jsblank", "top", "submit", "data"):
        # A blocked navigation may replace the frame's document; then the next are gone.
        if found := tab.driver.find_elements(By.ID, link):
            tab.driver.execute_script("arguments[0].click()", found[0])
            time.sleep(0.1)
    time.sleep(0.7)
    tab.driver.switch_to.default_content()
    for name in ("tab-headers", "tab-source", "tab-text"):
        tab.find(f"#{name}").click()
    assert tab.driver.title.startswith("Inbox")
    assert tab.driver.current_url.startswith(f"{inbox.url}/#/")
    first, *others = tab.driver.window_handles
    for other in others:
        tab.driver.switch_to.window(other)
        assert tab.driver.current_url in ("about:blank", "", "about:blank#blocked")
        tab.driver.close()
    tab.driver.switch_to.window(first)
    assert tracker.seen == []


def test_a_link_opens_a_tab_of_its_own_that_knows_nothing_of_us(tab: Tab, inbox, sample, tracker):
    html = f'<p><a href="http://127.0.0.1:{tracker.port}/reset?token=1">Reset</a></p>'
    inbox.send(sample.rich(html))
    until(tab.subjects)
    tab.find("#mails a").click()
    tab.driver.switch_to.frame(tab.find("#paper iframe"))
    tab.find("a").click()
    request, *_ = until(lambda: [said for said in tracker.seen if said.startswith(b"GET")])
    assert request.startswith(b"GET /reset?token=1 ")
    assert b"referer" not in request.lower()
    tab.driver.switch_to.default_content()
    first, *others = tab.driver.window_handles
    assert len(others) == 1
    for other in others:
        tab.driver.switch_to.window(other)
        tab.driver.close()
    tab.driver.switch_to.window(first)
    assert tab.text("#title") == "Hello"
