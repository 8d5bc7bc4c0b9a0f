"""The choice of an order for every tensor: a minimum cut, against all choices tried."""
import itertools

from gluonzoo.export.onednn.layouts import choose

import numpy as np
import pytest


def total(labels, costs, joins):
    value = sum(pair[labels[node]] for node, pair in costs.items())
    for a, b, forward, backward in joins:
        if labels[a] != labels[b]:
            value += forward if labels[a] == 0 else backward
    return value


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_costs_less(seed):
    rng = np.random.RandomState(seed)
    nodes = list(range(rng.randint(1, 9)))
    costs = {node: tuple(rng.uniform(0, 1, 2)) for node in nodes}
    for node in nodes:
        if rng.rand() < 0.15:  # One of its ways does not exist.
            pair = list(costs[node])
            pair[rng.randint(2)] = np.inf
            costs[node] = tuple(pair)
    joins = [(a, b) + tuple(rng.uniform(0, 0.6, 2)) for a, b in itertools.combinations(nodes, 2) if rng.rand() < 0.5]
    best = min(total(dict(zip(nodes, labels)), costs, joins) for labels in itertools.product((0, 1), repeat=len(nodes)))
    assert total(choose(costs, joins), costs, joins) == pytest.approx(best)


def test_a_change_of_order_in_between_must_pay():
    costs = {0: (1.0, 5.0), 1: (2.0, 1.5), 2: (1.0, 5.0)}
    joins = [(0, 1, 0.3, 0.3), (1, 2, 0.3, 0.3)]
    assert choose(costs, joins) == {0: 0, 1: 0, 2: 0}
    assert choose(costs, [(a, b, 0.2, 0.2) for a, b, _, _ in joins]) == {0: 0, 1: 1, 2: 0}


def test_costs_of_microseconds_are_told_apart():
    assert choose({0: (1e-6, 2e-6), 1: (5e-7, 4e-7)}, [(0, 1, 2e-7, 2e-7)]) == {0: 0, 1: 0}
    assert choose({0: (1e-6, 2e-6), 1: (5e-7, 4e-7)}, [(0, 1, 5e-8, 5e-8)]) == {0: 0, 1: 1}
