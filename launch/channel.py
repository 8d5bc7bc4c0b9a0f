"""The channel: what joins the hosts of a job, a process of its own on each of them with one port open to the network.

Nobody gets an answer from that port who does not know the job's key (``secure.py``). Behind it each connection is led
to a port of 127.0.0.1, where a role listens that would believe everybody, or handed to the parent process. In the
other direction the channel listens on 127.0.0.1 in the place of roles on other hosts (``tunnel.py`` carries bytes).

``Channel`` is the parent's side. Parent and child exchange JSON objects, one a packet, over a socket pair; each that
is sent has an "op", each that comes back an "event" (in brackets, with the fields of its own beside those of the op):
    key {key}                               a packed JobKey for all that comes after
    listen {host, port, index}              [listening {port}] index: this host's number, which knocks must name
    serve {target, to}                      connections for target go to the address ``to``
    accept {target}                         they come to the parent [accepted {target, peer} + descriptor, each time]
    route {bind, address, host, target}     [routed {port} or refused {port, why}] connections to ``bind`` go there
    dial {address, host, target, timeout}   [dialed + descriptor or failed {why}] tried again until timeout (30 s)
    clear {}                                [cleared] no routes, nothing served, their tunnels cut; what was handed to
                                            the parent, ``accept`` and the listening port stay
At any time: broken {port, why}: an established tunnel ended by an error, not by a close; failed {port, why}: a route
does not get through at present (at most every 10 s); failed {op, why}: a message that cannot be followed.
Addresses are [host, port]. The process ends when the socket pair does.
"""
import array
import json
import os
import select
import signal
import socket
import subprocess
import sys

from launch.processes import dies_with
from launch.spec import LaunchError

__all__ = ["Channel", "serve", "main", "receive", "send"]

PACKET = 1 << 16
END_LIMIT = 3.0     # seconds for the process to end after its socket pair


class Channel:
    """The channel's process, seen from its parent. Not thread-safe; end it from the thread that started it."""

    def __init__(self):
        self._sock = self._process = None

    def start(self, argv=None, stdin_data=None):
        """Start the process and return self.

        Args: argv: a program that calls ``main`` with its last argument, which is added here; normally this module.
            stdin_data: bytes for its standard input (sources, when it runs from memory).
        Raises: LaunchError.
        """
        env = dict(os.environ)
        if argv is None:
            root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            argv = [sys.executable, "-S", "-m", "launch.channel"]
            env["PYTHONPATH"] = os.pathsep.join([root] + [path for path in [env.get("PYTHONPATH")] if path])
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                # Its standard output is nobody's: the agent's own may be the link to the launcher.
                self._process = subprocess.Popen(
                    list(argv) + [str(theirs.fileno())], env=env, pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL if stdin_data is None else subprocess.PIPE,
                    stdout=subprocess.DEVNULL, preexec_fn=dies_with(os.getpid()))
            except (OSError, subprocess.SubprocessError) as error:
                self._sock.close()
                raise LaunchError(f"cannot start the channel with {argv[0]}: {error}") from None
        if stdin_data is not None:
            try:
                self._process.stdin.write(stdin_data)
                self._process.stdin.close()
            except BrokenPipeError:
                pass        # it has ended; receive will tell
        return self

    @property
    def pid(self):
        return self._process.pid

    def fileno(self):
        """Readable when ``receive`` has something."""
        return self._sock.fileno()

    def send(self, op, **fields):
        """Send a message.

        Raises: LaunchError when the process has ended.
        """
        try:
            send(self._sock, {"op": op, **fields})
        except OSError as error:
            raise LaunchError(f"the channel's process (pid {self.pid}) is gone: {error.strerror}") from None

    def receive(self, timeout=None):
        """The next event and the descriptor that came with it, or None: (dict, int or None); (None, None) for none.

        Args: timeout: seconds; None waits for ever.
        Raises: LaunchError when the process has ended.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            return None, None
        event, fd = receive(self._sock)
        if event is None:
            raise LaunchError(f"the channel's process (pid {self.pid}) has ended")
        return event, fd

    def close(self):
        """End the process and everything it carries."""
        if self._process is None:
            return
        self._sock.close()
        try:
            self._process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def send(sock, message, fd=None, flags=0):
    """Send a JSON object, and a descriptor with it."""
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    sock.sendmsg([json.dumps(message).encode()], rights, flags)


def receive(sock):
    """The next JSON object and its descriptor (or None); (None, None) at the end."""
    size = array.array("i").itemsize
    try:
        data, rights, _, _ = sock.recvmsg(PACKET, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None, None
    fd = None
    for level, kind, content in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fd = array.array("i", content[:size])[0]
    return (json.loads(data.decode()), fd) if data else (None, None)


def serve(sock):
    """Be the channel's process for the parent at the other end of ``sock``; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C and a lost terminal are the parent's to deal with
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = 70
    try:
        from launch.gate import Gate  # not at the top: it imports ssl, which the parent has no use for
        code = Gate(sock).run()
    finally:
        sys.stderr.flush()
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        os._exit(code)                  # its threads wait for the network


def main(argv):
    """``python -m launch.channel FD``: serve at the socket pair's end with that number."""
    try:
        fd = int(argv[-1])
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except (IndexError, ValueError, OSError):
        sys.stderr.write(f"error: launch.channel wants the number of a socket's descriptor, got {argv}\n")
        return 2
    return serve(sock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
