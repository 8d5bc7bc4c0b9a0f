"""An agent's end of the channel between the hosts (``channel.py``), and what the launcher hears of it."""
import contextlib
import os
import signal
import sys
import time

from launch import bundle
from launch.spec import LaunchError

__all__ = ["Tunnels"]

LOCAL = "127.0.0.1"
CLEARING = 5.0              # seconds for the channel to close its tunnels


class Tunnels:
    """The channel's process, started when there is a key.

    Args: send: called with an op and fields, tells the launcher.
    """

    def __init__(self, loop, send):
        self._loop, self._send = loop, send
        self._channel = self._key = self._port = self._ready = self._dialed = None
        self._asked = self._clearing = False            # _asked: to listen
        self._wanted = set()                            # ports on which tunnels shall listen and do not yet

    @property
    def pids(self):
        """The process that must outlive the roles, if it is there."""
        return () if self._channel is None else (self._channel.pid,)

    def dial(self, key, address, target, timeout):
        """Connect to the launcher itself.

        Returns: a descriptor.
        Raises: LaunchError; Interrupted.
        """
        self._start(key)
        self._channel.send(op="dial", address=address, host=0, target=target, timeout=timeout)
        self._loop.until(lambda: self._dialed is not None, timeout + CLEARING)
        if not isinstance(self._dialed, int):
            raise LaunchError(f"cannot reach the launcher at {address[0]} port {address[1]}: "
                              f"{self._dialed or 'no answer'}")
        return self._dialed

    def open(self, key, host, listen, ready):
        """Listen for the other hosts as host number ``host``; ``ready(port)`` is called when that is so."""
        try:
            self._start(key)
            self._ready = ready
            if self._port is not None:
                ready(self._port)
            elif not self._asked:
                self._asked = True
                self._channel.send(op="listen", host=listen[0], port=listen[1], index=host)
        except LaunchError as error:
            self._trouble("hello", str(error))

    def _start(self, key):
        if self._channel is None:
            from launch.channel import Channel  # not at the top: a job without a key does without
            channel = Channel()
            channel.start(bundle.command(sys.executable or "python3"), bundle.payload("launch.channel"))
            self._loop.watch(channel, self._event)
            self._channel, self._key, self._port, self._asked = channel, None, None, False
        if key != self._key:
            self._key = key
            self._channel.send(op="key", key=key)

    def route(self, routes, serve):
        """Offer our roles' ports to the other hosts, and have theirs here."""
        if self._channel is None and (routes or serve):
            self._trouble("routes", "tunnels were asked for, but there is no channel")
            return
        try:
            for port in serve:
                self._channel.send(op="serve", target=str(port), to=[LOCAL, port])
            self._wanted = {port for port, _, _, _ in routes}
            for port, address, channel_port, host in routes:
                self._channel.send(op="route", bind=[LOCAL, port], address=[address, channel_port], host=host,
                                   target=str(port))
        except LaunchError as error:
            self._trouble("routes", str(error))
            return
        if not routes:
            self._send("routed")

    def clear(self):
        """Take the tunnels away, and wait until their ports are free."""
        if self._channel is None:
            return
        self._wanted, self._clearing = set(), True
        try:
            self._channel.send(op="clear")
        except LaunchError:
            return              # its end is told of in _event
        deadline = time.monotonic() + CLEARING
        while self._clearing and time.monotonic() < deadline:
            self._loop.pump(0.1)
        if self._clearing and self._channel is not None:    # stopped or stuck: the next attempt gets another one
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._channel.pid, signal.SIGKILL)
            self.close()

    def close(self):
        """End the process."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._loop.unwatch(channel)
            channel.close()

    # ---- what the channel says ----

    def _event(self):
        try:
            event, fd = self._channel.receive(0)
        except LaunchError as error:
            self.close()
            self._clearing = False
            self._trouble("channel", str(error))
            return
        if event is not None:
            kind = event["event"]
            if fd is not None and kind != "dialed":
                os.close(fd)            # nobody here has asked for it
            handler = getattr(self, "_on_" + kind, None)
            if handler is not None:
                handler(event, fd)

    def _on_listening(self, event, _):
        self._port = event["port"]
        self._ready(self._port)

    def _on_dialed(self, _, fd):
        self._dialed = fd

    def _on_routed(self, event, _):
        if event["port"] in self._wanted:
            self._wanted.discard(event["port"])
            if not self._wanted:
                self._send("routed")

    def _on_refused(self, event, _):
        if event["port"] in self._wanted:
            self._wanted = set()
            self._trouble("routes", f"no tunnel can listen on port {event['port']}: {event['why']}", event["port"])

    def _on_failed(self, event, _):
        """A message that cannot be followed, or a connection that does not come about."""
        op = event.get("op")
        if "port" in event:             # a role's, which may try again and have more luck
            self._trouble("tunnel", event["why"], event["port"], fatal=False)
        elif op is None or op == "dial":
            self._dialed = event["why"]
        else:
            self._asked = self._asked and op != "listen"
            self._trouble("hello" if op in ("key", "listen") else "channel", event["why"])

    def _on_broken(self, event, _):
        if event["port"]:               # else it is the link itself, whose end is told otherwise
            self._send("broken", text=event["why"], port=event["port"])

    def _on_cleared(self, _event, _):
        self._clearing = False

    def _trouble(self, about, text, port=None, fatal=True):
        more = {} if port is None else {"port": port}
        self._send("trouble", about=about, text=text, fatal=fatal, **more)
