"""The fields and words of Kueue's objects, as far as they are read or known; quantities of Kubernetes."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

ANY: dict[str, Any] = {}  # whatever stands there
_META = {"apiVersion": ANY, "kind": ANY, "metadata": ANY, "status": ANY}
_RESOURCES = [{"name": ANY, "nominalQuota": ANY, "borrowingLimit": ANY, "lendingLimit": ANY}]
_GROUPS = [{"coveredResources": [ANY], "flavors": [{"name": ANY, "resources": _RESOURCES}]}]
FIELDS: dict[str, dict[str, Any]] = {
    "ClusterQueue": {**_META, "spec": {
        "cohort": ANY, "cohortName": ANY, "queueingStrategy": ANY, "namespaceSelector": ANY,
        "stopPolicy": ANY, "resourceGroups": _GROUPS, "admissionChecks": ANY,
        "admissionChecksStrategy": ANY, "fairSharing": {"weight": ANY}, "admissionScope": ANY,
        "preemption": {"withinClusterQueue": ANY, "reclaimWithinCohort": ANY,
                       "borrowWithinCohort": {"policy": ANY, "maxPriorityThreshold": ANY}},
        "flavorFungibility": {"whenCanBorrow": ANY, "whenCanPreempt": ANY, "preference": ANY}}},
    "Cohort": {**_META, "spec": {
        "parent": ANY, "parentName": ANY, "resourceGroups": _GROUPS, "fairSharing": {"weight": ANY}}},
    "ResourceFlavor": {**_META, "spec": {
        "nodeLabels": ANY, "nodeTaints": ANY, "tolerations": ANY, "topologyName": ANY}},
    "Topology": {**_META, "spec": {"levels": [{"nodeLabel": ANY}]}},
    "LocalQueue": {**_META, "spec": {"clusterQueue": ANY, "stopPolicy": ANY, "fairSharing": ANY}},
    "WorkloadPriorityClass": {**_META, "value": ANY, "description": ANY},
    "Configuration": {"apiVersion": ANY, "kind": ANY, "metadata": ANY, "fairSharing": ANY,
                      "waitForPodsReady": ANY, "namespace": ANY, "integrations": ANY,
                      "manageJobsWithoutQueueName": ANY, "managedJobsNamespaceSelector": ANY,
                      "controller": ANY, "health": ANY, "metrics": ANY, "webhook": ANY,
                      "leaderElection": ANY, "internalCertManagement": ANY, "clientConnection": ANY,
                      "queueVisibility": ANY, "multiKueue": ANY, "resources": ANY,
                      "featureGates": ANY, "admissionFairSharing": ANY, "tls": ANY},
}  # fmt: skip
IGNORED_KINDS = {
    "AdmissionCheck": "it counts as passed", "Workload": "jobs come from the fleet's file",
    "Job": "jobs come from the fleet's file", "JobSet": "jobs come from the fleet's file",
    "PyTorchJob": "jobs come from the fleet's file", "MPIJob": "jobs come from the fleet's file",
    "RayJob": "jobs come from the fleet's file", "Namespace": "jobs here have no namespaces",
    "PriorityClass": "jobs bring their priority as a number", "Node": "nodes come from the fleet's file",
}  # fmt: skip
SEARCH = {"MayStopSearch": "stop", "TryNextFlavor": "next", "Borrow": "stop", "Preempt": "stop"}
WITHIN = {"Never": "never", "LowerPriority": "lower", "LowerOrNewerEqualPriority": "lower-or-newer"}
WORDS = {
    "order": {"StrictFIFO": "strict", "BestEffortFIFO": "best-effort"},
    "reclaim": {"Never": "never", "LowerPriority": "lower", "Any": "any"},
    "borrow": {"Never": "never", "LowerPriority": "lower"},
    "prefer": {"BorrowingOverPreemption": "borrowing", "PreemptionOverBorrowing": "preemption"},
    "stop": {"None": "", "Hold": "hold", "HoldAndDrain": "drain"},
}
STRATEGIES = {"LessThanOrEqualToFinalShare": "final", "LessThanInitialShare": "initial"}
_POWERS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SCALES = {**{name: Fraction(1000) ** p for name, p in _POWERS.items()},
           **{f"{name}i": Fraction(1024) ** p for p, name in enumerate("KMGTPE", 1)}}  # fmt: skip
_QUANTITY = re.compile(
    r"\+?([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE]([+-]?[0-9]{1,2})|([a-zA-Z]{0,2}))$"
)


def quantity(value: object) -> Fraction | None:
    """Return a quantity as Kubernetes writes it (8, '500m', '96Ti', '1e3'); None if it is none."""
    match = _QUANTITY.match(str(value)) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        return None
    number, exponent, suffix = match.groups()
    if suffix and suffix not in _SCALES:
        return None
    scale = Fraction(10) ** int(exponent) if exponent else _SCALES[suffix or ""]
    return Fraction(Decimal(number)) * scale
