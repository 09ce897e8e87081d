"""The studio's page in a real browser: looking, editing, saving, sending."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from mailgate.render.catalogue import built_in_root
from tests.integration.studio import browser
from tests.integration.studio.bench import RunningStudio, write_template
from tests.integration.studio.browser import until
from tests.servers import Sink


class Tab(browser.Tab):
    """The studio in a tab."""

    def names(self) -> list[str]:
        return [one.text for one in self.driver.find_elements(By.CSS_SELECTOR, "#templates .name")]

    def open(self, name: str) -> None:
        self.find(f"#templates a[data-name='{name}']").click()
        until(lambda: self.text("#title") == name)

    def select(self, which: str, value: str) -> None:
        Select(self.find(f"#{which}")).select_by_value(value)

    def meta(self) -> str:
        return self.text("#meta dd")

    def write(self, text: str) -> None:
        """Put ``text`` in place of the data, as a paste does."""
        self.driver.execute_script(
            "const box = document.getElementById('data'); box.value = arguments[0];"
            "box.dispatchEvent(new Event('input'))",
            text,
        )

    def in_mail(self, script: str) -> object:
        """What ``script`` returns inside the mail that is shown."""
        shown = until(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, "#paper iframe:not(.coming)")
        )
        self.driver.switch_to.frame(shown[0])
        try:
            return self.driver.execute_script(f"return {script}")
        finally:
            self.driver.switch_to.default_content()

    def mail_says(self, words: str) -> bool:
        return words in str(self.in_mail("document.body.innerText"))


@pytest.fixture
def tab_on(chrome: Chrome) -> Iterator[Callable[..., Tab]]:
    def make(studio: RunningStudio, where: str = "") -> Tab:
        chrome.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "light"}]},
        )
        tab = Tab(chrome, f"{studio.url}{where}")
        until(tab.names)
        return tab

    yield make
    chrome.get("about:blank")


def test_a_template_is_looked_at_from_all_sides(tab_on, studio):
    tab = tab_on(studio)
    assert "parcel" in tab.names()
    tab.picture("studio-start")
    tab.open("parcel")
    until(lambda: tab.mail_says("Hello, Ann"))
    assert tab.meta() == "A parcel for Ann"
    assert tab.mail_says("Thank you!")

    tab.select("fixture", "minimal")
    until(lambda: tab.mail_says("Hello, Bo"))
    assert not tab.mail_says("Thank you!")
    tab.select("locale", "de")
    until(lambda: tab.meta() == "Ein Paket für Bo")
    until(lambda: tab.mail_says("Es kommt etwas."))

    for width in (375, 800, 600):
        tab.find(f"[data-width='{width}']").click()
        until(lambda width=width: tab.in_mail("innerWidth") == width)
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    assert tab.in_mail(dark) is False
    tab.find("[data-scheme=dark]").click()
    until(lambda: tab.in_mail(dark) is True)

    assert not tab.mail_says("Unsubscribe")
    tab.find("#unsubscribe").click()
    until(lambda: tab.mail_says("Unsubscribe"))

    tab.find("#tab-text").click()
    assert "Es kommt etwas." in tab.text("#text")
    tab.find("#tab-source").click()
    assert tab.text("#source").startswith("<!DOCTYPE html>")
    tab.find("[data-source=mail]").click()
    assert "Content-Type: multipart/alternative" in tab.text("#source")
    tab.find("#tab-size").click()
    assert "of the 102 KB" in tab.text("#size")
    assert "quoted-printable" in tab.text("#size")
    until(lambda: tab.text("#count") == "all good")
    assert tab.complaints() == []


def test_where_one_is_stands_in_the_address(tab_on, studio):
    where = "#/parcel?fixture=minimal&locale=de&width=375&scheme=dark&tab=text&unsubscribe=1"
    tab = tab_on(studio, where)
    until(lambda: tab.meta() == "Ein Paket für Bo")
    assert "Es kommt etwas." in until(lambda: tab.text("#text"))
    assert tab.find("#unsubscribe").is_selected()
    tab.find("#tab-html").click()
    until(lambda: tab.in_mail("innerWidth") == 375)
    tab.driver.refresh()
    until(lambda: tab.meta() == "Ein Paket für Bo")
    assert tab.complaints() == []


def test_data_is_edited_and_its_faults_are_named(tab_on, studio):
    tab = tab_on(studio, "#/parcel?fixture=typical")
    until(lambda: tab.mail_says("Hello, Ann"))
    tab.write('{"name": "Zoë <b>", "url": "https://shop.example/9"}')
    until(lambda: tab.mail_says("Hello, Zoë <b>"))
    assert tab.shows("#edited")

    tab.write('{"nmae": "Zoë", "url": "javascript:x", "note": 3}')
    until(lambda: "data.nmae" in tab.text("#faults"))
    faults = tab.text("#faults")
    assert "data.name\nmissing variable" in faults
    assert "data.nmae\nunknown variable" in faults
    assert "data.url\ndoes not match the pattern" in faults
    assert "data.note\nwrong type" in faults
    assert tab.find("#data").get_attribute("aria-invalid") == "true"
    assert tab.mail_says("Hello, Zoë <b>"), "the last good picture stays"
    tab.picture("studio-faults")

    tab.write('{"name": "Zoë",\n "url": }')
    until(lambda: "line 2, column 9" in tab.text("#faults"))
    tab.find("#reset").click()
    until(lambda: tab.mail_says("Hello, Ann"))
    assert tab.text("#faults") == ""
    assert not tab.shows("#problem")
    assert tab.complaints() == []


def test_a_save_is_shown_by_itself(tab_on, studio, template: Path):
    tab = tab_on(studio, "#/parcel?fixture=typical")
    until(lambda: tab.mail_says("Hello, Ann"))
    good = (template / "en.html").read_text()
    (template / "en.html").write_text(good.replace("Hello, ", "Good morning, "))
    until(lambda: tab.mail_says("Good morning, Ann"))
    until(lambda: tab.text("#live").startswith("Read again at"))

    (template / "en.html").write_text(good.replace("note is defined", "nope is defined"))
    until(lambda: tab.shows("#problem"))
    assert "parcel/en.html: nope is not in the schema" in tab.text("#problem")
    assert "1 broken" in tab.text("#status")
    until(lambda: tab.text("#count") == "1")
    assert "nope is not in the schema\nparcel/en.html" in tab.text("#findings")
    tab.picture("studio-broken")

    (template / "en.html").write_text(good)
    until(lambda: tab.mail_says("Hello, Ann"))
    assert not tab.shows("#problem")

    (template / "fixtures/typical.json").write_text(
        json.dumps({"name": "Cleo", "url": "https://shop.example/3"})
    )
    until(lambda: tab.mail_says("Hello, Cleo"))
    theme = template.parent / "_theme"
    theme.mkdir()
    text = Path("templates/email/_theme/default.json").read_text()
    (theme / "default.json").write_text(text.replace("#ffffff", "#fff5e0"))
    until(lambda: tab.in_mail("document.documentElement.outerHTML.includes('#fff5e0')"))
    assert tab.complaints() == []


def test_edits_survive_a_save(tab_on, studio, template: Path):
    tab = tab_on(studio, "#/parcel?fixture=typical")
    until(lambda: tab.mail_says("Hello, Ann"))
    tab.write('{"name": "Zoë", "url": "https://shop.example/9"}')
    until(lambda: tab.mail_says("Hello, Zoë"))
    (template / "en.subject").write_text("Parcel: {{ name }}")
    until(lambda: tab.meta() == "Parcel: Zoë")
    assert tab.complaints() == []


def _read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_test_mail_goes_to_who_may_get_it_and_to_nobody_else(
    tab_on, open_studio, smtp_sink: Callable[..., Sink]
):
    sink = smtp_sink()
    studio = open_studio(
        relays={"main": {"host": sink.host, "port": sink.port, "security": "none"}},
        streams={"transactional": {"from": "Shop <shop@example.com>", "envelope_from": ""}},
        studio={"send_test": ["*@example.com", "me@corp.example"]},
    )
    tab = tab_on(studio, "#/parcel?fixture=typical&locale=de")
    until(lambda: tab.meta() == "Ein Paket für Ann")
    assert "*@example.com, me@corp.example" in tab.text("#rules")
    tab.write('{"name": "Zoë", "url": "https://shop.example/9"}')

    tab.find("#to").send_keys("boss@corp.example", Keys.ENTER)
    until(lambda: tab.text("#outcome").startswith("Not sent"))
    assert "may go to *@example.com, me@corp.example only" in tab.text("#outcome")
    tab.picture("studio-refused")
    tab.find("#to").clear()
    tab.find("#to").send_keys("ann@EXAMPLE.com", Keys.ENTER)
    until(lambda: tab.text("#outcome").startswith("Sent to ann@"))
    assert "250 2.0.0" in tab.text("#outcome")
    tab.picture("studio-sent")

    (mail,) = until(sink.mails)
    assert b"X-Rcpt-Args: <ann@example.com>" in mail
    assert b"X-Mail-Args: <>" in mail
    message = _read(mail)
    assert message["Subject"] == "Ein Paket für Zoë"
    assert message["From"] == "Shop <shop@example.com>"
    assert message["To"] == "ann@example.com"
    html = message.get_body(("html",))
    assert html is not None
    assert "Es kommt etwas." in html.get_content()
    assert tab.complaints() == []


def test_everything_can_be_done_with_the_keyboard(tab_on, studio, template: Path):
    for name in ("late", "password_reset"):
        write_template(template.parent, name)
    tab = tab_on(studio)
    until(lambda: tab.names() == ["late", "parcel", "password_reset"])
    tab.press("/")
    assert tab.focused() == "search"
    tab.press("pass")
    until(lambda: tab.names() == ["password_reset"])
    tab.press(Keys.ESCAPE)
    until(lambda: len(tab.names()) == 3)
    tab.driver.execute_script("document.querySelector('#templates a').focus()")
    tab.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    until(lambda: tab.text("#title") == "password_reset")
    tab.driver.execute_script("document.querySelector('#tab-html').focus()")
    tab.press(Keys.ARROW_RIGHT)
    assert tab.focused() == "tab-text"
    assert tab.shows("#text")
    assert tab.complaints() == []


def test_nothing_is_wider_than_the_window(tab_on, open_studio, template: Path):
    tab = tab_on(open_studio(built_in_root()))
    across = "return [document.documentElement.scrollWidth, document.body.scrollHeight]"
    for width, height in ((1440, 900), (1280, 900), (820, 900), (375, 812)):
        tab.size(width, height)
        if width == 375:
            tab.find(".back").click()
            until(lambda: tab.shows(".list"))
            assert not tab.find(".reading").is_displayed()
            tab.picture("studio-375-list")
        tab.open("weekly_digest")
        until(lambda: tab.in_mail("document.body.innerText.length > 200"))
        until(lambda: tab.shows("#count"))
        for name in ("text", "source", "size", "html"):
            tab.find(f"#tab-{name}").click()
            assert tab.driver.execute_script(across) == [width, height]
            for scheme in ("dark", "light") if browser.PICTURES else ():
                tab.scheme(scheme)
                tab.picture(f"studio-{width}-{scheme}-{name}")
    # Another template: nothing of the last one is left beside it.
    (template / "en.html").write_text("{% if %}")
    tab.driver.execute_script("location.hash = '#/parcel'")
    until(lambda: tab.text("#count") == "1")
    tab.driver.execute_script("location.hash = '#/welcome'")
    until(lambda: tab.text("#title") == "welcome")
    assert "Expected" not in tab.text("#findings")
    until(lambda: tab.text("#count") == "all good")
    tab.driver.execute_script("document.querySelector('#side').scrollIntoView()")
    tab.picture("studio-375-side")
    assert tab.driver.execute_script("return document.documentElement.scrollTop") == 0
    assert tab.complaints() == []
