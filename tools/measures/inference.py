"""Images a second of MXNet's own ResNet-50. Arguments: stock|gluonzoo, batch size."""
import json
import sys
import time

if sys.argv[1] == "stock":
    import stock  # noqa: F401
else:
    import gluonzoo  # noqa: F401

import mxnet as mx
from mxnet.gluon.model_zoo import vision

batch = int(sys.argv[2])
net = vision.resnet50_v1()
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
images = mx.nd.random.uniform(shape=(batch, 3, 224, 224))
for _ in range(2):
    net(images).wait_to_read()
begun, rounds = time.perf_counter(), 0
while time.perf_counter() - begun < 8:
    net(images).wait_to_read()
    rounds += 1
print(json.dumps({"value": rounds * batch / (time.perf_counter() - begun)}))
