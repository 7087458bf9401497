"""Commands in processes that can be killed: forked from one that has imported everything, so that they start fast."""

import json
import os
import signal
import subprocess
import sys
import time

MOTHER = """
import json, os, sys
from lowlight_iqa import backbones, compare, evaluate, score
from lowlight_iqa.cli import evaluate, main, score, train
from lowlight_iqa.training import iaca, leiq

backbones.import_timm()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """A process that runs one command line at a time in a child; a context manager."""

    def __enter__(self):
        self.mother = subprocess.Popen(
            [sys.executable, "-c", MOTHER],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        self.mother.stdin.close()
        self.mother.wait(60)
        self.mother.stdout.close()

    def run(self, *arguments):
        """Run a command to its end; its exit status."""
        self.start(*arguments)
        return self.status()

    def start(self, *arguments):
        """Start a command; the id of its process."""
        print(json.dumps(list(map(str, arguments))), file=self.mother.stdin, flush=True)
        return int(self.mother.stdout.readline())

    def status(self):
        """Wait for the command that was started; its exit status, -9 if it was killed."""
        return int(self.mother.stdout.readline())

    def kill_at(self, child, grown, delay):
        """Kill it (kill -9) ``delay`` seconds after ``grown()`` is true; whether it had not come to its end before."""
        while not grown() and alive(child):
            time.sleep(0.001)
        time.sleep(delay)
        if alive(child):
            os.kill(child, signal.SIGKILL)
        return self.status() == -signal.SIGKILL


def alive(child):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{child}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
