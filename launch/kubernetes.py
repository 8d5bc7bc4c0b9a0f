"""Kubernetes: manifests for a job that needs no operator, written for kubectl.

A *head* (launch.py --launcher join, which supervises), an indexed Job of workers and one of servers, whose pods run
agents that dial the head (``pod.py``). The scheduler runs beside server 0. A pod that is lost comes back by its Job and
joins again under its number; what then becomes of the training is the supervisor's business, as with every launcher.
The image holds gluonzoo's checkout, MXNet and the openssl program.
"""
import os
import shlex
import sys

from launch.cluster import KEY_NAME, asked, check_cluster
from launch.manifest import document
from launch.spec import LaunchError

__all__ = ["manifests", "write"]

KEY_FOLDER = "/etc/gluonzoo/key"
HOSTS_FOLDER, HOSTS_NAME = "/etc/gluonzoo/hosts", "hosts"
GRACE, MARGIN = 30.0, 30        # seconds for a checkpoint by default; beside that for everything to end
AFTERWARDS = 86400              # seconds for which finished pods and their logs stay
RETURNS = 10                    # times a pod may be lost, on the average
HEAD_CPUS, HEAD_MEMORY = "500m", "512Mi"
MARK = "# Written by gluonzoo's launch.py"
TOLD = "(left out: --dry-run)"


# ---- what is written ----

def manifests(job, cluster, head, key):
    """Pairs (comments, object).

    Args: job: JobSpec.  head: words of launch.py behind those that are the same for every job.  key: packed JobKey,
        None when the Secret exists.
    """
    check_cluster(job, cluster)
    made = []
    if key is not None:
        made.append((["The job's key: whoever has it can join the job."], _object(
            cluster, "v1", "Secret", _secret(cluster), type="Opaque", stringData={KEY_NAME: key})))
    if cluster.size is not None:
        made.append((["Checkpoints."], _object(cluster, "v1", "PersistentVolumeClaim", cluster.volume[0], spec={
            "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": cluster.size}}})))
    made += [
        (["Who does what: the agent with number i is the i-th of these hosts."], _object(
            cluster, "v1", "ConfigMap", f"{cluster.name}-hosts", data={HOSTS_NAME: _hostfile(job, cluster)})),
        (["Names for the pods; also for those that are not ready, or nobody could begin."], _object(
            cluster, "v1", "Service", cluster.name, spec={
                "clusterIP": "None", "publishNotReadyAddresses": True, "selector": _selector(cluster),
                "ports": [{"name": "join", "port": cluster.join_port},
                          {"name": "channel", "port": cluster.channel_port}]})),
        (["Pods of this job hear pods of this job, on the two ports of the encrypted channel, nobody else."], _object(
            cluster, "networking.k8s.io/v1", "NetworkPolicy", cluster.name, spec={
                "podSelector": {"matchLabels": _selector(cluster)}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": _selector(cluster)}}],
                             "ports": [{"protocol": "TCP", "port": port}
                                       for port in (cluster.join_port, cluster.channel_port)]}]})),
        (["The supervisor: starts roles through the agents, and again after a failure.",
          "A launcher that was told to stop, or lost its node, begins again; one that has given up has failed."],
         _head(job, cluster, head)),
        (["Workers: each pod an agent."], _agents(job, cluster, "worker", job.num_workers, 0)),
        (["Servers, and the scheduler beside server 0: each pod an agent."],
         _agents(job, cluster, "server", job.num_servers, job.num_workers))]
    return made


def _object(cluster, version, kind, name, component=None, **more):
    metadata = {"name": name}
    if cluster.namespace is not None:
        metadata["namespace"] = cluster.namespace
    metadata["labels"] = _labels(cluster, component)
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _selector(cluster):
    return {"app.kubernetes.io/name": "gluonzoo", "app.kubernetes.io/instance": cluster.name}


def _labels(cluster, component=None):
    labels = {**_selector(cluster), "app.kubernetes.io/managed-by": "gluonzoo-launch"}
    if component is not None:
        labels["app.kubernetes.io/component"] = component
    return labels


def _secret(cluster):
    return cluster.secret or f"{cluster.name}-key"


def _hostfile(job, cluster):
    lines = [f"{cluster.name}-worker-{i} role=worker" for i in range(job.num_workers)]
    lines += [f"{cluster.name}-server-{i} role=server" + ("" if i else ",scheduler") for i in range(job.num_servers)]
    return "".join(line + "\n" for line in lines)


