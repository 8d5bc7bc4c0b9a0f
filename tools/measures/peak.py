"""The most arithmetic that MXNet does here: GFLOP/s of a large dense layer in float32. Argument: threads."""
import json
import os
import sys

import gluonzoo

import mxnet as mx
from speed import rounds

gluonzoo.runtime.set_threads(int(sys.argv[1]))
SIZE = 3072
left, right = mx.nd.random.uniform(shape=(SIZE, SIZE)), mx.nd.random.uniform(shape=(SIZE, SIZE))
# oneDNN's product; mx.nd.dot is another library's.
times = rounds(lambda: mx.nd.FullyConnected(left, right, num_hidden=SIZE, no_bias=True).wait_to_read(), 3)
print(json.dumps({"value": 2e-9 * SIZE ** 3 / min(times)}), flush=True)
os._exit(0)
