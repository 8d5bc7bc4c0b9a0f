"""Lines, the outlet that never blocks, and the screen."""
import fcntl
import os
import pty
import random
import select
import struct
import termios
import threading
import time

from launch import output
from launch.output import LINE_LIMIT, Lines, Outlet, RoleOutput, Screen

import pytest


def cut(data, sizes):
    """All lines of data when it comes in pieces."""
    lines, found, at = Lines(), [], 0
    for size in sizes:
        found += lines.feed(data[at:at + size])
        at += size
    found += lines.feed(data[at:])
    return found + lines.finish()


@pytest.mark.parametrize("data, expected", [
    (b"", []),
    (b"one\ntwo\n", [b"one", b"two"]),
    (b"no newline", [b"no newline"]),
    (b"\n\n", [b"", b""]),
    (b"dos\r\nline\r\n", [b"dos", b"line"]),
    (b"\r10%\r20%\r100%\n", [b"100%"]),
    (b"10%\r20%\rdone\nnext\n", [b"done", b"next"]),
    (b"10%\r20%\r", [b"20%"]),
    (b"\xff\xfe\x00\x80\n\xc3\n", [b"\xff\xfe\x00\x80", b"\xc3"]),
    (b"\rbar\r   \rreal\n", [b"real"]),
])
def test_lines(data, expected):
    assert cut(data, []) == expected
    assert cut(data, [1] * len(data)) == expected


def test_lines_do_not_depend_on_the_pieces():
    rng = random.Random(5)
    data = bytes(rng.choice(b"ab\n\r\xff") for _ in range(3000))
    whole = cut(data, [])
    for _ in range(20):
        assert cut(data, [rng.randrange(1, 60) for _ in range(150)]) == whole


def test_live_line():
    lines = Lines()
    assert lines.feed(b"plain") == [] and lines.live == b"" and lines.unfinished == b"plain"
    assert lines.feed(b"\n\r 1%") == [b"plain"] and lines.live == b" 1%"
    assert lines.feed(b"\r 2%\r") == [] and lines.live == b" 2%"
    assert lines.feed(b"\n") == [b" 2%"] and lines.live == b""


def test_long_lines_come_in_pieces():
    data = os.urandom(3 * LINE_LIMIT + 5).replace(b"\n", b"x").replace(b"\r", b"y")
    for sizes in ([], [100000] * 31):
        found = cut(data + b"\nend", sizes)
        assert found[-1] == b"end" and b"".join(found[:-1]) == data
        assert max(map(len, found)) <= LINE_LIMIT


def test_memory_of_an_endless_bar_stays_small():
    lines = Lines()
    for _ in range(1000):
        lines.feed(b"\r" + b"#" * 500)
    assert len(lines._rest) < 2000


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


def refuse(*_):
    raise PermissionError("not yours")


@pytest.mark.parametrize("reopen", [True, False])
def test_outlet_never_blocks_and_loses_nothing(pipe, tmp_path, monkeypatch, reopen):
    monkeypatch.setattr(output, "MEMORY_LIMIT", 1 << 20)
    with monkeypatch.context() as patch:
        if not reopen:      # as for a socket or a pipe of another user's
            patch.setattr(output.os, "open", refuse)
        outlet = Outlet(pipe[1], str(tmp_path))
    data = [os.urandom(1 << 16) * 2 for _ in range(40)]     # 5 MiB: pipe, memory and file
    began = time.monotonic()
    for piece in data:
        outlet.write(piece)
    assert time.monotonic() - began < 2 and outlet.pending
    assert outlet._size <= 1 << 20 and outlet._end_at > 1 << 20
    got = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(pipe[0], 1 << 16), b"")))
    reader.start()
    deadline = time.monotonic() + 20
    while outlet.pending and time.monotonic() < deadline:
        outlet.flush()
        outlet.write(data[0][:1000] if len(data) == 40 else b"")        # more comes while old waits
        if len(data) == 40:
            data.append(data[0][:1000])
        time.sleep(0.001)
    outlet.close()
    os.close(pipe[1])
    reader.join(10)
    assert b"".join(got) == b"".join(data)
    assert os.listdir(str(tmp_path)) == []


def test_outlet_leaves_the_callers_description_blocking(pipe):
    outlet = Outlet(pipe[1])
    outlet.write(b"x")
    assert os.get_blocking(pipe[1])
    outlet.close()


