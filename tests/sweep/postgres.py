"""A PostgreSQL server of the test's own, from Debian's package, on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def binaries() -> Path | None:
    """The newest installed version's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def why_not() -> str:
    """Why no server can be started here; "" where one can."""
    if binaries() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            return "PostgreSQL does not run as root, and there is no runuser"
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def as_nobodys_root(*command: object) -> list[str]:
    """PostgreSQL refuses to run as root."""
    words = list(map(str, command))
    return ["runuser", "-u", "postgres", "--", *words] if os.geteuid() == 0 else words


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A running server; the URL of its database `sweeps`."""
    programs = binaries()
    assert programs
    folder = Path(tempfile.mkdtemp(prefix="gpunet-postgres-"))
    try:
        password = secrets.token_hex(8)
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        data, log = folder / "data", folder / "log"
        init = ("-D", data, "-U", "sweeper", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8")
        _run(programs / "initdb", *init, "--no-sync", "--locale=C")
        port = _free_port()
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        _run(programs / "pg_ctl", "-D", data, "-l", log, "-o", settings, "-w", "-t", "60", "start")
        try:
            environment = os.environ | {"PGPASSWORD": password}
            _run(programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "sweeper", "sweeps", env=environment)
            yield f"postgresql://sweeper:{password}@127.0.0.1:{port}/sweeps"
        finally:
            _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object, **kwargs) -> None:
    # A file, not a pipe: the server keeps what pg_ctl gave it, and a pipe would never end.
    with tempfile.TemporaryFile() as said:
        code = subprocess.run(
            as_nobodys_root(*command), stdout=said, stderr=said, cwd="/", timeout=90, **kwargs
        ).returncode
        said.seek(0)
        assert code == 0, (command, said.read().decode())


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]
