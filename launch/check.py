"""``launch.py check -H hosts``: look at the hosts of a job before there is one, and say what is missing."""
import os
import sys

from launch.facts import facts
from launch.findings import Problem, as_json, table
from launch.loop import Interrupted, Loop
from launch.preflight import Preflight, Wanted
from launch.spec import OWNED, SERVER, LaunchError, place, variables

__all__ = ["check"]


class _Quiet:
    """In the place of a Screen: nothing is shown before the end."""

    def arm(self, _selector):
        """Nothing waits to be written."""


def check(argv, parser, build, back_end, root):
    """``launch.py check``: the options of a job, with or without -n and COMMAND; returns the exit code.

    Args: parser: the launcher's.  build(options): the JobSpec.  back_end(job, options): a RemoteJob and notes for the
        user.  root: of the checkout.
    Raises: LaunchError.
    """
    parser.usage = "launch.py check -H HOSTS [--deep] [--json] [the options and COMMAND of a job]"
    parser.add_argument("--deep", action="store_true", help="check: import gluonzoo and mxnet on every host")
    parser.add_argument("--json", action="store_true", help="check: print everything as JSON")
    for action in parser._actions:
        action.required = False
    options = parser.parse_args(argv)
    if options.hostfile is None:
        raise LaunchError("check needs the hosts: launch.py check -H FILE or -H host1:2,host2")
    options.launcher = options.launcher or "ssh"
    if options.launcher != "ssh":
        raise LaunchError(f"check looks at hosts through ssh; --launcher {options.launcher} reaches them in another "
                          "way")
    asked = options.num_workers is not None
    if not asked:
        options.num_workers = 1
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    options.command = command or [options.remote_python or "python3"]
    job = build(options)
    remote, notes = back_end(job, options)
    wanted = _wanted(options, job, remote.options.cwd, command, root)
    from launch.processes import keep
    return keep(lambda front_fd, _: _guarded(_check, front_fd, remote.hosts, remote.starter, wanted,
                                          job if asked else None, notes, options.json))


def _wanted(options, job, cwd, command, root):
    from launch.remote import passed_on
    env = {**passed_on(os.environ), **variables(job, SERVER)}
    env = {name: value for name, value in env.items() if name not in OWNED}
    path = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return Wanted(facts(None, [root])["gluonzoo"], cwd, job.server_argv[0], options.remote_python,
                  command[0] if command else None, env, tuple(path), options.channel_port or 0, options.connect_timeout,
                  options.host_timeout, options.insecure_network, options.deep)


def _guarded(body, *args):
    try:
        return body(*args)
    except LaunchError as error:
        sys.stderr.write("error: " + " ".join(str(error).split("\n")) + "\n")
        return 2


def _check(front_fd, hosts, starter, wanted, job, notes, as_data):
    """In the process behind ``keep``: look, and tell."""
    with Loop(_Quiet(), front_fd) as loop:
        preflight = Preflight(hosts, starter, wanted)
        try:
            problems = preflight.run(loop)
        except Interrupted:
            code, why = loop.reason()
            sys.stderr.write(f"check: {why}\n")
            return code
    well = [host for host in hosts if not any(problem.fatal and problem.host == host.name for problem in problems)]
    try:
        enough = not job or bool(place(well, job) if well else None)
    except LaunchError as error:
        problems.append(Problem("the job", f"{error}: on the hosts without a problem"))
        enough = False
    fatal = [problem for problem in problems if problem.fatal]
    may_do_without = bool(job) and job.elastic and enough and not any(
        problem.host == "this machine" for problem in fatal)
    ok = not fatal or may_do_without
    if as_data:
        print(as_json(preflight.found, problems, ok, wanted))
    else:
        _tell(preflight.found, problems, ok, notes)
    return 0 if ok else 1


def _tell(found, problems, ok, notes):
    for line in table(found):
        print(line)
    for problem in problems:
        print(f"{'PROBLEM' if problem.fatal else 'note'}: {problem}")
    for note in notes:
        print(f"note: {note}")
    bad = len({problem.host for problem in problems if problem.fatal})
    if ok:
        left = len(found) - bad
        words = f"of {len(found)} hosts" if bad else "host" if left == 1 else "hosts"
        print(f"all is well: a job can start on {left} {words}")
    else:
        print(f"a job could not start: {bad} of {len(found)} {'has' if bad == 1 else 'have'} a problem")
