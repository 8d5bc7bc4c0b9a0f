"""What the benchmarks share: fresh processes, jobs, interleaved repeats, tables, files."""
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile

__all__ = ["ROOT", "MEASURES", "cores", "launcher", "run", "interleaved", "table", "write", "Hosts"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MEASURES = os.path.join(ROOT, "tools", "measures")


def cores():
    """Numbers of the processors this process may use."""
    return sorted(os.sched_getaffinity(0))


def launcher(workers, servers, logs, *command):
    """The command line of a job; options of launch.py come first in command."""
    return [sys.executable, os.path.join(ROOT, "launch", "launch.py"), "-n", str(workers), "-s", str(servers), "--log-dir", logs,
            *command]


def run(command, env=None, processors=None, every=False, timeout=900):
    """Run a measuring process. Returns the JSON object on the last line of rank 0's output, or an error as a text.

    Args: env: variables to set, or with None to unset. processors: which it and its children may use. every: return all JSON
        objects of the output, in order.
    """
    environment = {**os.environ, "PYTHONPATH": ROOT, **(env or {})}
    for name in [name for name, value in environment.items() if value is None]:
        del environment[name]
    before = os.sched_getaffinity(0)
    try:
        if processors:
            os.sched_setaffinity(0, processors)  # Inherited.
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    finally:
        os.sched_setaffinity(0, before)
    found = []
    for line in result.stdout.splitlines():
        _, brace, rest = line.partition("{")
        if brace:
            try:
                found.append(json.loads(brace + rest))
            except ValueError:
                continue
    if found and result.returncode == 0:
        return found if every else found[-1]
    return f"exit code {result.returncode}: {(result.stderr or result.stdout).strip()[-300:]}"


def interleaved(variants, repeats, field="value"):
    """Run {name: function giving a figure} in turn, repeats times. Returns {name: [figures]}; [] where all failed.

    Args: field: the figure's name in what the functions return; None keeps all of it.
    """
    figures = {name: [] for name in variants}
    for repeat in range(repeats):
        for name, function in variants.items():
            outcome = function()
            if isinstance(outcome, str):
                print(f"  {name}: {outcome}", file=sys.stderr)
                continue
            figures[name].append(outcome[field] if field else outcome)
            shown = outcome[field or "value"]
            print(f"  repeat {repeat + 1}  {name}: {shown:,.1f}", flush=True)
    return figures


def table(figures, baseline, unit):
    """Print medians, spread and the ratio to the baseline. Returns the rows."""
    rows = []
    base = statistics.median(figures[baseline]) if figures.get(baseline) else None
    print(f"\n| variant | median {unit} | lowest to highest | ratio to {baseline} |\n|---|---|---|---|")
    for name, values in figures.items():
        if not values:
            print(f"| {name} | did not run | | |")
            continue
        middle = statistics.median(values)
        ratio = middle / base if base else float("nan")
        rows.append({"variant": name, "median": middle, "values": values, "ratio": ratio})
        print(f"| {name} | {middle:,.1f} | {min(values):,.1f} to {max(values):,.1f} | {ratio:.2f} |")
    return rows


def write(rows, arguments):
    """Write rows to the files that --json and --csv name."""
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    if getattr(arguments, "csv", None):
        names = list(dict.fromkeys(name for row in rows for name in row))
        with open(arguments.csv, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


class Hosts:
    """Network namespaces as hosts, with an sshd each: the first for scheduler and servers, the others a worker each. Needs root.

    Args: workers: how many; rate: of every host's link, for example "100mbit"; None for no limit. A context manager.
    Raises: SystemExit when there can be no such hosts here; the message says why.
    """

    def __init__(self, workers, rate=None):
        sys.path.insert(0, os.path.join(ROOT, "tests", "launch"))
        import namespaces
        reason = namespaces.missing()
        if reason:
            raise SystemExit(f"error: no hosts to be had on this machine: {reason}")
        self._namespaces, self._workers, self._rate = namespaces, workers, rate

    def __enter__(self):
        from pathlib import Path
        self._folder = tempfile.TemporaryDirectory()
        self._network = self._namespaces.Network(Path(self._folder.name), 1 + self._workers)
        try:
            lines = []
            for host in range(1, 2 + self._workers):
                if self._rate:
                    self._network.limit(host, self._rate)
                role = "worker" if host > 1 else "scheduler,server"
                lines.append(f"{self._network.address(host)} role={role}\n")
            self._file = os.path.join(self._folder.name, "hosts")
            with open(self._file, "w") as file:
                file.writelines(lines)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._network.close()
        self._folder.cleanup()

    def job(self, servers, *command):
        """The command line of a job on these hosts; options of launch.py come first in command."""
        return launcher(self._workers, servers, os.path.join(self._folder.name, "logs"), "-H", self._file, "--launcher", "ssh",
                        "--ssh", self._network.ssh, "--remote-python", sys.executable, *command)
