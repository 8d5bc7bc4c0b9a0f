#!/usr/bin/env python
"""Draw a job's roles and channels as SVG: python tools/diagram.py -H hosts -n 4 -s 2 -o docs/roles.svg

What is drawn is what the launcher would do: the same hostfile, the same dealing out of roles, the same ports.
"""
import argparse
import os
import sys
from html import escape

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from launch.hostfile import parse_hostfile, read_hosts  # noqa: E402 (the path is set first)
from launch.spec import SCHEDULER, SERVER, WORKER, JobSpec, LaunchError, check, ordered, place, plan  # noqa: E402

HOSTS = "node1 slots=1\nnode2 slots=2 role=worker,server\nnode3 slots=2 role=worker,server\n"
PORT, CHANNEL = 21000, 41000        # examples of ports a launcher may choose

# Light and dark values of: paper, ink, faint ink, host, launcher, then one pair (fill, line) for each kind of thing.
COLOURS = {
    "paper": ("#ffffff", "#0d1117"), "ink": ("#1f2328", "#e6edf3"), "faint": ("#59636e", "#9aa4af"),
    "host": ("#f6f8fa", "#161b22"), "edge": ("#c4ccd5", "#3d444d"),
    SCHEDULER: ("#fff1c2", "#4a3a05"), SCHEDULER + "-line": ("#b08800", "#d9a900"),
    SERVER: ("#d8f0dc", "#123d22"), SERVER + "-line": ("#2c8a43", "#4cc26a"),
    WORKER: ("#dbe9ff", "#12305c"), WORKER + "-line": ("#2f6fd0", "#6ea8ff"),
    "agent": ("#ece4fb", "#33245a"), "agent-line": ("#7a51c9", "#b392f0"),
    "channel": ("#ffe0dc", "#571c17"), "channel-line": ("#cf3a2b", "#ff8577"),
    "store": ("#e7e9ec", "#2a3038"), "store-line": ("#59636e", "#9aa4af"),
}
WIDTH, MARGIN, GAP = 376, 30, 26        # of a host, around and between hosts
ROLE_HEIGHT, ROLE_GAP, PER_ROW = 50, 10, 3
TOP, HOST_TOP = 96, 262                 # of the launching machine, of the hosts


def style():
    """Rules for both kinds of readers; colours stand nowhere else."""
    def rules(which):
        lines = []
        for name, pair in COLOURS.items():
            lines.append(f".{name} {{ fill: {pair[which]}; }} .{name}-stroke {{ stroke: {pair[which]}; }}")
        return "\n".join(lines)
    fixed = ("text { font-family: -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif; font-size: 13px; }\n"
             ".mono { font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; font-size: 11px; }\n"
             ".title { font-size: 20px; font-weight: 600; } .name { font-weight: 600; } .small { font-size: 11.5px; }\n"
             "rect, path, line, ellipse { stroke-width: 1.4; } .open { fill: none; } .thick { stroke-width: 3; }\n"
             ".dash { stroke-dasharray: 5 4; }")
    return f"<style>\n{fixed}\n{rules(0)}\n@media (prefers-color-scheme: dark) {{\n{rules(1)}\n}}\n</style>"


class Drawing:
    """SVG elements, one after the other."""

    def __init__(self):
        self.parts = []

    def box(self, x, y, width, height, kind, radius=7, edge=None):
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" '
                          f'class="{kind} {edge or kind + "-line"}-stroke"/>')

    def line(self, points, kind, more=""):
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path d="{path}" class="open {kind}-stroke {more}"/>')

    def text(self, x, y, words, kind="ink", more="", anchor="start"):
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind} {more}" text-anchor="{anchor}">{escape(words)}</text>')

    def dot(self, x, y, kind, radius=4.5):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{kind}"/>')

    def arrow(self, x, y, kind, up=False):
        tip, base = (y, y + 9) if up else (y, y - 9)
        self.parts.append(f'<path d="M{x:g} {tip:g} L{x - 5:g} {base:g} L{x + 5:g} {base:g} Z" class="{kind}"/>')

    def arrow_right(self, x, y, kind):
        self.parts.append(f'<path d="M{x:g} {y:g} l-9 -5 v10 Z" class="{kind}"/>')

    def cylinder(self, x, y, width, height, kind):
        half = width / 2
        self.parts.append(f'<path d="M{x:g} {y:g} v{height:g} a{half:g} 9 0 0 0 {width:g} 0 v{-height:g}" '
                          f'class="{kind} {kind}-line-stroke"/>'
                          f'<ellipse cx="{x + half:g}" cy="{y:g}" rx="{half:g}" ry="9" class="{kind} {kind}-line-stroke"/>')

    def svg(self, width, height, title):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
                f'height="{height:g}" role="img">\n<title>{escape(title)}</title>\n{style()}\n'
                f'<rect width="{width:g}" height="{height:g}" rx="10" class="paper"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def processes_by_host(hosts, workers, servers):
    """What the launcher would start: (host, its processes with the ports they listen on) for each host."""
    job = JobSpec(("train",), ("server",), workers, servers, "/logs")
    check(job)
    ports = ordered(range(PORT, PORT + 1 + workers + servers), servers)
    processes = plan(job, ports, where=place(hosts, job))
    return [(host, [(spec, int(spec.env.get("PORT", ports.scheduler))) for spec in processes if spec.place == i])
            for i, host in enumerate(hosts)]


