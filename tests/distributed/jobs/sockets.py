"""Report the listening addresses of all processes of this job."""
import os
from pathlib import Path

import gluonzoo.distributed
from common import make_net, report, train
from gluonzoo.training import Trainer

store = gluonzoo.distributed.create("dist_sync")
net = make_net(1)
train(net, Trainer(net, kvstore=store), store.rank, store.num_workers, 2, 8)
mark = os.environ["GLUONZOO_TEST_MARK"].encode()
inodes = {}
for process in Path("/proc").iterdir():
    try:
        if not process.name.isdigit() or mark not in (process / "environ").read_bytes():
            continue
        for handle in (process / "fd").iterdir():
            target = os.readlink(handle)
            if target.startswith("socket:["):
                inodes[target[8:-1]] = process.name
    except OSError:
        continue
listening = []
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            listening.append(fields[1].split(":")[0])
store.barrier()
report(store.rank, listening=listening)
gluonzoo.distributed.leave(0)
