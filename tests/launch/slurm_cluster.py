"""A Slurm of one's own on this machine: munged, slurmctld and some slurmds in a folder that goes with them."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from launch.processes import dies_with

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONFIG = """\
ClusterName=gztest
SlurmctldHost={machine}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
MinJobAge=300
InactiveLimit=0
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,sched_interval=2,bf_interval=2
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""
NODE = "NodeName={name} NodeHostname={machine} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=2000 State=UNKNOWN"


def missing():
    """What a Slurm here lacks, "" when nothing."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    return f"{', '.join(lacking)} not installed (Debian: munge slurmctld slurmd slurm-client)" if lacking else ""


class Cluster:
    """A context: the daemons run inside it. ``environ`` is for those who talk to them."""

    def __init__(self, nodes=("gza", "gzb")):
        self.nodes, self._daemons = nodes, []
        self.folder = tempfile.mkdtemp(prefix="gzslurm-")      # a short path: sockets have room for 107 characters
        self.config = os.path.join(self.folder, "slurm.conf")
        self.environ = {"SLURM_CONF": self.config, "PATH": PATH}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        os.mkdir(os.path.join(self.folder, "munge"), 0o700)
        for name in ("state", *[f"spool-{name}" for name in self.nodes]):
            os.mkdir(os.path.join(self.folder, name))
        machine, ports = socket.gethostname().split(".")[0], free_ports(1 + len(self.nodes))
        lines = [NODE.format(name=name, machine=machine, port=port) for name, port in zip(self.nodes, ports[1:])]
        with open(self.config, "w") as file:
            file.write(CONFIG.format(folder=self.folder, user=pwd.getpwuid(os.getuid()).pw_name, machine=machine,
                                     ports=ports, nodes="\n".join(lines)))
        munge = os.path.join(self.folder, "munge", "")
        with open(munge + "key", "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(os.urandom(128))
        self._run("munged", "--foreground", "--force", "--num-threads=2", f"--socket={munge}socket",
                  f"--key-file={munge}key", f"--pid-file={munge}pid", f"--log-file={munge}log",
                  f"--seed-file={munge}seed")
        self.wait(lambda: os.path.exists(munge + "socket"), 10, "munged")
        self._run("slurmctld", "-D", "-i")
        for name in self.nodes:
            self._run("slurmd", "-D", "-N", name)
        self.wait(lambda: self.ask("sinfo", "-h", "-o", "%T").split() == ["idle"], 30, "the nodes")

    def _run(self, *argv):
        with open(os.path.join(self.folder, f"{argv[0]}.out"), "ab") as out:
            self._daemons.append(subprocess.Popen(argv, env={**os.environ, **self.environ}, stdin=subprocess.DEVNULL,
                                                  stdout=out, stderr=out, start_new_session=True,
                                                  preexec_fn=dies_with(os.getpid())))

    def wait(self, condition, seconds, what):
        """Wait until the condition holds, as long as all daemons live."""
        deadline = time.monotonic() + seconds
        while not condition():
            dead = [daemon for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() >= deadline:
                raise AssertionError(f"{what}: not within {seconds} s; ended: {[one.args[0] for one in dead]}\n"
                                     + self.logs())
            time.sleep(0.1)

    def ask(self, *argv):
        """What one of Slurm's commands prints."""
        return subprocess.run(argv, env={**os.environ, **self.environ}, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=30).stdout.decode()

    def state(self, job):
        """``scontrol show job`` as a dictionary."""
        return dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", "-o", str(job)).split())

    def logs(self):
        """The ends of all the daemons' logs."""
        text = ""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name.endswith((".log", ".out", "log")):
                    with open(os.path.join(folder, name), errors="replace") as file:
                        text += f"--- {name}\n" + "".join(file.readlines()[-15:])
        return text

    def __exit__(self, *_):
        for daemon in reversed(self._daemons):      # munged last
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count):
    """Ports of 127.0.0.1 on which nobody listens now."""
    socks = [socket.socket() for _ in range(count)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
    finally:
        for sock in socks:
            sock.close()