def draw(hosts, workers, servers):
    """The whole picture as SVG text."""
    dealt = processes_by_host(hosts, workers, servers)
    drawing = Drawing()
    width = 2 * MARGIN + max(3, len(hosts)) * (WIDTH + GAP) - GAP      # the words need as much
    rows = max(-(-len(found) // PER_ROW) for _, found in dealt)
    height = 214 + rows * (ROLE_HEIGHT + ROLE_GAP)
    lefts = [MARGIN + i * (WIDTH + GAP) for i in range(len(hosts))]
    title = f"1 scheduler, {servers} servers and {workers} workers on {len(hosts)} hosts"
    drawing.text(MARGIN, 40, f"A job on several hosts: {title}", more="title")
    drawing.text(MARGIN, 63, f"launch.py -H hosts -n {workers} -s {servers} --max-restarts 3 python tools/train.py ...", "faint",
                 "mono")
    writer = None
    for left, number, (host, found) in zip(lefts, range(len(hosts)), dealt):
        spot = _host(drawing, left, height, host, found, number, [p for _, p in _others(dealt, number)])
        writer = spot or writer
    _launcher(drawing, width, lefts)
    _network(drawing, lefts, HOST_TOP + height)
    bottom = _checkpoints(drawing, writer, HOST_TOP + height + 78)
    return drawing.svg(width, bottom, f"Roles and channels: launcher, agents, {title}")


def _others(dealt, number):
    """Processes on other hosts that those of this one talk to: nodes of one role do not talk to one another."""
    own = {spec.role for spec, _ in dealt[number][1]}
    return [(spec, port) for i, (_, found) in enumerate(dealt) if i != number for spec, port in found if own - {spec.role}]


def _launcher(drawing, width, lefts):
    """The launching machine, and an ssh connection from it to every host."""
    drawing.box(MARGIN, TOP, width - 2 * MARGIN, 82, "host", edge="edge")
    drawing.text(MARGIN + 16, TOP + 24, "launching machine", more="name")
    drawing.box(MARGIN + 16, TOP + 34, 210, 36, "agent")
    drawing.text(MARGIN + 121, TOP + 57, "launcher (supervisor)", more="name", anchor="middle")
    for i, words in enumerate((
            "deals out roles, makes a fresh key for every start, shows output line by line",
            "hears heartbeats, steps and exit codes; the first failure ends the job everywhere",
            "and, with --max-restarts, starts it again from the last checkpoint")):
        drawing.text(MARGIN + 244, TOP + 26 + 19 * i, words, "faint")
    for number, left in enumerate(lefts):
        x = left + WIDTH / 2
        drawing.line([(x, TOP + 90), (x, HOST_TOP + 31)], "agent-line", "thick")
        drawing.arrow(x, HOST_TOP + 40, "agent-line")
        drawing.arrow(x, TOP + 82, "agent-line", up=True)
        drawing.text(x + 12, TOP + 112, "ssh", "agent-line", "name")
        said = ("orders, environments, key", "output, steps, exit codes") if number == 0 else ("one each host",
                                                                                              "no secret in arguments")
        drawing.text(x + 42, TOP + 112, said[0], "faint", "small")
        drawing.text(x + 12, TOP + 130, said[1], "faint", "small")


def _host(drawing, left, height, host, found, number, others):
    """A host; returns where worker 0 is, if it is here."""
    drawing.box(left, HOST_TOP, WIDTH, height, "host", 10, "edge")
    drawing.text(left + 16, HOST_TOP + 26, f"host {host.name}", more="name")
    drawing.box(left + 16, HOST_TOP + 40, WIDTH - 32, 30, "agent")
    drawing.text(left + WIDTH / 2, HOST_TOP + 60, "agent: starts, watches, ends", anchor="middle")
    bus = HOST_TOP + height - 94
    each = (WIDTH - 32 - ROLE_GAP * (PER_ROW - 1)) / PER_ROW
    writer = None
    for i, (spec, port) in enumerate(found):
        x = left + 16 + (i % PER_ROW) * (each + ROLE_GAP)
        y = HOST_TOP + 86 + (i // PER_ROW) * (ROLE_HEIGHT + ROLE_GAP)
        middle = x + each / 2
        socket = x + each + ROLE_GAP / 2 - 3 - 6 * (i // PER_ROW) if _is_above(i, found) else middle
        drawing.line([(socket, y + ROLE_HEIGHT), (socket, bus)], spec.role + "-line")
        drawing.box(x, y, each, ROLE_HEIGHT, spec.role)
        drawing.text(middle, y + 21, spec.name, more="name", anchor="middle")
        drawing.text(middle, y + 39, f"127.0.0.1:{port}", "ink", "mono", "middle")
        drawing.dot(socket, bus, spec.role + "-line")
        if (spec.role, spec.index) == (WORKER, 0):
            writer = middle, y
    drawing.line([(left + 16, bus), (left + WIDTH - 16, bus)], "faint")
    drawing.text(left + WIDTH - 16, bus + 15, "loopback, ps-lite's only interface", "faint", "small", "end")
    _channel(drawing, left, bus, number, others)
    return writer


def _is_above(i, found):
    """Whether another role is drawn below this one: its line then goes beside it."""
    return i + PER_ROW < len(found)


def _channel(drawing, left, bus, number, others):
    """The channel's process: listens on the loopback interface in the place of the others' roles."""
    middle = left + WIDTH / 2
    drawing.box(left + 16, bus + 24, WIDTH - 32, 54, "channel")
    drawing.line([(left + 40, bus), (left + 40, bus + 24)], "channel-line")
    drawing.dot(left + 40, bus, "channel-line")
    ports = _spans(sorted(others))
    drawing.text(middle, bus + 41, "channel", more="name", anchor="middle")
    drawing.text(middle, bus + 56, f"here in the place of {ports}" if ports else "", more="small", anchor="middle")
    drawing.text(middle, bus + 71, f"open to the network: port {CHANNEL + number}, nothing else", "channel-line", "small name",
                 "middle")
    drawing.dot(middle, bus + 94, "channel-line", 7)
    drawing.line([(middle, bus + 78), (middle, bus + 94)], "channel-line", "thick")


def _spans(numbers):
    """``21001, 21003-21005`` for 21001, 21003, 21004, 21005."""
    spans = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f":{low}" if low == high else f":{low}-{high}" for low, high in spans)


def _network(drawing, lefts, bottom):
    """What joins the channels."""
    first, last = lefts[0] + WIDTH / 2, lefts[-1] + WIDTH / 2
    line = bottom + 30
    drawing.line([(first, line), (last, line)], "channel-line", "thick")
    for left in lefts:
        drawing.line([(left + WIDTH / 2, bottom), (left + WIDTH / 2, line)], "channel-line", "thick")
    drawing.text(max((first + last) / 2, 440), line + 22, "gradients and parameters, host to host: a knock only who knows the "
                 "key can make, then TLS with the job's own certificate on both sides", "channel-line", "small", "middle")


def _checkpoints(drawing, writer, top):
    """Where the job can begin again; returns the height of the picture."""
    x, label = MARGIN + 10, MARGIN + 112
    drawing.cylinder(x, top, 84, 44, "store")
    drawing.text(x + 42, top + 31, "step 1200", "ink", "small", "middle")
    drawing.text(label, top + 12, "checkpoints", more="name")
    drawing.text(label, top + 30, "worker 0 writes network, optimizer, position in the epoch (servers their own state, when they "
                 "hold the optimizer);", "faint", "small")
    drawing.text(label, top + 46, "whole or not at all: renamed when every byte is on disk, checked by SHA-256 when the job "
                 "reads it to begin again", "faint", "small")
    if writer is not None:
        side, above = MARGIN - 14, writer[1] - 8
        drawing.line([writer, (writer[0], above), (side, above), (side, top + 24), (x - 8, top + 24)], WORKER + "-line", "dash")
        drawing.arrow_right(x, top + 24, WORKER + "-line")
    return top + 76


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-H", "--hostfile", metavar="FILE", help="hosts, as for launch.py (default: three of them)")
    parser.add_argument("-n", "--num-workers", type=int, default=4, metavar="N", help="workers (default: 4)")
    parser.add_argument("-s", "--num-servers", type=int, default=2, metavar="N", help="servers (default: 2)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture (SVG)")
    options = parser.parse_args()
    try:
        hosts = parse_hostfile(HOSTS)[0] if options.hostfile is None else read_hosts(options.hostfile)[0]
        text = draw(hosts, options.num_workers, options.num_servers)
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    except LaunchError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: cannot write {options.output}: {error.strerror}")


if __name__ == "__main__":
    main()
