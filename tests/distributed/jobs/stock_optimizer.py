"""What MXNet's own Trainer does with update_on_kvstore: it sends the servers a pickled optimizer."""
import gluonzoo  # noqa: F401

import mxnet as mx

store = mx.kv.create("dist_sync")
store.init(1, mx.nd.ones((2,)))
if store.rank == 0:
    store.set_optimizer(mx.optimizer.SGD())
store._barrier()
store.push(1, mx.nd.ones((2,)))
out = mx.nd.zeros((2,))
store.pull(1, out)
print("value", out.asnumpy(), flush=True)
