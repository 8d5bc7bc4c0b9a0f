"""A job in which worker 1 ends badly in mid-training, the way named by the first argument."""
import os
import sys
import time

import gluonzoo.distributed
from common import make_net, train
from gluonzoo.errors import UserError, run
from gluonzoo.training import Trainer


def main():
    store = gluonzoo.distributed.create("dist_sync")
    net = make_net(1)
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1}, kvstore=store)
    train(net, trainer, store.rank, store.num_workers, 3, 8)
    print("three steps done", flush=True)
    if store.rank == 1:
        way = sys.argv[1]
        if way == "raise":
            raise RuntimeError("a wrong turn")
        if way == "user-error":
            raise UserError("a wrong flag")
        if way == "exit":
            sys.exit(3)
        if way == "kill":
            os.kill(os.getpid(), 9)
        if way == "hang":
            time.sleep(1000)
    train(net, trainer, store.rank, store.num_workers, 100000, 8, first=3)


if len(sys.argv) > 2:
    main()  # Without the guard, as in a person's own script.
    gluonzoo.distributed.leave(0)
run(main)
