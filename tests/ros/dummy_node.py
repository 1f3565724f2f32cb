"""A process that behaves as its parameter file tells it, to see what looks after it do; no ROS in it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml


def main() -> int:
    given = yaml.safe_load(Path(sys.argv[-1]).read_text())["/**"]["ros__parameters"]
    if "child" in given:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(given["child"]).write_text(str(child.pid))
    if given.get("stubborn", False):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    sys.stdout.write(f"hello from {given['who']}\n")
    sys.stdout.flush()
    time.sleep(given.get("lives_s", 60.0))
    return int(given.get("code", 0))


if __name__ == "__main__":
    sys.exit(main())
