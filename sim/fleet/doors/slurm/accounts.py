"""Accounts of Slurm's data base: from a file in the format of `sacctmgr dump`, or from a fleet's tenants.

An emulated Slurm has one user, who runs ersatz. So each user of the file stands as an account of its own
under theirs (`account.user`) with its shares and limits, and a job runs in the account that its tenant
names. QOS, which a dump only refers to, are lines of the same form: `QOS - 'high':Priority=100`.
Format and limits: Slurm 22.05's manual page sacctmgr(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.names import EXPECTED, is_name
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.given import MOST_LINES, Settings, sound
from ersatz.sim.fleet.log import Quota
from ersatz.sim.fleet.workload.jobs import Job, Workload

PLAIN = r"(?:[^:']|(?<=gres/gpu):)*"  # a type of device stands behind a colon, too
LINE = re.compile(rf"(\w+)\s+-\s+(?:'([^']*)'|([^:'\s]+))((?::\w+=(?:'[^']*'|{PLAIN}))*)\s*")
OPTION = re.compile(rf":(\w+)=(?:'([^']*)'|({PLAIN}))")
TRES = frozenset({"grptres", "grptresmins", "grptresrunmins", "maxtres", "maxtresperjob", "mintres",
                  "maxtrespernode", "maxtresmins", "maxtresminsperjob", "mintresperjob",
                  "maxtresperaccount"})  # fmt: skip
OF_BOTH = TRES | {"grpjobs", "grpjobsaccrue", "grpsubmit", "grpsubmitjobs", "grpwall", "maxwall",
                  "maxwalldurationperjob", "priority"}  # fmt: skip
OF_ACCOUNTS = OF_BOTH | {"fairshare", "maxjobs", "maxjobsaccrue", "maxsubmit", "maxsubmitjobs", "qos",
                         "defaultqos", "qoslevel"}  # fmt: skip
OF_QOS = OF_BOTH | {"preempt", "preemptmode", "preemptexempttime", "gracetime", "flags", "usagefactor",
                    "usagethreshold", "limitfactor", "maxjobsperaccount",
                    "maxsubmitjobsperaccount"}  # fmt: skip
# A user stands as an account, so limits on each user of a QOS are limits on each account.
OF_USERS = {"maxtresperuser": "MaxTRESPerAccount", "maxtrespu": "MaxTRESPerAccount",
            "maxjobsperuser": "MaxJobsPerAccount", "maxjobspu": "MaxJobsPerAccount",
            "maxsubmitjobsperuser": "MaxSubmitJobsPerAccount",
            "maxsubmitpu": "MaxSubmitJobsPerAccount"}  # fmt: skip
OF_PEOPLE = frozenset({"description", "organization", "adminlevel", "coordinator", "defaultaccount",
                       "wckeys", "defaultwckey"})  # fmt: skip
ROOT = "root"


@dataclass(frozen=True, slots=True)
class Account:
    """One account: its parent, and its shares and limits as the file writes them."""

    name: str
    parent: str
    options: Settings


@dataclass(frozen=True, slots=True)
class Accounts:
    """What Slurm's data base holds, and which account each tenant's jobs run in."""

    accounts: tuple[Account, ...]
    cluster: Settings = field(default_factory=dict)  # limits of all together
    qos: tuple[tuple[str, Settings], ...] = ()
    of_tenant: dict[str, str] = field(default_factory=dict)
    limits: bool = False  # of the fleet's own quotas, which are always enforced
    notes: tuple[str, ...] = ()

    def arguments(self, job: Job) -> list[str]:
        """Return the arguments of `sbatch` for a job's account, and its QOS where one is called like it."""
        words = [f"--account={self.of_tenant.get(job.tenant, ROOT)}"]
        known = {name for name, _ in self.qos}
        qos = next((n for n in (job.tenant, job.id.rpartition("-")[0]) if n in known), "")
        return [*words, f"--qos={qos}"] if qos else words

    def dump(self, user: str) -> str:
        """Return the text that `sacctmgr load` reads, with the one user in every account."""
        lines = [f"Cluster - 'ersatz'{_options(self.cluster)}", f"Parent - '{ROOT}'",
                 f"User - '{user}':DefaultAccount='{ROOT}'"]  # fmt: skip
        for account in self.accounts:
            lines += [f"Parent - '{account.parent}'",
                      f"Account - '{account.name}'{_options(account.options)}",
                      f"Parent - '{account.name}'", f"User - '{user}'"]  # fmt: skip
        return "\n".join([*lines, ""])


def _options(settings: Settings) -> str:
    return "".join(f":{key}='{value}'" for key, value in settings.items())


def accounts_of_fleet(workload: Workload, quotas: Mapping[str, Quota]) -> Accounts:
    """Return an account for each tenant; a quota's limit is GrpTRES, its share FairShare."""
    tenants = sorted({job.tenant for job in workload.jobs if job.tenant} | set(quotas))
    accounts = []
    for tenant in tenants:
        quota = quotas.get(tenant)
        options = (
            {"Fairshare": f"{quota.share}", "GrpTRES": f"gres/gpu={quota.limit}"} if quota else {}
        )
        accounts.append(Account(tenant.lower(), ROOT, options))
    return Accounts(tuple(accounts), of_tenant={t: t.lower() for t in tenants}, limits=bool(quotas))


