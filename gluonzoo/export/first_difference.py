"""Where two ways to compute one graph part: every layer's output on both sides, in order."""
from .check import relative
from .symbol import TOLERANCE

__all__ = ["depending", "describe", "first_difference"]

#: Layers looked at in one run.
_AT_ONCE = 24


def depending(graph):
    """The operators of a `Graph` whose values depend on the input, in order."""
    names, found = {graph.input}, []
    for node in graph.operators:
        if any(name in names for name, _ in node.inputs):
            names.add(node.name)
            found.append(node)
    return found


def first_difference(graph, ours, theirs, tolerance=TOLERANCE):
    """The first node of a graph, in order, whose first output differs on two sides: (Node, relative difference), or None.

    Args:
        ours, theirs: functions of a list of entries that give their arrays.
        tolerance: the largest relative difference (`check.relative`) that is none.
    """
    nodes = depending(graph)
    for start in range(0, len(nodes), _AT_ONCE):
        some = nodes[start:start + _AT_ONCE]
        entries = [node.entry for node in some]
        for node, a, b in zip(some, ours(entries), theirs(entries)):
            distance = relative(a, b) if a.shape == b.shape else float("inf")
            if not distance <= tolerance:
                return node, distance
    return None


def describe(graph, ours, theirs):
    """What `first_difference` finds, in words."""
    found = first_difference(graph, ours, theirs)
    if found is None:
        return "no layer of the traced graph differs"
    node, distance = found
    return f"the first layer that differs is {node.op} {node.name!r} (relative {distance:.3g})"
