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


# Stops the server and removes the folder when its standard input ends: when the test is done, or killed.
KEEPER = """
cd / && "$1"/pg_ctl -D "$2"/data -l "$2"/log -o "$3" -w -t 60 start >"$2"/started 2>&1 && echo up || cat "$2"/started
read -r _
"$1"/pg_ctl -D "$2"/data -m immediate -w stop >/dev/null 2>&1
rm -rf "$2"
"""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A running server; the URL of its database `sweeps`."""
    programs = binaries()
    assert programs
    folder, password, port = Path(tempfile.mkdtemp(prefix="gpunet-postgres-")), secrets.token_hex(8), _free_port()
    (folder / "password").write_text(password)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    init = ("-U", "sweeper", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C")
    _run(programs / "initdb", "-D", folder / "data", *init, "--no-sync")
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    keeper = subprocess.Popen(
        as_nobodys_root("sh", "-c", KEEPER, "keeper", programs, folder, settings), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert keeper.stdout
        assert (said := keeper.stdout.readline()) == "up\n", said
        environment = os.environ | {"PGPASSWORD": password}
        _run(programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "sweeper", "sweeps", env=environment)
        yield f"postgresql://sweeper:{password}@127.0.0.1:{port}/sweeps"
    finally:
        keeper.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object, **kwargs) -> None:
    done = subprocess.run(
        as_nobodys_root(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", timeout=90,
        **kwargs,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout)


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]
