"""Disks that are full or read-only."""

import os
import resource
import subprocess
from contextlib import contextmanager

import pytest


class Disk:
    """A small file system of its own where this process may mount one; else a folder with limits."""

    def __init__(self, folder):
        self.folder = folder
        self.filler = folder.with_name("filler")  # never there where the disk is a folder
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True)
        self.mounted = done.returncode == 0

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)

    @contextmanager
    def state(self, how):
        """Fill it, or forbid writing, for a while."""
        with {"full": self.full, "read-only": self.read_only}[how]():
            yield

    @contextmanager
    def full(self):
        if not self.mounted:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            yield
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue
        yield
        filler.unlink()

    @contextmanager
    def read_only(self):
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)
            yield
            subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)
            return
        if os.geteuid() == 0:
            pytest.skip("this superuser may not mount, and nothing else is read-only to one")
        folders = [self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        yield
        for path in folders:
            path.chmod(0o755)


@pytest.fixture
def disk(tmp_path):
    """A disk to be filled or made read-only."""
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "disk")
    yield made
    made.close()