def _head(job, cluster, words):
    argv = [cluster.python, os.path.join(cluster.folder, "launch", "pod.py"), "run", cluster.python,
            os.path.join(cluster.folder, "launch", "launch.py"), "--launcher", "join", "-H",
            f"{HOSTS_FOLDER}/{HOSTS_NAME}", "--join-port", str(cluster.join_port), "--join-key-file",
            f"{KEY_FOLDER}/{KEY_NAME}", "--channel-port", str(cluster.channel_port), "-n", str(job.num_workers), "-s",
            str(job.num_servers), *words]
    container = _container(cluster, "launcher", argv, ["listening", str(cluster.join_port)], HEAD_CPUS, HEAD_MEMORY,
                           {**job.env, **job.env_server, **job.env_worker})
    container["volumeMounts"].append({"name": "hosts", "mountPath": HOSTS_FOLDER, "readOnly": True})
    pod = {"hostname": f"{cluster.name}-head", **_pod(cluster, container, _period(words)), "restartPolicy": "Never"}
    pod["volumes"].append({"name": "hosts", "configMap": {"name": f"{cluster.name}-hosts"}})
    spec = {
        "backoffLimit": RETURNS, "ttlSecondsAfterFinished": AFTERWARDS,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            # The empty list is what the schemas up to 1.28 ask for.
            {"action": "FailJob", "onPodConditions": [],
             "onExitCodes": {"containerName": "launcher", "operator": "NotIn", "values": [137, 143]}}]},
        "template": {"metadata": {"labels": _labels(cluster, "head")}, "spec": pod}}
    return _object(cluster, "batch/v1", "Job", f"{cluster.name}-head", "head", spec=spec)


def _agents(job, cluster, role, count, first):
    argv = [cluster.python, os.path.join(cluster.folder, "launch", "pod.py"), "agent", "--key-file",
            f"{KEY_FOLDER}/{KEY_NAME}", "--first", str(first),
            f"{cluster.name}-head.{cluster.name}:{cluster.join_port}"]
    container = _container(cluster, "agent", argv, ["ready"], cluster.cpus, cluster.memory, {})
    if "OMP_NUM_THREADS" not in {**job.env, **job.env_worker, **job.env_server}:
        # A limit of CPUs does not show in the number of processors that MXNet would make threads for.
        container["env"].append({"name": "OMP_NUM_THREADS", "value": str(_threads(cluster.cpus))})
    if role == "worker":
        if cluster.gpus:
            container["resources"]["limits"]["nvidia.com/gpu"] = cluster.gpus
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})
    pod = _pod(cluster, container, MARGIN)
    if role == "worker":        # for data loaders; what is there counts as the pod's memory
        pod["volumes"].append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
    spec = {"completionMode": "Indexed", "completions": count, "parallelism": count, "backoffLimit": RETURNS * count,
            "ttlSecondsAfterFinished": AFTERWARDS,
            "template": {"metadata": {"labels": _labels(cluster, role)}, "spec": pod}}
    return _object(cluster, "batch/v1", "Job", f"{cluster.name}-{role}", role, spec=spec)


def _container(cluster, name, argv, probe, cpus, memory, env):
    # The head's PYTHONPATH is every role's: an image may hold the checkout without having it installed.
    variables = {"HOME": "/tmp", "PYTHONPATH": cluster.folder, **env}
    probe_argv = [cluster.python, os.path.join(cluster.folder, "launch", "pod.py"), *probe]
    mounts = [{"name": "key", "mountPath": KEY_FOLDER, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}]
    if cluster.volume is not None:
        mounts.append({"name": "checkpoints", "mountPath": cluster.volume[1]})
    return {
        "name": name, "image": cluster.image, "command": [_literal(word) for word in argv],
        "workingDir": cluster.folder,
        "env": [{"name": key, "value": _literal(value)} for key, value in sorted(variables.items())],
        "resources": {"requests": {"cpu": cpus, "memory": memory}, "limits": {"cpu": cpus, "memory": memory}},
        "readinessProbe": {"exec": {"command": probe_argv}, "periodSeconds": 5, "timeoutSeconds": 5},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts}


