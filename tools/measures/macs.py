"""Multiply-adds of one image. Argument: a JSON list of the network's name and the image's height and width."""
import json
import sys

import gluonzoo
from gluonzoo.summary import summarize

model, size = json.loads(sys.argv[1])
net = gluonzoo.get_model(model)
net.initialize()
print(json.dumps({"value": summarize(net, (gluonzoo.model_spec(model).input_shape[0], size, size)).macs}))
