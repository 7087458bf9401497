"""No test reaches the network: the Hub is offline and every socket but loopback is refused."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import socket

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # as many workers as cores; more threads than that only wait for each other

os.environ["LOWLIGHT_IQA_HOME"] = "/nowhere"  # what the user of this machine has installed is not tested

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True, scope="session")
def no_network():
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host):
        if host not in LOOPBACK:
            raise OSError(f"a test tried to reach {host!r}")

    def guarded(real):
        def call(self, address):
            if isinstance(address, tuple):
                check(address[0])
            return real(self, address)

        return call

    def guarded_resolve(host, *args, **kwargs):
        check(host)
        return resolve(host, *args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded(connect))
    patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    patch.setattr(socket, "getaddrinfo", guarded_resolve)
    yield
    patch.undo()
