"""Which order of values each step writes: the cheapest choice for all together, by a minimum cut.

Each step has a cost in either order, and each tensor that goes from one order to the other a cost for being brought there. The
sum is least at a minimum cut between a source, which stands for one order, and a sink, which stands for the other.

Source: D. M. Greig, B. T. Porteous, A. H. Seheult, Exact Maximum A Posteriori Estimation for Binary Images, 1989.
"""
import collections

__all__ = ["choose"]

_SOURCE, _SINK = "source", "sink"


def choose(costs, joins):
    """For each node, which of two labels costs least in all.

    Args:
        costs: {node: (cost with label 0, cost with label 1)}; infinite where a label cannot be, but not both.
        joins: [(node, other, cost when the first has label 0 and the other 1, cost the other way round)].
    Returns: {node: 0 or 1}.
    """
    # An infinite capacity would make differences of infinities; this one is as good.
    high = 1 + sum(cost for pair in costs.values() for cost in pair if cost < float("inf"))
    high += sum(cost for join in joins for cost in join[2:] if cost < float("inf"))
    capacity = collections.defaultdict(lambda: collections.defaultdict(float))
    for node, (zero, one) in costs.items():
        # A node on the source's side has label 0 and cuts its edge to the sink.
        capacity[node][_SINK] += min(zero, high)
        capacity[_SOURCE][node] += min(one, high)
        capacity[_SINK][node] += 0
        capacity[node][_SOURCE] += 0
    for node, other, forward, backward in joins:
        capacity[node][other] += min(forward, high)
        capacity[other][node] += min(backward, high)
    while True:
        path, amount = _path(capacity)
        if path is None:
            break
        for before, after in zip(path, path[1:]):
            capacity[before][after] -= amount
            capacity[after][before] += amount
    reached = _reached(capacity)
    return {node: 0 if node in reached else 1 for node in costs}


def _path(capacity):
    """A shortest way from source to sink that has capacity left, and how much; (None, 0) when there is none."""
    came = {_SOURCE: None}
    todo = collections.deque([_SOURCE])
    while todo:
        node = todo.popleft()
        for other, left in capacity[node].items():
            if left > 1e-12 and other not in came:
                came[other] = node
                if other == _SINK:
                    path = [_SINK]
                    while came[path[-1]] is not None:
                        path.append(came[path[-1]])
                    path.reverse()
                    return path, min(capacity[a][b] for a, b in zip(path, path[1:]))
                todo.append(other)
    return None, 0.0


def _reached(capacity):
    seen, todo = {_SOURCE}, [_SOURCE]
    while todo:
        for other, left in capacity[todo.pop()].items():
            if left > 1e-12 and other not in seen:
                seen.add(other)
                todo.append(other)
    return seen
