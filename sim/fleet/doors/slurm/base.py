"""Slurm's data base beside an emulated Slurm: a MariaDB and a slurmdbd of its own in the private folder.

MariaDB listens on a socket file in that folder alone and asks for no password: whoever may enter the
folder may do anything there anyhow. It keeps real time; slurmdbd shares the fast clock, by which usage
decays.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from ersatz.sim.fleet.doors.slurm.accounts import Accounts
from ersatz.sim.fleet.doors.slurm.config import Site, base_port, message_timeout

NEEDED = {
    "mariadb-install-db": "mariadb-server-core", "my_print_defaults": "mariadb-client-core",
    "mariadbd": "mariadb-server-core", "slurmdbd": "slurmdbd", "sacctmgr": "slurm-client",
}  # fmt: skip
PLUGIN = "slurm-wlm-mysql-plugin"
INSTALL_S = 180.0  # real seconds for MariaDB's own tables
Environment = Mapping[str, str]


def install(site: Site, environment: Environment) -> str:
    """Make MariaDB's own tables; return a complaint, or an empty text."""
    words = ["mariadb-install-db", "--no-defaults", f"--datadir={site.folder}/base",
             "--skip-test-db", "--auth-root-authentication-method=normal", f"--user={site.user}"]  # fmt: skip
    try:
        done = subprocess.run(words, env=dict(environment), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=INSTALL_S)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"mariadb-install-db does not end within {INSTALL_S:g} s"
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        return f"mariadb-install-db: {lines[-1]}"
    return ""


def mariadb(site: Site) -> list[str]:
    """Return the command that starts MariaDB: a socket file, no network, in little memory."""
    return [
        "mariadbd", "--no-defaults", f"--datadir={site.folder}/base", f"--socket={site.folder}/base.socket",
        "--skip-networking", "--skip-grant-tables", f"--user={site.user}",
        f"--pid-file={site.folder}/base.pid", f"--log-error={site.folder}/base.log",
        "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900", "--skip-log-bin",
    ]  # fmt: skip


def slurmdbd_conf(site: Site) -> str:
    """Return the text of slurmdbd.conf; the socket itself is named by MYSQL_UNIX_PORT."""
    folder = site.folder
    return "\n".join([
        "AuthType=auth/munge", f"AuthInfo=socket={folder}/munge/socket,ttl=3600",
        f"DbdHost={site.host}", "DbdAddr=127.0.0.1", f"DbdPort={base_port(site)}",
        "CommunicationParameters=NoInAddrAny", f"SlurmUser={site.user}",
        "StorageType=accounting_storage/mysql", "StorageHost=localhost", f"StorageUser={site.user}",
        "StorageLoc=slurm", f"LogFile={folder}/slurmdbd.log", f"PidFile={folder}/slurmdbd.pid",
        f"MessageTimeout={message_timeout(site)}", "",
    ])  # fmt: skip


def orders(accounts: Accounts, dump: str) -> list[list[str]]:
    """Return the calls of sacctmgr that fill the data base, in their order."""
    calls: list[list[str]] = [["add", "qos", name] for name, _ in accounts.qos if name != "normal"]
    calls += [["modify", "qos", name, "set", *(f"{key}={value}" for key, value in settings.items())]
              for name, settings in accounts.qos if settings]  # fmt: skip
    return [
        ["sacctmgr", "-i", *words] for words in [*calls, ["load", f"file={dump}", "cluster=ersatz"]]
    ]
