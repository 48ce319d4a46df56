"""A headless Chromium spoken to through its debugging pipe (Chrome DevTools Protocol); standard library only."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
]  # fmt: skip


def found() -> str | None:
    """Return the browser of this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, names) if path), None)


class Page:
    """One page of one browser. Use it as a context manager."""

    def __init__(self, width: int = 1440, height: int = 900, dark: bool = False):
        self.size, self.dark = (width, height), dark
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._answers: dict[int, dict] = {}
        self._news: queue.Queue = queue.Queue()
        self._number = 0

    def __enter__(self):
        self._profile = tempfile.mkdtemp(prefix="explorer-browser-")
        (commands, self._to), (self._from, answers) = os.pipe(), os.pipe()
        # Chromium reads commands from file 3 and answers on file 4.
        line = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, found(), *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        threading.Thread(target=self._listen, daemon=True).start()
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*self.size)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        return self

    def __exit__(self, *_):
        try:
            self._call("Browser.close", wait=5)
            self._process.wait(10)
        except (TimeoutError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
        os.close(self._to)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _listen(self):
        rest = b""
        with os.fdopen(self._from, "rb", buffering=0) as pipe:
            while part := pipe.read(1 << 20):
                *whole, rest = (rest + part).split(b"\0")
                for message in whole:
                    self._news.put(json.loads(message))

    def _take(self, message):
        method, params = message.get("method"), message.get("params", {})
        if "id" in message:
            self._answers[message["id"]] = message
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def _call(self, method, wait=60, session=None, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._answer(self._number, method, time.monotonic() + wait)

    def _answer(self, number, method, until):
        while number not in self._answers:
            try:
                self._take(self._news.get(timeout=max(0.01, until - time.monotonic())))
            except queue.Empty:
                raise TimeoutError(f"{method}: no answer") from None
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def call(self, method, **params):
        """Call a method of the page."""
        return self._call(method, session=self._session, **params)

    def resize(self, width, height):
        """Give the window this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url):
        """Open an address and wait until the sections are drawn."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.drawn()

    def run(self, script):
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def until(self, condition, seconds=30):
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {condition}; errors: {self.errors}")
            time.sleep(0.05)

    def drawn(self):
        """Wait until everything asked for is drawn."""
        self.until("document.getElementById('views')?.dataset.state === 'drawn'")
        time.sleep(0.15)

    def mouse(self, kind, x, y, **more):
        """Send a mouse event: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, points, modifiers=0):
        """Press at the first point, move through the others, release at the last."""
        press = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
        self.mouse("mousePressed", *points[0], **press)
        for point in points[1:]:
            self.mouse("mouseMoved", *point, **press)
        self.mouse("mouseReleased", *points[-1], **press)

    def click(self, selector):
        """Click in the middle of an element."""
        box = self.box(selector)
        self.drag([(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)])

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key, code=0):
        """Press a key by its name; `code` is the Windows code, where it is not a character."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        down = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **down)

    def box(self, selector):
        """Return where an element lies: x, y, width, height."""
        return self.run(
            f"(() => {{const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            "return {x: b.x, y: b.y, width: b.width, height: b.height}})()"
        )

    def picture(self, selector=None):
        """Return a screenshot (of an element), height x width x 3."""
        import io

        import numpy as np
        from PIL import Image

        clip = {"clip": {**self.box(selector), "scale": 1}} if selector else {}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def save(self, path):
        """Save a screenshot of the window."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
