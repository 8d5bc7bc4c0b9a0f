"""The frames between launcher and agents: what is sent arrives, and nothing else is taken for it."""
import json
import os
import random
import struct

from launch.wire import LIMIT, MESSAGE, OUTPUT, Sender, Unpacker, WireError, message, pack

import pytest


def head(kind, index, length):
    return struct.pack("!BII", kind, index, length)


def stream():
    return b"".join([message("hello", version="0.1.0", key=None, listen=["0.0.0.0", 0]), pack(OUTPUT, 7, b"\x00\xff\n"),
                     message("start", env={"A": "ä\n\"'"}, argv=["x", ""], worker=True, share=0.5), pack(OUTPUT, 0, b"")])


FRAMES = [(MESSAGE, 0, {"op": "hello", "version": "0.1.0", "key": None, "listen": ["0.0.0.0", 0]}),
          (OUTPUT, 7, b"\x00\xff\n"),
          (MESSAGE, 0, {"op": "start", "env": {"A": "ä\n\"'"}, "argv": ["x", ""], "worker": True, "share": 0.5}),
          (OUTPUT, 0, b"")]


def test_what_is_sent_arrives():
    unpacker = Unpacker()
    assert unpacker.feed(stream()) == FRAMES and not unpacker.partial
    assert unpacker.feed(b"") == []


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 64])
def test_however_it_is_cut(size):
    unpacker, found, data = Unpacker(), [], stream()
    for at in range(0, len(data), size):
        found += unpacker.feed(data[at:at + size])
        assert unpacker.partial == (sum(len(pack(k, i, p) if k == OUTPUT else message(**p)) for k, i, p in found)
                                    < min(at + size, len(data)))
    assert found == FRAMES


def test_bytes_that_are_not_utf8_arrive_as_they_are():
    name = os.fsdecode(b"/data/\xff\xfe")
    (_, _, fields), = Unpacker().feed(message("start", cwd=name))
    assert os.fsencode(fields["cwd"]) == b"/data/\xff\xfe"


def test_the_longest_frame():
    data = b"x" * LIMIT
    assert Unpacker().feed(pack(OUTPUT, 2 ** 32 - 1, data)) == [(OUTPUT, 2 ** 32 - 1, data)]


@pytest.mark.parametrize("arguments", [(0, 0, b""), (3, 0, b""), (OUTPUT, -1, b""), (OUTPUT, 2 ** 32, b""),
                                       (MESSAGE, 1, b"{}"), (OUTPUT, 0, b"x" * (LIMIT + 1))])
def test_what_is_no_frame_is_not_sent(arguments):
    with pytest.raises(WireError):
        pack(*arguments)


@pytest.mark.parametrize("fields", [{"a": float("nan")}, {"a": float("inf")}, {"a": b"x"}, {"a": {1, 2}},
                                    {"a": "x" * LIMIT}])
def test_what_json_cannot_say_is_not_sent(fields):
    with pytest.raises(WireError, match="the message 'start' cannot be sent"):
        message("start", **fields)


DEEP = b'{"op":' + b"[" * 200000


def payload(text):
    return head(MESSAGE, 0, len(text)) + text


@pytest.mark.parametrize("data, text", [
    (b"Welcome to node7\n", "expected a frame, received b'Welcome to node7"),
    (b"\x00", "expected a frame"),
    (b"\x03", "expected a frame"),
    (head(OUTPUT, 0, LIMIT + 1), "1048576 is the most"),
    (head(MESSAGE, 0, 2 ** 32 - 1), "1048576 is the most"),
    (head(MESSAGE, 1, 2), "index 1"),
    (payload(b""), "not JSON"),
    (payload(b"{"), "not JSON"),
    (payload(b"{} {}"), "not JSON"),
    (payload(b'{"op":"\xff"}'), "not JSON"),
    (payload(b'{"op":"\xed\xa0\x80"}'), "not JSON"),
    (payload(b'{"op":"beat","n":NaN}'), "NaN"),
    (payload(b'{"op":"beat","n":-Infinity}'), "Infinity"),
    (payload(b'{"op":"beat","n":1e999}'), "1e999"),
    (payload(b'{"op":"beat","n":' + b"9" * 900000 + b"}"), "is not a number"),
    (payload(b'{"op":"beat","op":"bye"}'), "twice"),
    (payload(DEEP), "not JSON"),
    (payload(b"[]"), "without an op"),
    (payload(b"{}"), "without an op"),
    (payload(b'{"op":3}'), "without an op"),
    (payload(b'"beat"'), "without an op"),
])
def test_nonsense(data, text):
    unpacker = Unpacker()
    with pytest.raises(WireError) as error:
        unpacker.feed(data)
    assert text in str(error.value) and len(str(error.value)) < 400 and "\n" not in str(error.value)
    with pytest.raises(WireError):          # once broken, always broken
        unpacker.feed(message("beat"))


