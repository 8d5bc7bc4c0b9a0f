"""A network in float64, which the trainer takes on one machine and refuses in a job."""
import gluonzoo.distributed
from common import make_net
from gluonzoo.errors import run
from gluonzoo.training import Trainer


def main():
    alone = make_net(1)
    alone.cast("float64")
    Trainer(alone, "sgd", {"learning_rate": 0.1}).step(0)
    net = make_net(1)
    net.cast("float64")
    Trainer(net, "sgd", {"learning_rate": 0.1}, kvstore=gluonzoo.distributed.create("dist_sync"))


run(main)
