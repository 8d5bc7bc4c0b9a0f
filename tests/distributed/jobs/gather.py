"""Gather and sum arrays whose bits must survive: doubles, negative zero, NaN, infinities, odd numbers of bytes."""
import gluonzoo.distributed
from common import report

import numpy as np

store = gluonzoo.distributed.create("dist_sync")
random = np.random.RandomState(0)
checks = []
for _number in range(30):
    everyone = random.randn(store.num_workers, 2, 3) * 10.0 ** random.randint(-300, 300)
    checks.append(store.gather(everyone[store.rank]).tobytes() == everyone.tobytes())
    expected = everyone[0] + everyone[1]
    for row in everyone[2:]:
        expected = expected + row
    checks.append(store.all_sum(everyone[store.rank]).tobytes() == expected.tobytes())
odd = np.array([[-0.0, np.nan, np.inf], [0.0, -np.inf, 1e-45], [1.0, 2.0, 3.0]], dtype=np.float32)[:store.num_workers]
checks.append(store.gather(odd[store.rank]).tobytes() == odd.tobytes())
small = np.arange(3 * store.num_workers, dtype=np.uint8).reshape(store.num_workers, 3)
checks.append(store.gather(small[store.rank]).tobytes() == small.tobytes())
report(store.rank, checks=checks)
gluonzoo.distributed.leave(0)
