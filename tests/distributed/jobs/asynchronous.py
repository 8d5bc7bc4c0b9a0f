"""dist_async with the optimizer on the servers. Arguments: steps, folder ("-": none), "save" or "load" or "-", optimizer."""
import sys

import gluonzoo.distributed
from common import flat, make_net, report, train
from gluonzoo.training import Trainer

import mxnet as mx

steps, folder, what, optimizer = int(sys.argv[1]), *sys.argv[2:5]
arguments = {"learning_rate": 0.05, "momentum": 0.9} if optimizer == "sgd" else {"learning_rate": 0.05}
store = gluonzoo.distributed.create("dist_async")
net = make_net(1)
first = 0
if what == "load":
    net.load_parameters(f"{folder}/net.params")
    first = steps
trainer = Trainer(net, optimizer, arguments, kvstore=store)
if what == "load":
    if store.rank == 0:
        trainer.load_server_states(folder)
    store.barrier()
for number in range(steps):
    trainer.set_learning_rate(0.05 if first + number < 5 else 0.01)
    train(net, trainer, store.rank, store.num_workers, 1, 16, first=first + number)
    mx.nd.waitall()
if what == "save" and store.rank == 0:
    net.save_parameters(f"{folder}/net.params")
    trainer.save_server_states(folder)
alone = make_net(1)
local = Trainer(alone, optimizer, arguments)
for number in range(first + steps):
    local.set_learning_rate(0.05 if number < 5 else 0.01)
    train(alone, local, 0, 1, 1, 16, first=number)
report(store.rank, difference=float(abs(flat(net) - flat(alone)).max()), size=float(abs(flat(net)).max()))
gluonzoo.distributed.leave(0)