def _pod(cluster, container, period):
    volumes = [{"name": "key", "secret": {"secretName": _secret(cluster), "defaultMode": 0o400,
                                          "items": [{"key": KEY_NAME, "path": KEY_NAME}]}},
               {"name": "tmp", "emptyDir": {}}]
    if cluster.volume is not None:
        volumes.append({"name": "checkpoints", "persistentVolumeClaim": {"claimName": cluster.volume[0]}})
    return {
        "subdomain": cluster.name, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": period,
        "automountServiceAccountToken": False, "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": cluster.user, "runAsGroup": cluster.user,
                            # By its group the key's file, which is root's, can be read.
                            "fsGroup": cluster.user, "fsGroupChangePolicy": "OnRootMismatch",
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container], "volumes": volumes}


def _literal(word):
    """A word as the kubelet shall see it: it takes $(NAME) for a variable, and $$ for one dollar."""
    return word.replace("$", "$$")


def _period(words):
    """Seconds from SIGTERM to SIGKILL for the head."""
    return int(float(words[words.index("--grace") + 1])) + MARGIN


def _threads(cpus):
    return max(1, int(cpus[:-1]) // 1000 if cpus.endswith("m") else int(float(cpus)))


# ---- from the command line ----

SECONDS = ("timeout", "stall_timeout", "startup_timeout", "restart_window", "connect_timeout", "host_timeout")
NUMBERS = ("max_restarts", "tolerate_workers", "min_workers", "port")


def write(options, variables):
    """Write the manifests that the command line asks for; returns the exit code.

    Args: variables(words, flag, separators): ``K=V`` words as a dictionary.
    Raises: LaunchError.
    """
    job, cluster = asked(options, variables)
    head = _head_words(options, job, cluster)
    check_cluster(job, cluster)
    key = None
    if cluster.secret is None:
        from launch.secure import JobKey
        key = TOLD if options.dry_run else JobKey.create().pack()
    try:
        documents = [document(value, comments) for comments, value in manifests(job, cluster, head, key)]
    except ValueError as error:
        raise LaunchError(str(error)) from None
    path = options.output or f"{cluster.name}.yaml"
    namespace = f" -n {cluster.namespace}" if cluster.namespace else ""
    file = " ".join(shlex.quote(path).split())
    text = "---\n".join([f"{MARK}: kubectl apply -f {file}; kubectl logs{namespace} -f job/{cluster.name}-head\n"
                         f"# Remove it all, finished or not: kubectl delete -f {file}\n", *documents])
    if options.dry_run or path == "-":
        sys.stdout.write(text)
        path = "what was written"
    else:
        _save(path, text)
    if not options.dry_run:
        if key is not None:
            sys.stderr.write(f"launch: WARNING: {path} holds the job's key (Secret {_secret(cluster)}): whoever reads "
                             "it can join the job. Keep it to yourself and out of version control, or see "
                             "--secret-name\n")
        if cluster.volume is None:
            sys.stderr.write("launch: note: without --volume checkpoints are gone with the pod that wrote them\n")
    return 0


def _head_words(options, job, cluster):
    """launch.py's own words in the head: how the job shall survive, and COMMAND."""
    words = ["--agents-stay", "--grace", _seconds(GRACE if options.grace is None else options.grace)]
    for name in SECONDS:
        value = getattr(options, name)
        if value is not None:
            words += [_flag(name), _seconds(value)]
    for name in NUMBERS:
        if getattr(options, name):
            words += [_flag(name), str(getattr(options, name))]
    if options.server_python is not None:
        words += ["--server-python", options.server_python]
    words += ["--remote-python", cluster.python]
    logs = options.log_dir
    if logs is None:
        logs = os.path.join(cluster.volume[1] if cluster.volume else "/tmp", f"{cluster.name}-logs")
    words += ["--log-dir", logs]
    for flag, env in (("--env", job.env), ("--env-worker", job.env_worker), ("--env-server", job.env_server)):
        for name in sorted(env):
            words += [flag, name]       # the values are in the head's environment
    return [*words, "--", *job.command]


def _flag(name):
    return "--" + name.replace("_", "-")


def _seconds(value):
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _save(path, text):
    """Put the text into a file for its owner only; one that this program has not written stays."""
    try:
        if os.path.lexists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                if not file.readline().startswith(MARK):
                    raise LaunchError(f"--output {path}: there is such a file, which launch.py has not written")
        new = path + ".new"
        if os.path.lexists(new):
            os.unlink(new)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        raise LaunchError(f"cannot write {path}: {error.strerror} (--output)") from None
    print(path)
