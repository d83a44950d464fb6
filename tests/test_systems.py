"""What differs between systems: nothing that POSIX alone has is needed, and spawned processes get their objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from programs import run

WITHOUT_POSIX = """
import os, signal, sys

for name in ("O_TMPFILE", "O_DIRECTORY", "O_CLOEXEC", "fchown", "fchmod", "fork", "register_at_fork", "getuid", "link"):
    vars(os).pop(name, None)
os.supports_effective_ids = set()
for name in ("SIGKILL", "SIGALRM", "setitimer"):
    vars(signal).pop(name, None)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None

import weakref
import safepickle

class Node:
    pass

node = Node()
node.itself = weakref.ref(node)
for number in range(2):
    node.number = number
    safepickle.dump(node, sys.argv[1], checksum=True)
copy = safepickle.load(sys.argv[1])
print(copy.itself() is copy, copy.number, os.listdir(os.path.dirname(sys.argv[1])))
safepickle.dump([1], sys.argv[1])
print(safepickle.inspect(sys.argv[1]).verdict, safepickle.explain(node).picklable)
print(safepickle.deepcopy(node).itself() is node)
"""

SPAWNING = """
import weakref
from safepickle.integrations.multiprocessing import context

class Node:
    def __init__(self):
        self.itself = weakref.ref(self)

def check(node):
    return node.itself() is node

if __name__ == "__main__":
    spawn = context("spawn")
    with spawn.Pool(1) as pool:
        print(pool.map(check, [Node(), Node()]))
    queue = spawn.SimpleQueue()
    process = spawn.Process(target=queue.put, args=(Node(),))
    process.start()
    print(check(queue.get()))
    process.join()
"""


def test_nothing_that_posix_alone_has_is_needed(tmp_path: Path) -> None:
    lines = run(WITHOUT_POSIX, str(tmp_path / "file")).splitlines()
    assert lines == ["True 1 ['file']", "safe True", "False"]


def test_processes_that_are_spawned_get_their_objects_with_the_weak_references_in_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWNING, encoding="utf-8")
    command = [sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.stdout.splitlines(), done.stderr) == (["[True, True]", "True"], "")
