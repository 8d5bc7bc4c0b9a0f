"""A headless Chromium for tests, spoken to through its debugging pipe: no driver, no port."""
import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

__all__ = ["find", "open_page", "Page"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


def find():
    """The path of a Chromium (GLUONZOO_CHROMIUM names one by hand), or None."""
    named = os.environ.get("GLUONZOO_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. Attributes: problems (console errors, exceptions, log entries), requests (addresses that were asked for)."""

    def __init__(self, reading, writing):
        self._reading, self._writing = reading, writing
        self._buffer, self._number, self._events = b"", 0, []
        self._session = None
        self.problems, self.requests = [], []

    def call(self, method, timeout=60, **parameters):
        """Send a command of the DevTools protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda reply: reply.get("id") == self._number, timeout, method)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _until(self, wanted, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            while b"\0" in self._buffer:
                part, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(part)
                self._note(message)
                if wanted(message):
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                raise TimeoutError(f"Chromium did not answer {what} within {timeout} s")
            data = os.read(self._reading, 1 << 20)
            if not data:
                raise RuntimeError(f"Chromium ended during {what}")
            self._buffer += data

    def _note(self, message):
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(parameters["exceptionDetails"].get("text", "") + str(
                parameters["exceptionDetails"].get("exception", {}).get("description", "")))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def attach(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def look(self, width, height=900, dark=False, media="", scripts=True):
        """Set the size of the window in CSS pixels, the colour scheme, the medium ("print"), whether JavaScript runs."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def load(self, path, fragment=""):
        """Open a file and wait until it is loaded."""
        self.problems.clear()
        self.requests.clear()
        self.call("Page.navigate", url=f"file://{os.path.abspath(path)}{fragment}")
        self._until(lambda message: message.get("method") == "Page.loadEventFired", 60, "the page's loading")

    def run(self, expression):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def move(self, x, y):
        """Move the pointer to a place in the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        """Press a key, by its DOM name: "Tab", "ArrowRight", "Enter"."""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Escape": 27}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                      **(text if kind == "keyDown" else {}))

    def screenshot(self, path, whole=True):
        """Write a PNG of the window, or of the whole page."""
        more = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            more = {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size["width"], "scale": 1,
                                                            "height": min(size["height"], 16000)}}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))


@contextlib.contextmanager
def open_page(program):
    """Start a browser with one tab; it and its profile are gone afterwards."""
    to_child, writing = os.pipe()
    reading, from_child = os.pipe()
    folder = tempfile.mkdtemp(prefix="chromium-")

    def prepare():
        # The protocol's pipes are descriptors 3 and 4; copies first, or one could overwrite the other.
        first, second = os.dup(to_child), os.dup(from_child)
        os.dup2(first, 3)
        os.dup2(second, 4)
    process = subprocess.Popen(
        [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-sandbox", "--disable-gpu",
         "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--disable-background-networking",
         "--disable-component-update", "--disable-extensions", "--mute-audio"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=prepare,
        start_new_session=True)
    os.close(to_child)
    os.close(from_child)
    try:
        page = Page(reading, writing)
        page.attach()
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # The browser is a group of processes of its own.
        process.wait()
        os.close(reading)
        os.close(writing)
        shutil.rmtree(folder, ignore_errors=True)
