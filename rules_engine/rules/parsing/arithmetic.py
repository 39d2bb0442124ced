"""Arithmetic in YAML: an operation as key, and what it takes as a list."""

from __future__ import annotations

from rules_engine.definitions.source import Items, Mapping, Node
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.arithmetic import ON_TWO, Operation
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key

_NAMES = tuple(operation.value for operation in Operation)


def operation_in(node: Mapping) -> tuple[Operation, tuple[Node, ...]]:
    """Return the operation of a mapping such as ``{product: [quantity, price]}``, and what it takes.

    Raises
    ------
    Refusal
        if it is none.
    """
    for entry in node:
        if entry.key not in _NAMES:
            hint = nearest(entry.key, _NAMES) or f"there are {listing(_NAMES)}"
            raise at_key("unknown-key", entry, f"there is no operation `{entry.key}`", hint)
    if len(node.entries) != 1:
        raise Refusal("wrong-shape", node, "one operation is expected here", f"there are {listing(_NAMES)}")
    entry = node.entries[0]
    return Operation(entry.key), terms_of(Operation(entry.key), entry.value)


def terms_of(operation: Operation, node: Node) -> tuple[Node, ...]:
    """Return what an operation takes.

    Raises
    ------
    Refusal
        if it is no list, or one of another length.
    """
    name = operation.value
    if not isinstance(node, Items):
        raise Refusal("wrong-shape", node, f"`{name}` takes a list, not {describe(node)}", f"write `{name}: [A, B]`")
    if len(node.items) < 2 or (operation in ON_TWO and len(node.items) > 2):
        most = "two" if operation in ON_TWO else "two or more"
        raise Refusal("wrong-shape", node, f"`{name}` takes {most}, and these are {len(node.items)}")
    return node.items