def test_mutated_streams_give_frames_or_an_error():
    draw, errors = random.Random(3), 0
    for _ in range(2000):
        data = bytearray(stream())
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        unpacker = Unpacker()
        try:
            while data:
                count = draw.randint(1, 50)
                for kind, index, content in unpacker.feed(bytes(data[:count])):
                    assert kind == OUTPUT and isinstance(content, bytes) or index == 0 and isinstance(content["op"], str)
                del data[:count]
        except WireError:
            errors += 1
    assert errors > 500


def test_random_bytes_are_no_frames():
    for seed in range(300):
        data = random.Random(seed).getrandbits(8 * 200).to_bytes(200, "big")
        try:
            Unpacker().feed(data)
        except WireError:
            continue
        assert data[0] in (MESSAGE, OUTPUT)


@pytest.fixture
def pipe():
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def drain(fd):
    """What is in the pipe, as frames; the last may be cut."""
    data = b""
    try:
        while True:
            data += os.read(fd, 1 << 20)
    except BlockingIOError:
        return data


def test_messages_do_not_wait_for_output_and_roles_take_turns(pipe):
    sender, unpacker = Sender(pipe[1]), Unpacker()
    sender.output(0, b"a" * 4000000)
    sender.output(1, b"last words")
    sender.send(message("exit", index=1), after=1)
    sender.send(message("exit", index=0), after=0)
    sender.send(message("exit", index=2), after=2)      # it has printed nothing
    sender.send(message("ended", left=[]), last=True)
    sender.flush()
    assert sender.pending and sender.waiting > 3000000
    sender.send(message("beat"))
    found = []
    while sender.pending:
        found += unpacker.feed(drain(pipe[0]))
        sender.flush()
    found += unpacker.feed(drain(pipe[0]))
    assert sender.waiting == 0 and not unpacker.partial
    assert b"".join(content for kind, index, content in found if kind == OUTPUT and index == 0) == b"a" * 4000000
    order = [content.get("index", content["op"]) if kind == MESSAGE else index for kind, index, content in found]
    words = [content for _, _, content in found].index(b"last words")
    exits = [place for place, (kind, _, content) in enumerate(found) if kind == MESSAGE and content["op"] == "exit"]
    assert order.index("beat") < 10 and words < 10 and len(found) > 60
    assert [found[place][2]["index"] for place in exits] == [2, 1, 0] and words < exits[1]
    assert exits[2] == len(found) - 2 and found[-1][2]["op"] == "ended"


def test_a_message_can_be_made_when_its_turn_comes(pipe):
    sender, asked = Sender(pipe[1]), []
    sender.output(0, b"a" * 400000)
    sender.send(lambda: asked.append(1) or message("exit", index=0), after=0)
    sender.flush()
    assert sender.pending and not asked
    data = b""
    while sender.pending:
        data += drain(pipe[0])
        sender.flush()
    assert asked == [1] and Unpacker().feed(data + drain(pipe[0]))[-1] == (MESSAGE, 0, {"op": "exit", "index": 0})


def test_a_broken_descriptor_is_told():
    read_end, write_end = os.pipe()
    os.close(read_end)
    sender = Sender(write_end)
    sender.send(message("beat"))
    with pytest.raises(BrokenPipeError):
        sender.flush()
    os.close(write_end)


def test_messages_are_plain_json():
    frame = message("ports", ports=[1, 2])
    assert json.loads(frame[9:].decode("ascii")) == {"op": "ports", "ports": [1, 2]}
