"""Reads a template's source before it is ever run and refuses what cannot be safe.

Owns the rules for authors: where an expression may stand in HTML, what a link
must go through, which constructs of Jinja exist here. Never renders. Control
flow is read from top to bottom as it is written; what that misses, the
skeleton sees in the parsed document (``skeleton.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jinja2 import meta, nodes

from mailgate.render import budget, richtext
from mailgate.render.errors import TemplateFault
from mailgate.render.sandbox import Sandbox

#: Attributes whose value a client may follow or fetch.
URL_ATTRIBUTES = frozenset(
    {"href", "src", "srcset", "action", "formaction", "background", "poster", "cite", "xlink:href"}
)
_FORBIDDEN_TAGS = frozenset(
    {"script", "iframe", "object", "embed", "applet", "form", "base", "frame", "frameset", "svg"}
)
_SCHEME = re.compile(r"(?:https?://|mailto:|tel:|cid:)", re.IGNORECASE)
_FETCHING_CSS = re.compile(r"@import|expression\s*\(|javascript:|behavior\s*:", re.IGNORECASE)
_END_OF_STYLE = re.compile(r"</style", re.IGNORECASE)
_TAG = re.compile(r"<(/?[A-Za-z][A-Za-z0-9:-]*)")
_ATTRIBUTE = re.compile(r"\s*([^\s=>\"'/]+)(?:\s*=\s*)?")


def check_syntax(environment: Sandbox, name: str, source: str) -> nodes.Template:
    """Parse a source and refuse the constructs that this house does not have.

    Raises ``TemplateFault``, and Jinja's ``TemplateError`` for what is no Jinja.
    """
    tree = environment.tree(source, name)
    for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        wanted = getattr(node, "template", None)
        if not (isinstance(wanted, nodes.Const) and isinstance(wanted.value, str)):
            raise TemplateFault(
                f"{name} line {node.lineno}: write the name of what is included as plain text"
            )
    for token in tree.find_all(nodes.Getattr):
        group = token.node
        if not (isinstance(group, nodes.Getattr) and _is_theme(group)):
            continue
        if token.attr not in environment.theme.get(group.attr, {}):
            raise TemplateFault(
                f"{name} line {token.lineno}: the theme has no {group.attr}.{token.attr}"
            )
    for constant in tree.find_all(nodes.Const):
        budget.number(constant.value)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateFault(f"{name} line {loop.lineno}: recursive loops are not available")
    for node in tree.find_all((nodes.EvalContextModifier, nodes.ScopedEvalContextModifier)):
        raise TemplateFault(f"{name} line {node.lineno}: escaping cannot be switched off")
    richtext.check_places(tree, name, html=bool(environment.autoescape))
    return tree


def free_names(tree: nodes.Template) -> set[str]:
    """Variables that a source takes from outside: the data, or what the gateway adds."""
    # Blocks see what the template imports and sets at its top; Jinja's own
    # search looks at each block alone. `caller` is the block given to a macro.
    own = {"caller", "super", "self", "loop"}
    for node in tree.body:
        if isinstance(node, nodes.Import):
            own.add(node.target)
        elif isinstance(node, nodes.FromImport):
            own |= {name if isinstance(name, str) else name[1] for name in node.names}
        elif isinstance(node, nodes.Macro):
            own.add(node.name)
        elif isinstance(node, nodes.Assign | nodes.AssignBlock):
            own |= {name.name for name in node.find_all(nodes.Name) if name.ctx == "store"}
    return set(meta.find_undeclared_variables(tree)) - own


def captures(tree: nodes.Template) -> bool:
    """Whether the template looks at its own output before printing it.

    A ``set`` or ``filter`` block, or a macro's result that goes through a
    filter, could see a token where it expects a value: such a template is
    rendered in full each time.
    """
    if next(tree.find_all((nodes.AssignBlock, nodes.FilterBlock)), None) is not None:
        return True
    printed = {id(call) for output in tree.find_all(nodes.Output) for call in _printed(output)}
    printed |= {id(block.call) for block in tree.find_all(nodes.CallBlock)}
    return any(
        id(call) not in printed and _makes_output(call) for call in tree.find_all(nodes.Call)
    )


def _printed(output: nodes.Output) -> Iterator[nodes.Node]:
    pending = list(output.nodes)
    while pending:
        node: nodes.Node | None = pending.pop()
        if isinstance(node, nodes.CondExpr):
            pending += [node.expr1] + ([node.expr2] if node.expr2 else [])
        elif isinstance(node, nodes.Call):
            yield node


def _makes_output(call: nodes.Call) -> bool:
    target = call.node
    return not (
        isinstance(target, nodes.Getattr)
        and target.attr in ("items", "keys", "values", "cycle", "changed")
    )


def check_html(environment: Sandbox, name: str, source: str, *, sheet: bool = False) -> None:
    """Refuse expressions where escaping does not protect; a ``sheet`` is all CSS.

    Raises ``TemplateFault`` that names file, line and rule.
    """
    scan = _Scan(environment, name)
    if sheet:
        scan.place = "style"
    expression: list[str] | None = None
    for line, kind, value in environment.lex(source, name):
        scan.line = line
        if kind == "data":
            scan.data(value)
        elif kind == "variable_begin":
            expression = []
        elif kind == "variable_end":
            scan.expression("".join(expression or ()).strip())
            expression = None
        elif expression is not None:
            expression.append(value)
    scan.end()


class _Scan:
    """Where in the HTML the source stands, fed with data and expressions in turn."""

    def __init__(self, environment: Sandbox, name: str) -> None:
        self.environment = environment
        self.name = name
        self.parsed: dict[str, nodes.Node] = {}
        self.line = 1
        self.place = "text"  # text, tag, value, style, comment
        self.tag = ""
        self.attribute = ""
        self.quote = ""
        self.before = ""  # what the attribute's value or the style sheet holds so far

    def fault(self, rule: str) -> TemplateFault:
        return TemplateFault(f"{self.name} line {self.line}: {rule}")

    def end(self) -> None:
        if self.place in ("tag", "value"):
            raise self.fault(f"the tag <{self.tag}> is not closed")

    def data(self, text: str) -> None:
        at = 0
        while at < len(text):
            at = getattr(self, f"_{self.place}")(text, at)

    def _text(self, text: str, at: int) -> int:
        start = text.find("<", at)
        if start < 0:
            return len(text)
        if text.startswith("<!--", start):
            # Conditional comments hold tags that Outlook reads: scan on, inside.
            return start + 4
        if text.startswith("<!", start):
            end = text.find(">", start)
            return len(text) if end < 0 else end + 1
        found = _TAG.match(text, start)
        if not found:
            return start + 1
        self.tag = found[1].lower()
        if self.tag in _FORBIDDEN_TAGS:
            raise self.fault(f"<{self.tag}> does not work in mail and is refused")
        self.place = "tag"
        return found.end()

    def _tag(self, text: str, at: int) -> int:
        # A name and its "=" may be parted by control blocks: the name is kept.
        while at < len(text) and text[at] in " \t\r\n/=":
            at += 1
        if at >= len(text):
            return at
        if text[at] == ">":
            self.place, self.before = ("style" if self.tag == "style" else "text"), ""
            return at + 1
        if text[at] in "\"'":
            if not self.attribute:
                raise self.fault(f"a stray quote in <{self.tag}>")
            self.place, self.quote, self.before = "value", text[at], ""
            return at + 1
        found = _ATTRIBUTE.match(text, at)
        assert found is not None
        self.attribute = found[1].lower()
        if self.attribute.startswith("on"):
            raise self.fault(f"the attribute {self.attribute} is refused: mail runs no scripts")
        if self.tag == "link" and self.attribute == "href":
            raise self.fault("<link> fetches from elsewhere: put styles into _css")
        return max(found.end(), at + 1)

    def _value(self, text: str, at: int) -> int:
        end = text.find(self.quote, at)
        self.before += text[at:] if end < 0 else text[at:end]
        if end < 0:
            return len(text)
        if self.attribute == "style" and _FETCHING_CSS.search(self.before):
            raise self.fault("a style attribute must not fetch or run anything")
        if self.attribute in URL_ATTRIBUTES and re.match(
            r"\s*(?:javascript|vbscript|data|file):", self.before, re.IGNORECASE
        ):
            raise self.fault(f"the scheme of {self.attribute} is refused")
        self.place, self.attribute = "tag", ""
        return end + 1

    def _style(self, text: str, at: int) -> int:
        found = _END_OF_STYLE.search(text, at)
        end = found.start() if found else -1
        # With the end of what came before: a word may be cut in two by an expression.
        self.before = self.before[-32:] + (text[at:] if end < 0 else text[at:end])
        if _FETCHING_CSS.search(self.before):
            raise self.fault("a style sheet must not fetch or run anything (@import, expression)")
        if end < 0:
            return len(text)
        self.place = "text"
        return end

    def expression(self, source: str) -> None:
        if self.place == "text":
            return
        node = self._parse(source)
        if self.place == "tag":
            raise self.fault(f"an expression in <{self.tag}> stands outside quotes")
        if self.place == "style" or self.attribute == "style":
            if not _is_theme(node):
                raise self.fault("styles take only theme tokens, such as {{ theme.color.brand }}")
        elif self.attribute in URL_ATTRIBUTES and not self._is_link(node):
            raise self.fault(f"an expression in {self.attribute} must end in |url")
        elif _is_markup(node):
            raise self.fault(f"markup cannot stand in an attribute ({self.attribute})")
        self.before += "\0"

    def _parse(self, source: str) -> nodes.Node:
        found = self.parsed.get(source)
        if found is None:
            output = self.environment.tree("{{ " + source + " }}", self.name).body[0]
            assert isinstance(output, nodes.Output)
            found = self.parsed[source] = output.nodes[0]
        return found

    def _is_link(self, node: nodes.Node | None) -> bool:
        if isinstance(node, nodes.CondExpr):
            return self._is_link(node.expr1) and self._is_link(node.expr2)
        if isinstance(node, nodes.Filter) and node.name == "url":
            return not self.before.strip()
        if isinstance(node, nodes.Filter) and node.name == "urlencode":
            # A part may follow a scheme and a host that the author wrote, or a |url.
            before = self.before.strip()
            return bool(_SCHEME.match(before)) or before.startswith("\0")
        return False


def _is_markup(node: nodes.Node) -> bool:
    """Whether an expression gives markup for certain: it would not be escaped again."""
    if isinstance(node, nodes.Filter):
        return node.name == "richtext"
    if not isinstance(node, nodes.Call):
        return False
    called = node.node
    if isinstance(called, nodes.Getattr | nodes.Getitem):
        called = called.node
    return isinstance(called, nodes.Name) and called.name in ("caller", "super", "self")


def _is_theme(node: nodes.Node) -> bool:
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return isinstance(node, nodes.Name) and node.name == "theme"
