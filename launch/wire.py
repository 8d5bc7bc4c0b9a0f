"""The link between the launcher and the agent of a host: frames on one stream of bytes.

A frame is a header (kind, index, length) and a payload of at most 1 MiB. A MESSAGE is a JSON object with an ``op``;
an OUTPUT is what a role has printed, as it is. Whoever reads believes nothing: anything else is a broken link.
"""
import collections
import json
import os
import struct

__all__ = ["MESSAGE", "OUTPUT", "LIMIT", "WireError", "Unpacker", "Sender", "pack", "message"]

MESSAGE, OUTPUT = 1, 2
LIMIT = 1 << 20             # bytes of a payload
DIGITS = 30                 # of a whole number: Python reads a million of them in minutes
HEADER = struct.Struct("!BII")
PIECE = 1 << 16             # bytes of output in a frame of our own: what a message may have to wait for


class WireError(Exception):
    """What came over the link is not what we speak; the link cannot be used any more."""


def pack(kind, index, payload):
    """A frame.

    Args: payload: bytes.
    Raises: WireError when it cannot be one.
    """
    if kind not in (MESSAGE, OUTPUT) or not 0 <= index < 1 << 32 or (kind == MESSAGE and index):
        raise WireError(f"kind {kind} with index {index} is no frame")
    if len(payload) > LIMIT:
        raise WireError(f"a frame of {len(payload)} bytes is too long, {LIMIT} is the most")
    return HEADER.pack(kind, index, len(payload)) + payload


def message(op, **fields):
    """A MESSAGE frame. Strings with undecodable bytes (``os.fsdecode``) arrive as they are.

    Raises: WireError when it is too long or holds what JSON cannot.
    """
    fields["op"] = op
    try:
        text = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"the message {op!r} cannot be sent: {error}") from None
    try:
        return pack(MESSAGE, 0, text.encode("ascii"))
    except WireError as error:
        raise WireError(f"the message {op!r} cannot be sent: {error}") from None


class Unpacker:
    """Cuts what arrives into frames.

    ``feed`` returns a list of (kind, index, payload); the payload of a MESSAGE is the object itself, a dict whose
    ``op`` is a string, that of an OUTPUT is bytes. ``partial`` tells whether a frame has begun and not ended.
    """

    def __init__(self):
        self._rest, self._broken = bytearray(), None

    @property
    def partial(self):
        return bool(self._rest)

    def feed(self, data):
        """Take in some bytes.

        Returns: the frames that are complete now.
        Raises: WireError on nonsense, and from then on always: where the next frame begins is not known.
        """
        if self._broken:
            raise WireError(self._broken)
        self._rest += data
        try:
            return self._cut()
        except WireError as error:
            self._broken = str(error)
            self._rest.clear()
            raise

    def _cut(self):
        frames, at, rest = [], 0, self._rest
        while len(rest) - at > 0:
            if rest[at] not in (MESSAGE, OUTPUT):       # at the first byte: a greeting of the login shell is not long
                raise WireError(f"expected a frame, received {bytes(rest[at:at + 60])!r}")
            if len(rest) - at < HEADER.size:
                break
            kind, index, length = HEADER.unpack_from(rest, at)
            if length > LIMIT:
                raise WireError(f"received the head of a frame of {length} bytes, {LIMIT} is the most")
            if kind == MESSAGE and index:
                raise WireError(f"received a message with index {index}, expected 0")
            end = at + HEADER.size + length
            if len(rest) < end:
                break
            payload = bytes(rest[at + HEADER.size:end])
            frames.append((kind, index, _object(payload) if kind == MESSAGE else payload))
            at = end
        del rest[:at]
        return frames


def _object(payload):
    """The JSON object of a message."""
    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=_refuse, parse_int=_whole, parse_float=_number,
                           object_pairs_hook=_fields)
    except (ValueError, RecursionError) as error:       # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise WireError(f"received a message that is not JSON ({error}): {payload[:60]!r}") from None
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise WireError(f"received a message without an op: {payload[:60]!r}")
    return value


def _refuse(text):
    raise ValueError(f"{text} is not a number")


def _whole(text):
    return int(text) if len(text) <= DIGITS else _refuse(text[:DIGITS] + "...")


def _number(text):
    value = float(text)
    return value if abs(value) < float("inf") else _refuse(text[:DIGITS])


def _fields(pairs):
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name comes twice")
    return fields


class Sender:
    """Frames on their way into a non-blocking descriptor.

    Messages go before output, and the roles' output goes in turns, so that neither a heartbeat nor the last words of
    a role wait for what another has printed; what belongs to one role keeps its order.
    """

    def __init__(self, fd):
        self._fd, self._now = fd, memoryview(b"")       # _now: the frame that is being written
        self._messages, self._roles = collections.deque(), collections.OrderedDict()
        self._last = collections.deque()
        self.waiting = 0                                # bytes of output that are not written yet
        self.written = 0                                # bytes that are

    def fileno(self):
        """For a selector."""
        return self._fd

    @property
    def pending(self):
        """Whether something waits to be written."""
        return bool(self._now or self._messages or self._roles or self._last)

    def send(self, frame, after=None, last=False):
        """Send a frame: at once, or where it belongs.

        Args: frame: bytes, or a function that makes them when it is their turn.  after: index of a role behind whose
            output it goes.  last: behind all output.
        """
        if last:
            self._last.append(frame)
        elif after in self._roles:
            self._roles[after].append(frame)
        else:
            self._messages.append(frame)

    def output(self, index, data):
        """Send what a role has printed."""
        frames = self._roles.setdefault(index, collections.deque())
        for at in range(0, len(data), PIECE):
            frames.append(pack(OUTPUT, index, data[at:at + PIECE]))
        self.waiting += len(data)

    def flush(self):
        """Write what goes without waiting.

        Raises: OSError when the descriptor is broken.
        """
        try:
            while self._now or self._next():
                count = os.write(self._fd, self._now)
                self._now = self._now[count:]
                self.written += count
        except BlockingIOError:
            return

    def _next(self):
        """Choose the frame to write; returns whether there is one."""
        if self._messages:
            frame = self._messages.popleft()
        elif self._roles:
            index, frames = self._roles.popitem(last=False)
            frame = frames.popleft()
            if not callable(frame) and frame[0] == OUTPUT:
                self.waiting -= len(frame) - HEADER.size
            if frames:
                self._roles[index] = frames             # at the end: the others' turn
        elif self._last:
            frame = self._last.popleft()
        else:
            return False
        self._now = memoryview(frame() if callable(frame) else frame)
        return True
