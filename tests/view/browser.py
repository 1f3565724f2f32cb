"""A headless Chromium driven over its debugging pipe: opens a page, takes screenshots. Renders in software."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    """Return a Chromium's path, or None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


class PageChangesError(Exception):
    """The page is on its way to another address; ask again."""


class Browser:
    """One page of a headless Chromium. Use it in a `with`."""

    def __init__(self, profile: Path, *, width: int = 1600, height: int = 1000) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        chromium = find_chromium()
        assert chromium is not None
        # Chromium reads messages from descriptor 3 and writes to 4; high numbers first, so that neither is overwritten.
        line = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        size = f"--window-size={width},{height}"
        self._process = subprocess.Popen(
            ["bash", "-c", line, chromium, *FLAGS, size, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._id = b"", 0
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._id:
                if answer.get("error", {}).get("message") == "Not attached to an active page":
                    raise PageChangesError
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium closed the pipe"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, url: str) -> None:
        """Go to `url`; does not wait for anything."""
        self.call("Page.navigate", url=url)

    def screenshot(self) -> np.ndarray:
        """Return what the page looks like now, RGB uint8 [height, width, 3]."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def wait_for(self, wanted: Any, *, seconds: float = 90.0) -> np.ndarray:
        """Take screenshots until `wanted(picture)` is true or the time is over, and return the last one."""
        end = time.monotonic() + seconds
        while True:
            time.sleep(1.0)
            try:
                picture = self.screenshot()
            except PageChangesError:
                continue
            if wanted(picture) or time.monotonic() > end:
                return picture
