"""Inference of one network in torch. Argument: a JSON object as of `infer.py`, engine torch, torch-compile, torch-bf16."""
import json
import os
import sys

import torch
from speed import mark, report, rounds
from torch_models import input_size, make

wishes = {"size": None, "seconds": 2.0, **json.loads(sys.argv[1])}
torch.set_num_threads(wishes["threads"])
torch.manual_seed(0)
mark()
net = make(wishes["model"]).to(memory_format=torch.channels_last)
kind = torch.bfloat16 if wishes["engine"] == "torch-bf16" else torch.float32
net = net.to(kind)
if wishes["engine"] == "torch-compile":
    net = torch.compile(net)
size = wishes["size"] or input_size(wishes["model"])
with torch.inference_mode():
    for batch in wishes["batches"]:
        if wishes["engine"] == "torch-compile":
            torch._dynamo.reset()  # A graph of this batch alone, not one of symbolic sizes.
        data = torch.rand(batch, 3, size, size).to(kind).contiguous(memory_format=torch.channels_last)
        report(batch, rounds(lambda data=data: net(data), wishes["seconds"]))
sys.stdout.flush()
os._exit(0)
