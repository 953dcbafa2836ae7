"""The API reference: a page for each room of score_jax, made of signatures and docstrings.

The source is read, not imported, so that a signature is shown as it is written. Docstrings are
Markdown: an indented block is code, and `name: what it is` of an argument becomes a list's item.
"""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parents[1]
PACKAGE = HERE.parent / "score_jax"


def rooms():
    """{room: its modules}, a module each file, the package's own first."""
    found = {}
    files = sorted(PACKAGE.rglob("*.py"), key=lambda file: (file.stem != "__init__", str(file)))
    for file in files:
        if file.parent == PACKAGE and file.stem == "__init__":
            continue
        found.setdefault(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(file)
    return dict(sorted(found.items()))


def dotted(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def public(body):
    """Functions and classes that are meant to be used from elsewhere, and have something to say."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = (node for node in body if isinstance(node, kinds) and not node.name.startswith("_"))
    return [node for node in nodes if ast.get_docstring(node)]


def page(room, files):
    parts = [f"# {room}", *(part for file in files for part in module(file))]
    return "\n\n".join(parts) + "\n"


def module(file):
    tree = ast.parse(file.read_text())
    Qualified(tree, dotted(file)).visit(tree)
    name, text, members = dotted(file), ast.get_docstring(tree), public(tree.body)
    if not (text or members):
        return
    yield f"## {name}\n\n" + directive("py:module", name, "")
    yield markdown(text or "", ())
    for node in members:
        yield entry(node, ())


class Qualified(ast.NodeTransformer):
    """Annotations with our names in full, as Sphinx wants them to link each to its own place."""

    def __init__(self, tree, module):
        self.full = {
            alias.name: f"{node.module}.{alias.name}"
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module.startswith("score_jax.")
            for alias in node.names
            if alias.name[0].isupper()
        }
        classes = (node.name for node in tree.body if isinstance(node, ast.ClassDef))
        self.full |= {name: f"{module}.{name}" for name in classes}

    def visit_arg(self, node):
        node.annotation = node.annotation and Names(self.full).visit(node.annotation)
        return node

    def visit_AnnAssign(self, node):
        node.annotation = Names(self.full).visit(node.annotation)
        return node

    def visit_FunctionDef(self, node):
        node.returns = node.returns and Names(self.full).visit(node.returns)
        return self.generic_visit(node)


class Names(ast.NodeTransformer):
    def __init__(self, full):
        self.full = full

    def visit_Name(self, node):
        return ast.Name("~" + self.full[node.id]) if node.id in self.full else node


def entry(node, outer):
    """A function, or a class with its methods, as a directive of Sphinx's Python domain."""
    if isinstance(node, ast.FunctionDef):
        kind = "py:method" if outer else "py:function"
        marks = {ast.unparse(mark) for mark in node.decorator_list}
        if outer and marks & {"property", "functools.cached_property", "cached_property"}:
            kind = "py:property"
        arguments = ast.unparse(node.args)
        if outer and "staticmethod" not in marks:
            arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        head = node.name if kind == "py:property" else f"{node.name}({arguments}){returns}"
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        return directive(kind, head, markdown(ast.get_docstring(node), names))
    fields = [
        item for item in node.body
        if isinstance(item, ast.AnnAssign) and not item.target.id.startswith("_")
    ]  # fmt: skip
    given = ", ".join(ast.unparse(item).replace(" = ", "=") for item in fields)
    text = markdown(ast.get_docstring(node), [item.target.id for item in fields])
    methods = (entry(item, (*outer, node.name)) for item in public(node.body))
    return directive("py:class", f"{node.name}({given})", "\n\n".join([text, *methods]))


def directive(name, argument, content):
    """A fence longer than any within."""
    argument = " ".join(argument.split())
    fence = ":" * max([3, *(len(run) + 1 for run in re.findall(r"^:{3,}", content, re.MULTILINE))])
    return f"{fence}{{{name}}} {argument}\n\n{content}\n{fence}" if content else (
        f"{fence}{{{name}}} {argument}\n{fence}"
    )  # fmt: skip


def markdown(text, names):
    """A docstring as Markdown: arguments as items, nothing taken for HTML or for a formula."""
    lines = []
    for line in text.splitlines():
        if line.startswith("    "):  # code
            lines.append(line)
            continue
        item = re.match(r"((?:\w+, )*\w+): (.*)", line)
        if item and set(item[1].split(", ")) <= {*names}:
            line = f"- **{item[1].replace('_', chr(92) + '_')}**: {item[2]}"
        line = re.sub(r"(`[^`]*`)|([<$])", lambda m: m[1] or chr(92) + m[2], line)
        lines.append(line)
    return "\n".join(lines)


def write(app):
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    pages = {f"{room}.md": page(room, files) for room, files in rooms().items()}
    listed = "\n".join(name.removesuffix(".md") for name in pages)
    pages["index.md"] = (
        "# API reference\n\nA page for each room of the code, in the words of its docstrings; "
        "[the architecture](../architecture.md) says how they hang together.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():  # left where nothing is new: little is built again
        if not (folder / name).is_file() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
