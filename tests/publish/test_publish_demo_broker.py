import os
import signal
import socket
import subprocess
import sys

import pytest
from support_brokers import Listener, wait_until

from edgevision.demo.broker import EmbeddedBroker

pytest.importorskip("amqtt", reason="needs the demo's broker: pip install 'edgevision[demo]'")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_free_port_is_found_when_the_wanted_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        with EmbeddedBroker(wanted) as broker:
            assert broker.port != wanted
            assert listens(broker.port)
        assert not listens(broker.port)
        broker.close()


def test_it_carries_messages_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker(0) as broker, Listener(broker.port, "t", five=False) as listener:
        listener._client.publish("t", b"x", qos=1)
        assert listener.wait_count(1)[0].payload == b"x"
    assert capfd.readouterr() == ("", "")


def test_it_dies_with_its_parent() -> None:
    program = (
        "from edgevision.demo.broker import EmbeddedBroker\n"
        "with EmbeddedBroker(0) as broker:\n"
        "    print(broker.port, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert listens(port)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not listens(port), "the end of the broker")
