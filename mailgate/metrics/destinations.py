"""A recipient's domain as a label: the few large receivers, and ``other``.

Owns the list. Whoever a domain belongs to, the label's values stay this few: a label
for every domain would let any sender of mail fill the memory of the monitoring.
"""

from __future__ import annotations

_LARGE = {
    "google": "gmail.com googlemail.com",
    "microsoft": "outlook.com hotmail.com live.com msn.com hotmail.co.uk hotmail.fr hotmail.de"
    " outlook.de outlook.fr live.co.uk",
    "yahoo": "yahoo.com ymail.com rocketmail.com aol.com yahoo.co.uk yahoo.fr yahoo.de yahoo.it"
    " yahoo.es yahoo.com.br yahoo.co.in",
    "yahoo_japan": "yahoo.co.jp",
    "apple": "icloud.com me.com mac.com",
    "proton": "proton.me protonmail.com pm.me",
    "gmx": "gmx.de gmx.net gmx.com gmx.at gmx.ch web.de",
    "telekom": "t-online.de magenta.de",
    "orange": "orange.fr wanadoo.fr",
    "comcast": "comcast.net",
    "tencent": "qq.com foxmail.com",
    "netease": "163.com 126.com yeah.net",
    "naver": "naver.com",
    "yandex": "yandex.ru yandex.com ya.ru",
    "mail_ru": "mail.ru bk.ru inbox.ru list.ru",
}

OTHER = "other"

_GROUPS = {domain: group for group, domains in _LARGE.items() for domain in domains.split()}

#: Every value that the label can have.
DESTINATIONS = (*_LARGE, OTHER)


def destination(email: str) -> str:
    """The receiver that an address belongs to, of ``DESTINATIONS``."""
    return _GROUPS.get(email.rpartition("@")[2].lower(), OTHER)
