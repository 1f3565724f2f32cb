"""What keeps a served page open ends by Ctrl-C, however the process was started."""

import signal
import subprocess
import sys

WAIT = "from robot_rl.view.show import wait_for_interrupt as wait; print('there', flush=True); wait(); print('ended')"


def test_an_interrupt_ends_a_background_job_too():
    line = ["sh", "-c", f'{sys.executable} -c "{WAIT}" & echo $!; wait $!']  # sh lets its jobs ignore SIGINT
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    job = int(process.stdout.readline())
    assert process.stdout.readline() == "there\n"
    for _ in range(100):  # the handler is there a moment after the line
        subprocess.run(["kill", f"-{int(signal.SIGINT)}", str(job)], check=False, capture_output=True)
        try:
            process.wait(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.stdout.read() == "ended\n"
    process.stdout.close()
