"""Where a Python file can be changed in one place, and into what."""

from __future__ import annotations

import ast
from pathlib import Path

BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Pow: "*", ast.Mod: "*"}
BOUNDARY = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
OTHER_WAY = {
    ast.Lt: ">",
    ast.LtE: ">=",
    ast.Gt: "<",
    ast.GtE: "<=",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
}
LEFT_OUT = {"clamp", "abs", "sqrt", "square", "sort", "flip", "mean", "masked_fill_", "masked_fill", "clamp_min"}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "amax": "amin"}


Place = tuple[int, str, str, int, int]  # line, old, new, begin and end in bytes


class Places(ast.NodeVisitor):
    """All places of a file where it can be changed: ``(line, old, new, begin, end)`` of the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))
        self.raw = text.encode()
        self.found: list[Place] = []

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return where the text of ``node`` begins and ends, in bytes."""
        begin = self.starts[node.lineno - 1] + node.col_offset
        return begin, self.starts[node.end_lineno - 1] + node.end_col_offset

    def source(self, node: ast.AST) -> str:
        """Return the text of ``node``."""
        begin, end = self.span(node)
        return self.raw[begin:end].decode()

    def put(self, node: ast.AST, new: str) -> None:
        """Note that ``node`` may be replaced by ``new``."""
        self.found.append((node.lineno, self.source(node), new, *self.span(node)))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit the body and the defaults; annotations, decorators and the docstring say nothing to a computer."""
        for each in [*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body]:
            self.visit(each)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body: what decorators and bases did is done before anything is changed."""
        for each in node.body:
            self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visit the value only."""
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """What a message says is no part of the numbers; that it is raised is the condition before it."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Text."""

    def visit_Expr(self, node: ast.Expr) -> None:
        """Leave out statements that are calls, other than warnings."""
        if isinstance(node.value, ast.Call):
            if "warn" in self.source(node.value.func):
                return
            self.put(node, "None")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operator. ``2**24`` is a size of blocks: with another one the same comes out."""
        if (
            isinstance(node.op, ast.Pow)
            and isinstance(node.left, ast.Constant)
            and isinstance(node.right, ast.Constant)
        ):
            return
        if type(node.op) in BINARY:
            self.put(node, f"{self.source(node.left)} {BINARY[type(node.op)]} ({self.source(node.right)})")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Another operator."""
        if type(node.op) in BINARY:
            self.put(node, f"{self.source(node.target)} {BINARY[type(node.op)]}= {self.source(node.value)}")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """The boundary, and the other way round."""
        for table in (BOUNDARY, OTHER_WAY):
            if len(node.ops) == 1 and type(node.ops[0]) in table:
                self.put(
                    node, f"{self.source(node.left)} {table[type(node.ops[0])]} {self.source(node.comparators[0])}"
                )
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """The other connective."""
        other = " or " if isinstance(node.op, ast.And) else " and "
        self.put(node, "(" + other.join(f"({self.source(value)})" for value in node.values) + ")")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Without it."""
        self.put(node, f"({self.source(node.operand)})")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The other branch."""
        self.put(node.test, f"(not ({self.source(node.test)}))")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """The other branch."""
        self.put(node.test, f"(not ({self.source(node.test)}))")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another number or truth."""
        if isinstance(node.value, bool):
            self.put(node, str(not node.value))
        elif isinstance(node.value, int):
            self.put(node, str(node.value + 1))
        elif isinstance(node.value, float):
            self.put(node, repr(node.value * 2 if node.value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        """Without what the method does, or its opposite."""
        if isinstance(node.func, ast.Attribute):
            owner, name = self.source(node.func.value), node.func.attr
            if name in LEFT_OUT and owner not in ("torch", "math"):
                self.put(node, owner)
            if name in SWAPPED:
                text, head = self.source(node), f"{owner}.{name}"
                self.put(node, f"{owner}.{SWAPPED[name]}{text[len(head) :]}")
        self.generic_visit(node)


def places(path: Path) -> list[Place]:
    """Return all places of the file ``path`` where it can be changed, those that change nothing left out."""
    text = path.read_text()
    visitor = Places(text)
    visitor.visit(ast.parse(text))
    return [place for place in visitor.found if place[1] != place[2]]


def lines_of(path: Path, place: Place) -> range:
    """Return the lines of the innermost statement around ``place``, of a compound one its head; none at import."""
    inside: list[ast.stmt] = []
    todo: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text()), False)]
    while todo:
        node, called = todo.pop()
        for each in ast.iter_child_nodes(node):
            if hasattr(each, "lineno") and not each.lineno <= place[0] <= each.end_lineno:
                continue
            todo.append((each, called or isinstance(node, ast.FunctionDef)))
            if isinstance(each, ast.stmt) and (called or isinstance(node, ast.FunctionDef)):
                inside.append(each)
    if not inside:
        return range(0)
    own = min(inside, key=lambda node: node.end_lineno - node.lineno)
    if isinstance(own, ast.FunctionDef | ast.ClassDef):
        return range(0)
    body = getattr(own, "body", None)
    return range(own.lineno, body[0].lineno if body and body[0].lineno > own.lineno else own.end_lineno + 1)
