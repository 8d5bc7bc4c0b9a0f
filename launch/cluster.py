"""What --launcher kubernetes is asked for: its options, and names and sizes as Kubernetes takes them."""
import re
from typing import NamedTuple, Optional, Tuple

from launch.spec import JobSpec, LaunchError, check

__all__ = ["Cluster", "add_options", "asked", "check_cluster", "KEY_NAME"]

JOIN_PORT, CHANNEL_PORT = 29500, 29501
KEY_NAME = "join.key"
LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"                      # RFC 1123
REFUSED = (("hostfile", "-H/--hostfile"), ("host", "--host"), ("interface", "--interface"),
           ("max_workers", "--max-workers"), ("oversubscribe", "--oversubscribe"), ("sync_dst_dir", "--sync-dst-dir"),
           ("num_hosts", "--num-hosts"), ("insecure_network", "--insecure-network"),
           ("join_key_file", "--join-key-file"))


class Cluster(NamedTuple):
    """What is asked of the cluster.

    Args: python, folder: in the image: of everything, of the checkout.  secret: name of one that exists.  volume:
        (claim, path), size: of a claim to be made.  user: number under which everything runs.
    """
    image: str
    name: str = "gluonzoo"
    namespace: Optional[str] = None
    cpus: str = "4"
    memory: str = "8Gi"
    gpus: int = 0
    python: str = "python3"
    folder: str = "/opt/gluonzoo"
    secret: Optional[str] = None
    volume: Optional[Tuple[str, str]] = None
    size: Optional[str] = None
    user: int = 1000
    join_port: int = JOIN_PORT
    channel_port: int = CHANNEL_PORT


def add_options(add, whole):
    """What this launcher needs on the command line.

    Args: add: add_argument of a group.  whole: type.
    """
    add("--image", metavar="IMAGE", help="container image with gluonzoo's checkout (in --remote-dir, default "
        "/opt/gluonzoo), MXNet and openssl")
    add("--name", default="gluonzoo", metavar="NAME", help="begins the names of everything (default: gluonzoo)")
    add("--namespace", metavar="NS", help="where to make it (default: kubectl's own)")
    add("--cpus", default="4", metavar="N", help="of each worker and server (default: 4)")
    add("--memory", default="8Gi", metavar="SIZE", help="of each worker and server (default: 8Gi)")
    add("--gpus", type=whole, default=0, metavar="N", help="of each worker (default: 0)")
    add("--volume", metavar="CLAIM:/PATH", help="PersistentVolumeClaim for checkpoints, mounted in every pod")
    add("--volume-size", metavar="SIZE", help="make that claim, ReadWriteMany, of this size")
    add("--secret-name", metavar="NAME",
        help=f"use this Secret, whose {KEY_NAME} is the job's key, instead of a new one")
    add("--run-as", type=whole, default=1000, metavar="UID", help="user everything runs as (default: 1000)")
    add("--output", metavar="FILE", help="where the manifests go, - for standard output (default: NAME.yaml)")


def asked(options, variables):
    """JobSpec and Cluster of a command line."""
    for name, flag in REFUSED:
        if getattr(options, name, None):
            raise LaunchError(f"{flag} is not for --launcher kubernetes: the cluster chooses hosts and addresses")
    if options.foreign:
        raise LaunchError(f"{options.foreign[0]} is not supported")
    if options.image is None:
        raise LaunchError("--launcher kubernetes needs --image IMAGE, with gluonzoo and MXNet in it")
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    servers = options.num_workers if options.num_servers is None else options.num_servers
    job = JobSpec(tuple(command), (), options.num_workers, servers, "", env=variables(options.env, "--env", "="),
                  env_worker=variables(options.env_worker, "--env-worker", "=:"),
                  env_server=variables(options.env_server, "--env-server", "=:"),
                  tolerate=options.tolerate_workers, min_workers=options.min_workers)
    check(job)
    values = {}
    for env in (job.env, job.env_worker, job.env_server):
        for name, value in env.items():
            if values.setdefault(name, value) != value:     # they go through the head's environment
                raise LaunchError(f"{name} is given two values ({values[name]!r}, {value!r}); with --launcher "
                                  "kubernetes it can have one")
    volume = None
    if options.volume is not None:
        claim, _, path = options.volume.partition(":")
        volume = claim, path
    default = Cluster("")
    return job, Cluster(
        options.image, options.name, options.namespace, options.cpus, options.memory, options.gpus,
        options.remote_python or default.python, options.remote_dir or default.folder, options.secret_name, volume,
        options.volume_size, options.run_as, options.join_port or JOIN_PORT, options.channel_port or CHANNEL_PORT)


def check_cluster(job, cluster):
    """Raise LaunchError for a name or number that Kubernetes would refuse, or take for something else."""
    longest = len(f"-worker-{max(job.num_workers, job.num_servers) - 1}")
    _match("--name", cluster.name, r"[a-z](?:[a-z0-9-]*[a-z0-9])?", 63 - max(longest, len("-worker")),
           "small letters, digits and -, the first a letter")
    if cluster.namespace is not None:
        _match("--namespace", cluster.namespace, LABEL, 63, "small letters, digits and - (RFC 1123)")
    if cluster.secret is not None:
        _match("--secret-name", cluster.secret, rf"{LABEL}(?:\.{LABEL})*", 253,
               "small letters, digits, - and . (RFC 1123)")
    _match("--image", cluster.image, r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", 1024,
           "an image such as registry.example/name:tag")
    _match("--cpus", cluster.cpus, r"(?=.*[1-9])(?:\d+(?:\.\d+)?|\d+m)", 20, "a number such as 4, 0.5 or 500m")
    for flag, size in (("--memory", cluster.memory), ("--volume-size", cluster.size)):
        if size is not None:
            _match(flag, size, r"(?=.*[1-9])\d+(?:\.\d+)?(?:[KMGTPE]i?|k)?", 20, "a size such as 8Gi or 500M")
    if cluster.gpus < 0:
        raise LaunchError(f"--gpus is 0 or more, got {cluster.gpus}")
    if cluster.user < 1:
        raise LaunchError(f"--run-as is 1 or more, got {cluster.user}: nothing needs to run as root")
    if cluster.join_port == cluster.channel_port:
        raise LaunchError(f"--join-port and --channel-port are both {cluster.join_port}; the head needs one of its own")
    if not cluster.folder.startswith("/"):
        raise LaunchError(f"--remote-dir is the checkout's folder in the image and begins with /, got "
                          f"{cluster.folder!r}")
    if cluster.volume is not None:
        _match("--volume", cluster.volume[0], rf"{LABEL}(?:\.{LABEL})*", 253,
               "CLAIM:/PATH, the claim in small letters, digits, - and . (RFC 1123)")
        if not re.match(r"/[^:]+\Z", cluster.volume[1]) or ".." in cluster.volume[1].split("/"):
            raise LaunchError("--volume: expected CLAIM:/PATH with the whole path of a folder, got "
                              f"{cluster.volume[1]!r}")
    elif cluster.size is not None:
        raise LaunchError("--volume-size is the size of a claim, which --volume CLAIM:/PATH names")


def _match(flag, text, pattern, most, expected):
    if not re.match(rf"(?:{pattern})\Z", text):
        raise LaunchError(f"{flag} {text!r}: expected {expected}")
    if len(text) > most:
        raise LaunchError(f"{flag} {text!r}: {len(text)} characters, {most} at most")
