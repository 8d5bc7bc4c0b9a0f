"""Local steps averaged after every update, against one worker; and after every third, which must differ. Uneven shares."""
import gluonzoo.distributed
from common import flat, make_net, report, train
from gluonzoo.training import Trainer

store = gluonzoo.distributed.create("dist_sync")
SETTINGS = {"learning_rate": 0.05, "momentum": 0.9, "wd": 1e-3}
results = []
for every in (1, 3):
    net = make_net(seed=3 if store.rank == 0 else 7)
    trainer = Trainer(net, "sgd", SETTINGS, kvstore=store, local_steps=3)
    trainer._local._every = every
    train(net, trainer, store.rank, store.num_workers, 20, 7)
    trainer.synchronize()
    alone = make_net(seed=3)
    train(alone, Trainer(alone, "sgd", SETTINGS), 0, 1, 20, 7)
    results.append(float(abs(flat(net) - flat(alone)).max()))
report(store.rank, difference=results[0], apart=results[1])
gluonzoo.distributed.leave(0)
