"""The topologies of all flavors together: who stands where, and where a job would stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ersatz.sim.fleet.kueue.flavors import Assignment, grouped
from ersatz.sim.fleet.kueue.objects import Domain, Flavor, Given, PodSet, Wish, Workload
from ersatz.sim.fleet.kueue.topology import Host, Topology

ANYWHERE = Wish()
Domains = dict[str, tuple[Domain, ...]]


class Places:
    """One topology for each flavor that has one; empty where none has. A host may serve several flavors."""

    def __init__(
        self, flavors: Mapping[str, Flavor], levels: Mapping[str, Sequence[str]],
        hosts: Sequence[Host] = (), unit: int = 1,
    ) -> None:  # fmt: skip
        self.of: dict[str, Topology] = {}
        for name, flavor in flavors.items():
            if flavor.topology in levels:
                own = [h for h in hosts if (name in h.flavors if h.flavors is not None else
                       all(h.labels.get(k) == v for k, v in flavor.labels.items()))]  # fmt: skip
                self.of[name] = Topology(levels[flavor.topology], own, unit)

    def __bool__(self) -> bool:
        return bool(self.of)

    def turn(self, host: Host, sign: int) -> None:
        """Take in a host that has come back; with sign -1, leave one out that has gone."""
        for topology in self.of.values():
            topology.turn(host, sign)

    def book(self, job: Workload, sign: int = 1) -> None:
        """Take the places of an admitted job; with sign -1 give them back."""
        for flavor, each, domains in _held_by(job.given, job.podsets):
            if flavor in self.of:
                for topology in self._sharing(self.of[flavor]):
                    topology.book(each, domains, sign)

    def find(self, job: Workload, assignment: Assignment) -> Domains | None:
        """Return domains for the podsets on flavors with a topology; None where there is no room."""
        found: Domains = {}
        booked: list[tuple[PodSet, Topology]] = []
        groups = sorted(grouped(job.podsets), key=lambda ps: self.flavor_of(assignment, ps[0].name))
        room = True
        for podsets in groups:
            topology = self.of.get(self.flavor_of(assignment, podsets[0].name))
            if topology is None:
                continue
            wished = [p if p.wish else replace(p, wish=ANYWHERE) for p in podsets]
            got = topology.place(wished, assignment.counts)
            if got is None:
                room = False
                break
            found |= got
            for podset in podsets:
                booked.append((podset, topology))
                self._book_domains(podset, topology, got[podset.name])
        for podset, topology in booked:
            self._book_domains(podset, topology, found[podset.name], -1)
        return found if room else None

    def find_without(
        self, jobs: Iterable[Workload], job: Workload, assignment: Assignment
    ) -> Domains | None:
        """Return domains as if some jobs did not stand where they stand."""
        out = list(jobs)
        for w in out:
            self.book(w, -1)
        found = self.find(job, assignment)
        for w in out:
            self.book(w)
        return found

    def book_meant(
        self, job: Workload, assignment: Assignment, domains: Domains, sign: int = 1
    ) -> None:
        """Take the places that a nominated job is meant to have, or give them back."""
        for podset in job.podsets:
            topology = self.of.get(self.flavor_of(assignment, podset.name))
            if topology is not None and podset.name in domains:
                self._book_domains(podset, topology, domains[podset.name], sign)

    def are_free(self, job: Workload, assignment: Assignment, domains: Domains) -> bool:
        """Tell whether such places are still free."""
        self.book_meant(job, assignment, domains)
        clash = any(topology.overdrawn() for topology in self.of.values())
        self.book_meant(job, assignment, domains, -1)
        return not clash

    def flavor_of(self, assignment: Assignment, podset: str) -> str:
        """Return the flavor whose nodes a podset would stand on."""
        choices = assignment.chosen.get(podset, {})
        named = [c.flavor for c in choices.values() if c.flavor in self.of]
        return named[0] if named else next((c.flavor for c in choices.values()), "")

    def _book_domains(
        self, podset: PodSet, topology: Topology, domains: tuple[Domain, ...], sign: int = 1
    ) -> None:
        for other in self._sharing(topology):
            other.book(podset.each, domains, sign)

    def _sharing(self, topology: Topology) -> Iterator[Topology]:
        for other in self.of.values():
            if other is topology or (other.by_host and topology.by_host):
                yield other


def _held_by(
    given: Mapping[str, Given], podsets: Sequence[PodSet]
) -> list[tuple[str, Mapping[str, int], tuple[Domain, ...]]]:
    """Return flavor, needs of a pod, and domains of each podset that has a place."""
    needs = {p.name: p.each for p in podsets}
    return [(next(iter(g.use.values()))[0], needs[name], g.domains)
            for name, g in given.items() if g.domains and g.use]  # fmt: skip
