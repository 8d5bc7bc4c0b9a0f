"""Training of one network in torch. Argument: a JSON object as of `train.py`, engine torch or torch-compile."""
import json
import os
import sys

import torch
from speed import mark, report, rounds
from torch_models import input_size, make

wishes = {"size": None, "seconds": 5.0, **json.loads(sys.argv[1])}
torch.set_num_threads(wishes["threads"])
torch.manual_seed(0)
mark()
net = make(wishes["model"]).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
loss_of = torch.nn.CrossEntropyLoss()
forward = torch.compile(net) if wishes["engine"] == "torch-compile" else net
size = wishes["size"] or input_size(wishes["model"])


def measure(batch):
    torch._dynamo.reset()  # A graph of this batch alone, not one of symbolic sizes.
    images = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(forward(images), labels).backward()
        optimizer.step()

    report(batch, rounds(step, wishes["seconds"], least=3))


for batch in wishes["batches"]:
    measure(batch)
sys.stdout.flush()
os._exit(0)
