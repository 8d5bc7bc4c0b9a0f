"""Train like one worker would, several times over, from a different random start on every rank.

Arguments: repetitions, samples of the global batch, kvstore, optimizer.
"""
import sys

import gluonzoo.distributed
from common import digest, flat, make_net, report, train
from gluonzoo.training import Trainer

repetitions, size, kind, optimizer = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
arguments = {"learning_rate": 0.05, **({"momentum": 0.9} if optimizer == "sgd" else {})}
store = gluonzoo.distributed.create(kind)
results = []
for repetition in range(repetitions):
    # Only rank 0's weights may count.
    net = make_net(seed=repetition if store.rank == 0 else 77)
    # Inference before the trainer exists, which made the stock one abort the servers.
    import mxnet as mx
    net(mx.nd.zeros((2, 16))).asnumpy()
    trainer = Trainer(net, optimizer, arguments, kvstore=store)
    train(net, trainer, store.rank, store.num_workers, 20, size)
    alone = make_net(seed=repetition)
    train(alone, Trainer(alone, optimizer, arguments), 0, 1, 20, size)
    results.append([digest(net), float(abs(flat(net) - flat(alone)).max())])
total = store.all_sum(__import__("numpy").array([store.rank + 1.0]))
report(store.rank, results=results, total=float(total[0]), index=__import__("os").environ["GLUONZOO_ROLE_INDEX"])
gluonzoo.distributed.leave(0)