def test_outlet_whose_reader_has_gone(pipe):
    outlet = Outlet(pipe[1])
    outlet.write(b"x")
    os.close(pipe[0])
    outlet.write(b"y")
    assert outlet.broken == output.errno.EPIPE and not outlet.pending
    outlet.write(b"z")
    outlet.close()


def test_outlet_to_a_file_keeps_what_is_there(tmp_path):
    path = str(tmp_path / "file")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before ")
    outlet = Outlet(fd)
    outlet.write(b"after")
    assert not outlet.pending
    outlet.close()
    os.write(fd, b" end")
    os.close(fd)
    with open(path, "rb") as file:
        assert file.read() == b"before after end"


def test_outlet_without_room_for_what_waits(pipe, monkeypatch):
    monkeypatch.setattr(output, "MEMORY_LIMIT", 1000)
    outlet = Outlet(pipe[1], "/nonexistent/folder")
    for _ in range(4):
        outlet.write(bytes(1 << 16))
    assert outlet.lost > 0 and not outlet.broken
    outlet.close()


def test_role_output_log_is_raw_and_tail_is_short(pipe, tmp_path):
    screen = Screen(pipe[1], pipe[1])
    path = str(tmp_path / "worker-0.log")
    role = RoleOutput("worker 0", path, screen)
    data = b"".join(b"line %d\n" % i for i in range(30)) + b"\r1%\r2%" + b"\xff\n" + b"last"
    role.feed(data)
    assert role.tail() == [b"line %d" % i for i in range(12, 30)] + [b"2%\xff", b"last"]
    role.finish()
    screen.finish(1, lambda: False)
    with open(path, "rb") as file:
        assert file.read() == data
    shown = os.read(pipe[0], 1 << 16).split(b"\n")
    assert shown[0] == b"[worker 0] line 0" and shown[-3:] == [b"[worker 0] 2%\xff", b"[worker 0] last", b""]


def test_a_log_that_cannot_be_written_does_not_end_the_job(pipe):
    screen = Screen(pipe[1], pipe[1])
    role = RoleOutput("worker 0", "/dev/full", screen)
    role.feed(b"one\n")
    role.feed(b"two\n")
    role.finish()
    shown = os.read(pipe[0], 1 << 16).decode().split("\n")
    assert shown == ["launch: cannot write /dev/full any more: No space left on device", "[worker 0] one",
                     "[worker 0] two", ""]


def render(data):
    """What a terminal shows: carriage return, erase to the end of line, newline are all we use."""
    rows, column = [""], 0
    i = 0
    text = data.decode()
    while i < len(text):
        if text.startswith("\x1b[K", i):
            rows[-1] = rows[-1][:column]
            i += 3
            continue
        if text[i] == "\r":
            column = 0
        elif text[i] == "\n":
            rows.append("")
            column = 0
        else:
            rows[-1] = rows[-1][:column] + text[i] + rows[-1][column + 1:]
            column += 1
        i += 1
    return rows


def read_all(fd):
    """What is there to read, and what comes within a moment (a terminal hands it out in pieces)."""
    data = b""
    while select.select([fd], [], [], 0.2)[0]:
        data += os.read(fd, 4096)
    return data


def test_live_line_on_a_terminal():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    try:
        screen = Screen(slave, slave)
        screen.lines(b"[w] ", [b"hello"])
        screen.live(b"[w] 10% of a very long bar")
        assert render(read_all(master)) == ["[w] hello", "[w] 10% of a very l"]
        screen.lines(b"[s] ", [b"x", b"y"])
        screen.live(b"[w] 20%")
        screen.say("note")
        assert render(read_all(master))[-4:] == ["[s] x", "[s] y", "launch: note", "[w] 20%"]
        screen.live(b"")
        screen.lines(b"[w] ", [b"done"])
        screen.finish(1, lambda: False)
        assert render(read_all(master))[-2:] == ["[w] done", ""]
    finally:
        os.close(master)
        os.close(slave)


def test_no_live_line_without_a_terminal(pipe):
    screen = Screen(pipe[1], pipe[1])
    screen.live(b"bar")
    screen.lines(b"> ", [b"line"])
    assert os.read(pipe[0], 100) == b"> line\n"


def test_finish_gives_up_on_a_reader_that_does_not_read(pipe):
    screen = Screen(pipe[1], pipe[1])
    screen.lines(b"", [bytes(1 << 20)])
    began = time.monotonic()
    screen.finish(0.3, lambda: False)
    assert 0.2 < time.monotonic() - began < 3
