"""What people are told of a job that ended badly: who failed first, its last lines, where the others stood."""
import time

__all__ = ["Report", "plural", "text"]


class Report:
    """Tells on the screen (and so in launch.log) about roles.

    Args: screen: has say and raw.
    """

    def __init__(self, screen):
        self._screen = screen

    def usage(self, role, after):
        """A worker says that it was called wrongly."""
        tail = role.output.tail()
        last = ": " + text(tail[-1]) if tail else ""
        self._screen.say(f"{role.spec.name} exited with code 2 (wrong use) after {after:.1f} s{last}")

    def failure(self, role, after, roles, spared=()):
        """A role has failed: name it, show its last lines, and who else failed."""
        while_running = "" if role.is_worker else " while workers were running"
        self._screen.say(f"FAILED: {self.story(role, while_running, after)}")
        self._last_lines(role)
        others = [one for one in roles if one is not role and one not in spared and one.code not in (None, 0)]
        if others:
            self._screen.say("others followed: " + ", ".join(
                f"{one.spec.name} {one.ending()} {one.ended - role.ended:.2f} s later"
                for one in sorted(others, key=lambda one: one.ended)))

    def story(self, role, words, after):
        """``worker 1 exited with code 3 after 8.1 s, at step 41 (host b, pid 123)``."""
        step = "" if role.progress is None else ", at step " + text(role.progress)
        return (f"{role.spec.name} {role.ending()}{words} after {after:.1f} s{step} "
                f"(host {role.spec.host}, pid {role.pid})")

    def _last_lines(self, role):
        tail, log = role.output.tail(), role.output.log_path
        if tail:
            self._screen.say(f"its last {plural(len(tail), 'line')} (all in {log}):")
            self._screen.raw(b"".join(b"    " + line + b"\n" for line in tail))
        else:
            self._screen.say(f"it printed nothing (log: {log})")

    def standing(self, roles):
        """Where each worker stood when a deadline passed."""
        now = time.monotonic()
        workers = [role for role in roles if role.is_worker]
        for role in workers[:16]:
            if role.code is not None:
                state = role.ending()
            else:
                state = "no step reported" if role.progress is None else "step " + text(role.progress)
                state += ", printed nothing" if role.heard is None else f", last output {now - role.heard:.1f} s ago"
            tail = role.output.tail()
            where = f"pid {role.pid}" if len({one.spec.host for one in roles}) == 1 else (
                f"host {role.spec.host}, pid {role.pid}")
            self._screen.say(f"  {role.spec.name} ({where}): {state}" + (": " + text(tail[-1]) if tail else ""))
        if len(workers) > 16:
            self._screen.say(f"  and {len(workers) - 16} more")


def plural(number, word, words=None):
    """``1 line``, ``2 lines``."""
    return f"{number} {word if number == 1 else words or word + 's'}"


def text(data, limit=300):
    """Bytes of a role's as one readable piece of a line."""
    return " ".join(data[:limit].decode("utf-8", "replace").split())
