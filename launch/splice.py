"""Bytes carried both ways between a TLS connection and a plain socket, until both directions have ended.

ssl works on buffers in memory here, and one thread moves them: many TLS records go through one system call, and half a
connection can be closed, which ssl's own sockets cannot do without losing data.
"""
import contextlib
import errno
import fcntl
import select
import socket
import ssl
import struct
import termios
import time

from launch.tunnel import KEEPALIVE, WIRE, closed_early, why

__all__ = ["Broken", "splice"]

SILENCE = 20.0      # seconds without a sign of life from the network while an answer is due
CHECK = 5.0         # seconds between two looks for that
LINGER = 5.0        # seconds for the other side to hear that this side's program is gone
PLAIN = 1 << 17     # bytes read at once from a program
RECORD = 1 << 14    # bytes of a TLS record at most
IN, OUT, TROUBLE = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP | select.POLLNVAL
NOTHING = memoryview(b"")


class Broken(Exception):
    """An established connection between hosts ended other than by a close; the message says how.

    An empty message: there is nothing to report, one of the programs had gone before.
    """


def splice(secure, plain):
    """Carry bytes between a TLS connection and a plain socket until both directions have ended.

    The end of one direction is passed on after all its data, the other direction goes on. What cannot be delivered
    yet waits in bounded buffers, and nothing more is read meanwhile. Closes neither socket.

    Raises: Broken when the connection between the hosts fails; the plain socket is then set to reset its peer, for
        whom this must not look like an end.
    """
    try:
        _Splice(secure, plain).run()
    except BaseException:
        if plain.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise


