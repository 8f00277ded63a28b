from __future__ import annotations

import subprocess
import sys

ENDING = """
import atexit, sys, threading
from trainers.distributed import end_process

atexit.register(print, "exit handler ran")
threading.Thread(target=threading.Event().wait).start()  # a thread that no interpreter would wait out
print("to stdout")
sys.stderr.write("to stderr, no newline")
end_process(7)
print("never here")
"""


def test_end_process_keeps_status_output_and_exit_handlers_and_waits_for_no_thread() -> None:
    process = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60)
    assert process.returncode == 7
    assert process.stdout == "to stdout\nexit handler ran\n"
    assert process.stderr == "to stderr, no newline"
