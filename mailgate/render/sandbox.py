"""The Jinja environment: what a template can reach.

Owns the sandbox; ``budget`` says how much work a template may make. Reads
no file: sources come in as a mapping. Never trusts Jinja's own sandbox alone:
data is plain JSON, globals are empty, filters are an allow-list, and only
macros and a mapping's ``items``, ``keys`` and ``values`` can be called
(CVE-2024-56326, CVE-2024-56201, CVE-2025-27516).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from jinja2 import DictLoader, StrictUndefined, Template, Undefined, UndefinedError, nodes
from jinja2.compiler import CodeGenerator
from jinja2.environment import TemplateModule
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.runtime import (
    BlockReference,
    Context,
    LoopContext,
    Macro,
    TemplateReference,
    new_context,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from mailgate.render import budget
from mailgate.render.budget import spend
from mailgate.render.errors import RenderError
from mailgate.render.filters import FILTERS, TESTS
from mailgate.render.printing import finalize_html, finalize_text, state

#: Style sheets that one source may take in, all levels together.
SHEETS = 50

_MAPPING_METHODS = frozenset({"items", "keys", "values"})
_LOOP = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0"}
    | {"previtem", "nextitem", "cycle", "changed"}
)


class _Guards(NodeTransformer):
    """Puts the budget around each loop, each ``~`` and each ``in``; settles what is constant.

    Theme tokens become constants and style sheets become part of what includes
    them, so that a rendering spends nothing on them.
    """

    def __init__(self, environment: Sandbox) -> None:
        self.environment = environment
        self.sheets = 0

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _wrapped(node.iter, "_loop")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        pieces = nodes.List(node.nodes, lineno=node.lineno, environment=node.environment)
        return _wrapped(pieces, "_tilde")

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        if node.op in ("in", "notin"):
            node.expr = _wrapped(node.expr, "_searched")
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        group = node.node
        if isinstance(group, nodes.Getattr) and isinstance(group.node, nodes.Name):
            tokens = self.environment.theme.get(group.attr, {})
            if group.node.name == "theme" and node.attr in tokens:
                return _constant(node, tokens[node.attr])
        self.generic_visit(node)
        return node

    def visit_Include(self, node: nodes.Include) -> Any:
        name = node.template.value if isinstance(node.template, nodes.Const) else None
        if not (isinstance(name, str) and name.endswith(".css")):
            return node
        source = self.environment.sources.get(name)
        if source is None:
            return node
        self.sheets += 1
        if self.sheets > SHEETS:
            raise TemplateSyntaxError(f"takes in more than {SHEETS} style sheets", node.lineno)
        return self.visit(self.environment.tree(source, name)).body


def _constant(node: nodes.Node, value: Any) -> nodes.Node:
    return nodes.Const(value, lineno=node.lineno, environment=node.environment)


def _wrapped(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(
        node, name, [], [], None, None, lineno=node.lineno, environment=node.environment
    )


class _Generator(CodeGenerator):
    """Writes printed values through ``finalize`` alone, which escapes by itself.

    What is constant is printed while compiling only where it is text or a number: of all
    else Jinja would take Python's own words for it, with an address in memory.
    """

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            kind = type(node.as_const(frame.eval_ctx))
            if kind is bool or not issubclass(kind, str | int | float):
                raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write("environment.finalize(")

    def _output_child_post(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write(")")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment over a fixed set of sources.

    ``theme`` is the one global: typed tokens, safe inside CSS.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    code_generator_class = _Generator
    concat = staticmethod(budget.concat)

    def __init__(self, sources: Mapping[str, str], *, html: bool, theme: Mapping[str, Any]) -> None:
        self.sources = sources
        self.theme = theme
        super().__init__(
            loader=DictLoader(sources),
            autoescape=html,
            undefined=StrictUndefined,
            finalize=finalize_html if html else finalize_text,
            auto_reload=False,
            cache_size=-1,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        self.globals.clear()
        self.globals["theme"] = theme
        self.filters = {name: budget.guarded(name, made) for name, made in FILTERS.items()}
        self.filters |= {
            "join": budget.join,
            "_loop": budget.loop,
            "_searched": budget.searched,
            "_tilde": budget.tilde_html if html else budget.tilde_text,
        }
        self.tests = {
            name: budget.guarded(name, cast("Callable[..., Any]", self.tests[name]))
            for name in TESTS
        }

    def tree(self, source: str, name: str) -> nodes.Template:
        """The source as its author wrote it, without guards: for checking."""
        return super()._parse(source, name, None)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        guarded = _Guards(self).visit(super()._parse(source, name, filename))
        assert isinstance(guarded, nodes.Template)
        return guarded

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What ``obj.attribute`` may mean; all else is undefined.

        A mapping's own keys come first, or an order's ``items`` would be a method.
        """
        kind = type(obj)
        if kind is dict:
            try:
                return obj[attribute]
            except KeyError:
                if attribute in _MAPPING_METHODS:
                    return getattr(obj, attribute)
        elif kind is LoopContext:
            if attribute in _LOOP:
                return getattr(obj, attribute)
        elif kind is TemplateModule:
            found = obj.__dict__.get(attribute)
            if type(found) is Macro:
                return found
        elif kind is TemplateReference:
            return self.getitem(obj, attribute)
        elif isinstance(obj, Undefined):
            str(obj)  # raises and names the variable
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a block, or one of the few methods that ``getattr`` gives out."""
        spend(1)
        kind = type(__obj)
        if kind is Macro:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return __obj(__context.eval_ctx, *args, **kwargs)
        if kind is BlockReference:
            return __obj()
        method = getattr(__obj, "__name__", "")
        owner = type(getattr(__obj, "__self__", None))
        if (owner is dict and method in _MAPPING_METHODS) or (
            owner is LoopContext and method in ("cycle", "changed")
        ):
            return __obj(*args)
        raise SecurityError("only macros and blocks can be called")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        # Text times a number, `%` formatting and powers make much out of little.
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise RenderError("template_broken", f"{operator!r} takes numbers; join text with '~'")
        if operator == "**":
            raise RenderError("template_broken", "'**' is not available in templates")
        budget.number(left)
        budget.number(right)
        return super().call_binop(context, operator, left, right)

    def get_template(self, *args: Any, **kwargs: Any) -> Template:
        """Also what ``include`` and ``import`` call: each costs a step."""
        spend(1)
        return super().get_template(*args, **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        # Jinja computes what is constant while it compiles: within a budget too.
        with budget.apart():
            return super()._generate(*args, **kwargs)


def produce(
    template: Template, variables: Mapping[str, Any], values: list[str] | None
) -> list[str]:
    """Run a compiled template; give the pieces of its output.

    With a list as ``values``, printed values go there and tokens into the
    pieces; without, the pieces are the output itself. Constant pieces are the
    same objects every time, so that hashing them again costs nothing.

    Raises ``RenderError`` and nothing else.
    """
    state.values = values
    budget.begin()
    try:
        # The globals are few, and our own: Jinja would put them together anew for each mail.
        # Where no names of its own are given, an imported template is made once.
        context = new_context(
            template.environment,
            template.name,
            template.blocks,
            {**template.environment.globals, **variables},
            shared=True,
        )
        return list(template.root_render_func(context))
    except RenderError:
        raise
    except UndefinedError as error:
        # The data has passed its schema, so the template uses what that allows to be absent.
        raise RenderError("template_broken", f"{template.name}: {error}") from None
    except SecurityError as error:
        raise RenderError("template_broken", f"{template.name}: {error}") from None
    except RecursionError:
        raise RenderError("budget", f"{template.name}: macros call each other endlessly") from None
    except Exception as error:  # whatever an expression did, it does every time
        name = type(error).__name__
        raise RenderError("template_broken", f"{template.name}: {name} in an expression") from error
    finally:
        state.values = None
