"""What happens in a trial, drawn from a seed: the job, and the faults that hit it."""
import random
from dataclasses import dataclass
from typing import Optional, Tuple

__all__ = ["Fault", "Trial", "draw", "UPDATES", "ROLES", "CARRIERS"]

UPDATES = 120           # of the job: 2 epochs of 1,433 images, 24 an update
EVERY = 5               # updates between checkpoints
ROLES = ("scheduler", "server", "worker")
CARRIERS = ("agent", "keeper", "channel")       # the processes that carry a job on other hosts
SIGNALS = ("SIGKILL", "SIGSTOP", "SIGTERM")


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    moment: "time", so many seconds after the fault before it, or the start of the job; "start", so many seconds after the
        next attempt's first process; "update", when so many updates are done; "checkpoint", while one is being written, after
        so many updates. when: that number. victim: a role, one of the processes that carry it (ssh only), or "host". pick:
        which of several, in [0, 1). action: a signal, or "cut": the host's link carries nothing for `seconds`, or, when that
        is None, until the launcher has given the attempt up.
    """

    victim: str
    action: str
    moment: str = "update"
    when: float = 40
    pick: float = 0.0
    seconds: Optional[float] = None

    def __str__(self):
        moment = {"time": f"{self.when:.1f} s later", "start": f"{self.when:.1f} s after a start",
                  "update": f"at update {self.when:.0f}", "checkpoint": f"in a checkpoint after update {self.when:.0f}"}
        action = self.action
        if action == "cut":
            action += " until the restart" if self.seconds is None else f" for {self.seconds:.1f} s"
        return f"{self.victim} {action} {moment[self.moment]}"


@dataclass(frozen=True)
class Trial:
    """A job and its faults.

    layout: for ssh, the lines of the hostfile, with {1} to {3} for the hosts' addresses.
    """

    seed: int
    workers: int
    servers: int
    launcher: str
    faults: Tuple[Fault, ...]
    layout: Tuple[str, ...] = ()
    stall: float = 20
    host_timeout: float = 6


def _layout(rng, workers):
    """A hostfile over three hosts: servers apart from the workers, or everything everywhere."""
    slots = -(-workers // 2)
    if rng.random() < 0.6:
        return "{1} role=scheduler,server", f"{{2}} role=worker slots={slots}", f"{{3}} role=worker slots={slots}"
    return tuple(f"{{{host}}} slots={-(-workers // 3)}" for host in (1, 2, 3))


def _fault(rng, launcher, signals, first):
    moment = rng.choice(("time", "start", "update", "update", "checkpoint"))
    when = {"time": rng.uniform(0, 8 if first else 14), "start": rng.uniform(0, 4),
            "update": rng.randrange(1, UPDATES - 2), "checkpoint": rng.randrange(0, UPDATES - 2 * EVERY)}[moment]
    fault = {"moment": moment, "when": when, "pick": rng.random()}
    if launcher == "ssh" and rng.random() < 0.3:
        return Fault("host", "cut", seconds=rng.choice((None, rng.uniform(1, 4), rng.uniform(5, 12))), **fault)
    victims = ROLES + (CARRIERS if launcher == "ssh" else ())
    # Half of the signals go to workers and servers, who have most to lose.
    victim = rng.choice(("server", "worker")) if rng.random() < 0.5 else rng.choice(victims)
    return Fault(victim, rng.choice(signals), **fault)


def draw(seed, ssh=True, short=False):
    """The trial of a seed.

    Args: ssh: whether every second one is over ssh and namespaces. short: one fault, that is noticed at once, and few
        processes.
    """
    rng = random.Random(f"chaos {seed} {short}")
    launcher = "ssh" if ssh and seed % 2 else "local"
    workers, servers = (rng.randint(1, 2), 1) if short else (rng.randint(1, 4), rng.randint(1, 2))
    signals = ("SIGKILL", "SIGTERM") if short else SIGNALS
    faults = tuple(_fault(rng, launcher, signals, number == 0) for number in range(1 if short else rng.randint(1, 3)))
    # Under load four workers need long to say their first word, and silence is no progress.
    return Trial(seed, workers, servers, launcher, faults, _layout(rng, workers) if launcher == "ssh" else (),
                 stall=20 if workers < 3 else 30)
