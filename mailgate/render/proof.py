"""Whether the fast way still makes what premailer makes, asked again and again.

Owns the comparison of two documents, the choice of what is compared while mail goes
out, and the end of trust: a template in a language whose skeleton once differed is
rendered in full until it is read anew. Never renders.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import jinja2
from lxml import etree

_log = logging.getLogger(__name__)

#: Of the shapes that are new, the first few and then every so many are proven.
FIRST, EACH = 8, 32
#: Seconds between two samples of a template in a language.
SAMPLED_EACH = 60.0


class Proof:
    """The record of comparisons; ``clock`` is in seconds.

    Templates are known by what they are compiled to: read anew, it is another.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shapes = 0
        self._sampled_at: dict[jinja2.Template, float] = {}
        self._distrusted: set[jinja2.Template] = set()
        self.sampled = 0
        self.differing = 0

    def trusts(self, template: jinja2.Template) -> bool:
        return template not in self._distrusted

    def wants_shape(self) -> bool:
        """Whether the shape that was just made is to be compared."""
        self._shapes += 1
        return self._shapes <= FIRST or self._shapes % EACH == 0

    def wants_sample(self, template: jinja2.Template) -> bool:
        """Whether this mail, made the fast way, is to be compared."""
        now = self._clock()
        if now - self._sampled_at.get(template, now - SAMPLED_EACH) < SAMPLED_EACH:
            return False
        self._sampled_at[template] = now
        self.sampled += 1
        return True

    def holds(self, template: jinja2.Template, filled: str, full: str) -> bool:
        """Whether two documents are the same; one difference is enough to end the trust."""
        if same_document(filled, full):
            return True
        self.differing += 1
        self._distrusted.add(template)
        _log.error(
            "template %s: the skeleton differs, it is rendered in full from now on", template.name
        )
        return False

    def forget(self) -> None:
        """Other templates serve from now on."""
        self._sampled_at.clear()
        self._distrusted.clear()


def same_document(one: str, other: str) -> bool:
    """Whether two documents parse to the same tree.

    libxml2 writes an attribute in single quotes when it holds double ones, and
    leaves ``<!--`` in attributes alone; a filled skeleton escapes both always.
    """
    if one == other:
        return True
    trees = [etree.fromstring(html, etree.HTMLParser()) for html in (one, other)]
    written = [etree.tostring(tree, encoding="unicode", method="html") for tree in trees]
    return written[0] == written[1]