class _Reading:
    """One file being read; faults and what is left out are gathered."""

    def __init__(self, path: Path | str, cluster: Cluster) -> None:
        self.path, self.types = str(path), set(cluster.types)
        self.accounts: dict[str, Account] = {}
        self.cluster: Settings = {}
        self.qos: dict[str, Settings] = {}
        self.tenants: dict[str, str] = {}
        self.left: set[str] = set()
        self.problems: list[Problem] = []
        self.parent = ROOT

    def line(self, number: int, text: str) -> None:
        found = LINE.fullmatch(text)
        kind = found[1].lower() if found else ""
        try:
            if not found or kind not in ("cluster", "parent", "account", "user", "qos"):
                raise ValueError("is no line of a dump; expected KIND - 'name':KEY=VALUE:..., KIND one of"
                                 " Cluster, Parent, Account, User, QOS")  # fmt: skip
            name = (found[2] if found[2] is not None else found[3]).strip()
            if not is_name(name):
                raise ValueError(EXPECTED)
            options = {key: quoted or plain for key, quoted, plain in OPTION.findall(found[4])}
            self._take(kind, name, options)
        except ValueError as error:
            self.problems.append(Problem(self.path, number, 1, kind, text[:60], str(error)))

    def _take(self, kind: str, name: str, options: Settings) -> None:
        if kind == "cluster":
            self.cluster = self._kept(options, OF_ACCOUNTS)
        elif kind == "qos":
            self.qos[name.lower()] = self._kept(options, OF_QOS)
        elif kind == "parent":
            if name != ROOT and name.lower() not in self.accounts:
                raise ValueError("is no account that stands above")
            self.parent = name.lower()
        elif kind == "account":
            self._account(name.lower(), options)
            self.tenants[name] = name.lower()
        elif self.parent != ROOT:  # users of root are administrators
            own = f"{self.parent}.{name.lower()}"
            self._account(own, options)
            self.tenants[f"{self.parent}.{name}"] = own
            home = next((v for k, v in options.items() if k.lower() == "defaultaccount"), "")
            if home.lower() == self.parent or name not in self.tenants:
                self.tenants[name] = own

    def _account(self, name: str, options: Settings) -> None:
        if name in self.accounts:
            raise ValueError("stands twice")
        self.accounts[name] = Account(name, self.parent, self._kept(options, OF_ACCOUNTS))

    def _kept(self, options: Settings, known: Iterable[str]) -> Settings:
        kept: Settings = {}
        for key, value in options.items():
            lower = key.lower()
            if known is OF_QOS and lower in OF_USERS:
                key = OF_USERS[lower]
                lower = key.lower()
            if lower in OF_PEOPLE:
                continue
            if lower not in known:
                self.left.add(key)
            elif lower in TRES:
                kept |= {key: value} if (value := self._tres(sound(value))) else {}
            else:
                kept[key] = sound(value)
        return kept

    def _tres(self, value: str) -> str:
        """Return the limits on devices and nodes; jobs here take no processors and memory to speak of."""
        kept = []
        for part in value.split(","):
            what = part.partition("=")[0].lower()
            kind = what.removeprefix("gres/gpu:") if what.startswith("gres/gpu:") else ""
            if kind and kind not in self.types:
                raise ValueError(f"limits {what}; the fleet has {', '.join(sorted(self.types))}")
            if what in ("node", "gres/gpu") or kind:
                kept.append(part)
            else:
                self.left.add(f"{what}=")
        return ",".join(kept)


def read_accounts(path: Path | str, cluster: Cluster, workload: Workload) -> Accounts:
    """Read a dump of associations; raises `InputError` with every fault.

    A tenant is an account, a user (in its default account) or `account.user`; jobs of nobody run in root.
    """
    reading = _Reading(path, cluster)
    text = read_text_file(path, "a dump of sacctmgr")
    for number, line in enumerate(text.splitlines()[:MOST_LINES], 1):
        if line.strip() and not line.lstrip().startswith("#"):
            reading.line(number, line.strip())
    reading.problems += _unknown(reading, workload)
    if reading.problems:
        raise InputError(reading.problems)
    users = any("." in name for name in reading.tenants)
    notes = tuple(note for note in (
        f"{Path(path).name}: users stand as accounts of their own, ACCOUNT.USER, with their shares and"
        " limits" if users else "",
        f"{Path(path).name}: not carried over: {', '.join(sorted(reading.left))}" if reading.left else "",
    ) if note)  # fmt: skip
    return Accounts(tuple(reading.accounts.values()), reading.cluster, tuple(reading.qos.items()),
                    reading.tenants, notes=notes)  # fmt: skip


def _unknown(reading: _Reading, workload: Workload) -> Sequence[Problem]:
    """Blame names that are referred to and do not stand there: tenants of jobs, and QOS."""
    strangers = sorted({j.tenant for j in workload.jobs if j.tenant} - set(reading.tenants))
    wanted: dict[str, None] = {}
    options = [
        reading.cluster,
        *(a.options for a in reading.accounts.values()),
        *reading.qos.values(),
    ]
    for settings in options:
        for key, value in settings.items():
            if key.lower() in ("qos", "defaultqos", "qoslevel", "preempt"):
                wanted |= dict.fromkeys(
                    v.strip("+-=").lower() for v in value.split(",") if v.strip("+-=")
                )
    missing = [name for name in wanted if name not in reading.qos and name != "normal"]
    return [
        *(Problem(reading.path, 0, 0, "tenant", name, "is no account and no user of the file; its jobs"
                  " would be refused") for name in strangers),
        *(Problem(reading.path, 0, 0, "QOS", name, f"is referred to and does not stand there; add a line"
                  f" QOS - '{name}':Priority=...") for name in missing),
    ]  # fmt: skip