class _Splice:
    """The state of ``splice``. Up is from the plain socket to the network, down the other way."""

    def __init__(self, secure, plain):
        self.secure, self.tls, self.net, self.plain = secure, secure.tls, secure.sock, plain
        self.net.setblocking(False)
        self.plain.setblocking(False)
        self.up, self.wire = memoryview(bytearray(PLAIN)), memoryview(bytearray(WIRE))
        # What one reading of the network can hold at most, with a record that had arrived in part before.
        self.text = memoryview(bytearray(WIRE + 2 * RECORD))
        self.sending, self.delivering = NOTHING, NOTHING    # ciphertext for net, plaintext for plain
        self.up_ended = self.down_ended = False             # no more data will come from plain, from net
        self.fin_sent = self.end_delivered = self.gone = False
        self.poll, self.watched = select.poll(), {}
        self.check_at, self.deadline = time.monotonic() + CHECK, None

    def run(self):
        self._decrypt()         # what came with the last of the handshake
        self._deliver()
        while not (self.up_ended and self.down_ended and self.fin_sent and not self.delivering):
            self._watch(self.net, (0 if self.down_ended or self.delivering else IN) | (OUT if self.sending else 0),
                        always=not self.fin_sent)
            if not self.gone:
                self._watch(self.plain, (0 if self.up_ended or self.sending else IN) | (OUT if self.delivering else 0))
            ready = dict(self.poll.poll(self._patience()))
            self._look()
            try:
                self._serve_net(ready.get(self.net.fileno(), 0))
            except OSError as error:
                # After it has said that it ends, only what goes up is lost: that is no fault of the network.
                raise Broken("" if self.down_ended else why(error)) from None
            event = ready.get(self.plain.fileno(), 0)
            if event & (OUT | TROUBLE) and self.delivering:
                self._deliver()
            if event & (IN | TROUBLE) and not self.sending and not self.up_ended:
                self._take()

    def _serve_net(self, event):
        if event & (OUT | TROUBLE) and self.sending:
            self._send()
        if event & (IN | TROUBLE) and not self.down_ended:
            if not self.delivering:
                self._receive()
            elif not self.fin_sent:     # reset, while the program has not taken what had come before
                raise ConnectionResetError(errno.ECONNRESET, "connection reset by the other side")
        elif event & TROUBLE and not self.fin_sent:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by the other side")

    def _watch(self, sock, events, always=False):
        """Poll a socket for these events; for none not at all, or its hang-up would wake us again and again.

        Args: always: also look for errors when there are no events to wait for; a hang-up then is one.
        """
        events = -1 if not events and not always else events
        if self.watched.get(sock, -1) != events:
            if events >= 0:
                self.poll.register(sock, events)
            else:
                self.poll.unregister(sock)
            self.watched[sock] = events

    def _patience(self):
        """Milliseconds until the next look at the clock."""
        moment = self.check_at if self.deadline is None else min(self.check_at, self.deadline)
        return max(0.0, moment - time.monotonic()) * 1000 + 1

    def _look(self):
        """End what has gone on in vain for too long."""
        now = time.monotonic()
        if self.deadline is not None and now > self.deadline:
            raise Broken("")
        if now > self.check_at:
            if _is_cut(self.net):
                raise Broken(f"no sign of life from the other host for {SILENCE:g} s or more")
            self.check_at = now + CHECK

    def _take(self):
        """Up: from the program into ciphertext."""
        try:
            count = self.plain.recv_into(self.up)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self._plain_gone()
        done = 0
        while done < count:
            done += self.tls.write(self.up[done:count])     # a record a time
        if not count:
            self._end_up()
        self.sending = memoryview(self.secure.outgoing.read())
        self._try_to_send()

    def _end_up(self):
        """Say that nothing more goes up (TLS close_notify); what comes down may go on.

        ssl.unwrap also looks for the other side's word in what has arrived. There is nothing to find there, for
        _decrypt has left no whole record unread: it asks for more, and that is that.
        """
        self.up_ended = True
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()

    def _try_to_send(self):
        try:
            self._send()
        except OSError as error:
            raise Broken("" if self.down_ended else why(error)) from None

    def _send(self):
        """Up: ciphertext to the network, and its end after all of it."""
        if self.sending:
            try:
                self.sending = self.sending[self.net.send(self.sending):] or NOTHING
            except (BlockingIOError, InterruptedError):
                pass
        if self.up_ended and not self.sending and not self.fin_sent:
            self.fin_sent = True
            self.net.shutdown(socket.SHUT_WR)

    def _receive(self):
        """Down: from the network into plaintext."""
        try:
            count = self.net.recv_into(self.wire)
        except (BlockingIOError, InterruptedError):
            return
        if not count:
            raise closed_early()
        self.secure.incoming.write(self.wire[:count])
        self._decrypt()
        self._deliver()

    def _decrypt(self):
        """Read all that can be read."""
        count = 0
        try:
            while not self.down_ended:
                piece = self.tls.read(len(self.text) - count, self.text[count:])
                count += piece
                self.down_ended = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:      # what read says in place of 0 when we have sent our own end
            self.down_ended = True
        self.delivering = self.text[:count]
        if self.secure.outgoing.pending and not self.sending:       # TLS itself may have had something to answer
            self.sending = memoryview(self.secure.outgoing.read())

    def _deliver(self):
        """Down: plaintext to the program, and its end after all of it."""
        if self.gone:
            self.delivering = NOTHING
            return
        try:
            if self.delivering:
                self.delivering = self.delivering[self.plain.send(self.delivering):] or NOTHING
            if self.down_ended and not self.delivering and not self.end_delivered:
                self.end_delivered = True
                self.plain.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._plain_gone()

    def _plain_gone(self):
        """The program's side is no more: for the other host an end like any other, not a fault of the network."""
        self._watch(self.plain, 0)
        self.gone, self.delivering = True, NOTHING
        self.deadline = time.monotonic() + LINGER
        if not self.up_ended:
            self._end_up()
            self.sending = memoryview(bytes(self.sending) + self.secure.outgoing.read())
        self._try_to_send()


def _is_cut(sock):
    """Whether the network seems to be cut: no word from the other host's kernel, though it was asked for one.

    TCP_USER_TIMEOUT would be simpler, but it also ends a connection whose other side is alive and only does not read
    for a while; and the kernel's own keepalive never gives up while the link of this very host is down.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)     # struct tcp_info of linux/tcp.h
    if len(info) < 60:
        return False
    retransmits, probes = info[2], info[3]
    unacked, silent = struct.unpack_from("=I", info, 24)[0], struct.unpack_from("=I", info, 56)[0] / 1000
    if silent < SILENCE:
        return False
    if unacked:
        return retransmits > 0
    queued = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]
    if queued:      # the other side's window is closed: the kernel asks more and more rarely whether it still is
        return probes >= 3
    return silent >= KEEPALIVE[0] + KEEPALIVE[1] * KEEPALIVE[2]
