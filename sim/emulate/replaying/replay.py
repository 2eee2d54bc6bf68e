"""A recorded step on other devices and networks: `ersatz run replay.yaml`, as for any scenario.

    emulated: ranks.json              what `ersatz emulate --out` recorded, beside the file
    stack: torch-eager
    cluster: {node: h800-8, nodes: 8}
    training: {tokens_per_step: 65536, tokens: 1 T tokens, parameters: 124439808}
    job, cost, energy, cases          as in a scenario

Kernels are timed anew for the device, collectives for the network, attention for the stack's kernels; ranks
then wait for each other anew (`together`). What the script would do otherwise on other devices (another
batch that fits, other kernels that a library chooses) is not known to a recording.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import in_words
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.emulate.network import Network
from ersatz.sim.emulate.records import ReplayResult
from ersatz.sim.emulate.replaying.believed import believed
from ersatz.sim.emulate.replaying.outcome import Setting, outcome
from ersatz.sim.emulate.replaying.together import together
from ersatz.sim.emulate.resting import rests_on
from ersatz.sim.emulate.timing import kernel_timer
from ersatz.sim.emulate.trace import Task, Trace
from ersatz.sim.emulate.virtual_device import host_defaults, node_of, usable_memory
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.job.cost import job_cost
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import simulate_job
from ersatz.sim.scenario.case_file import Case, resolved_cases
from ersatz.sim.scenario.resolving.job import resolve_job
from ersatz.sim.scenario.resolving.machines import resolve_pools
from ersatz.sim.scenario.resolving.money import resolve_cost
from ersatz.sim.scenario.resolving.silent import silent_lines
from ersatz.sim.scenario.scenario import EnergySpec, Parallel, Pool, Scenario, Training
from ersatz.sim.scenario.sections.job import CostSection, EnergySection, JobSection
from ersatz.sim.scenario.sections.machines import ClusterSection
from ersatz.sim.scenario.sections.quantities import Section, Seed, Tokens
from ersatz.sim.workload.model import Model

MOST_BYTES = 1 << 30  # of a recording
FORMAT = 1
WAITS = ("launch", "bubble")  # during which a device does nothing


class ReplayTraining(Section):
    """How much a step does, which a recording of operators does not tell, and how long the job goes on."""

    tokens_per_step: int | None = Field(
        None, gt=0, le=10**15, description="tokens of one step, of all ranks"
    )
    tokens: Tokens | None = Field(None, description="of the whole job")
    parameters: int = Field(0, ge=0, le=10**18, description="weights that a checkpoint holds")


class ReplayFile(Section):
    """A file that replays what was emulated."""

    question: str = Field(description="what the file answers")
    emulated: str = Field(description="recording of `ersatz emulate --out`, beside the file")
    seed: Seed = Field(0, description="of all random draws")
    stack: str | None = Field(None, description="software stack, or path of a stack file")
    cluster: ClusterSection = Field(description="the machines")
    training: ReplayTraining = Field(ReplayTraining(), description="what a step does")
    job: JobSection = Field(JobSection(), description="as in a scenario")
    cost: CostSection | None = Field(None, description="as in a scenario")
    energy: EnergySection = Field(EnergySection(), description="as in a scenario")
    cases: dict[str, dict[str, Any]] = Field({}, description="variants, as in a scenario")


@dataclass(frozen=True, slots=True)
class Recording:
    """What a script did, on any rank that ran."""

    script: str
    world: int
    traces: tuple[Trace, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """One case, ready to be timed."""

    scenario: Scenario  # its model is not asked for: the recording stands for it
    recording: Recording
    parameters: int


def is_replay(path: Path) -> bool:
    """Tell whether a file replays a recording."""
    if path.suffix not in (".yaml", ".yml"):
        return False
    data = read_yaml(path).data
    return isinstance(data, dict) and "emulated" in data


def load_replays(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Replay, ...]:
    """Return the cases of a file; raises `InputError` with every fault."""
    known: dict[str, Recording] = {}

    def resolve(case: Case, spec: ReplayFile) -> Replay | None:
        return _resolve(case, spec, path.parent, known)

    return resolved_cases(path, ReplayFile, resolve, overrides, seed)


def _resolve(
    case: Case, spec: ReplayFile, folder: Path, known: dict[str, Recording]
) -> Replay | None:
    said: list[str] = []
    try:
        if spec.emulated not in known:
            known[spec.emulated] = read_recording(folder / spec.emulated)
        recording = known[spec.emulated]
    except InputError as error:
        case.blame(("emulated",), spec.emulated, error.problems[0].expected)
        return None
    pools = resolve_pools(spec.cluster, spec.stack, folder, case.blame, said)
    if not pools or case.problems:
        return None
    _check(case, spec, recording, pools)
    job = resolve_job(spec.job, pools, bool(spec.training.tokens), case.blame, said)
    cost = resolve_cost(spec.cost, pools, case.blame, said) if spec.cost else None
    if case.problems:
        return None
    energy = EnergySpec(spec.energy.pue, spec.energy.carbon_intensity,
                        spec.energy.embodied_per_device, spec.energy.device_life)  # fmt: skip
    said += silent_lines(spec.job, spec.cost, spec.energy, bool(spec.training.tokens))
    training = Training(
        spec.training.tokens_per_step or 1, 1, 1, "bf16", spec.training.tokens or 0.0
    )
    scenario = Scenario(
        case.name, spec.question, spec.seed, cast("Model", None), tuple(pools), training,
        Parallel(dp=recording.world), job=job, cost=cost, energy=energy, assumptions=tuple(said),
    )  # fmt: skip
    return Replay(scenario, recording, spec.training.parameters)


def _check(case: Case, spec: ReplayFile, recording: Recording, pools: Sequence[Pool]) -> None:
    """Blame what cannot hold the ranks, or says too little for a job."""
    if len(pools) > 1:
        case.blame(
            ("cluster", "pools"), None, "expected one kind of node: ranks of a script are alike"
        )
    pool = pools[0]
    if pool.devices < recording.world or not pool.node.device.trains:
        nodes = math.ceil(recording.world / pool.node.devices)
        case.blame(("cluster", "nodes"), str(pool.nodes), pool.node.device.why_not or
                   f"expected at least {nodes}: {recording.world} ranks were recorded")  # fmt: skip
    if spec.training.tokens and not (spec.training.tokens_per_step and spec.training.parameters):
        case.blame(("training", "tokens"), None, "expected tokens_per_step and parameters with it")
    if spec.job.conditions:
        case.blame(("job", "conditions"), None, "a recording knows no links: expected none")


def read_recording(path: Path) -> Recording:
    """Read what `recording_text` wrote; raises `InputError` for what is no recording, or a broken one."""
    text = read_text_file(path, "a recording of ersatz emulate", MOST_BYTES)
    try:
        data = json.loads(text)
        if data["ersatz_recording"] != FORMAT:
            raise ValueError(f"format {data['ersatz_recording']!r}")
        script, world = str(data["script"]), data["world"]
        return Recording(script, world, believed(data["ranks"], world))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError,
            OverflowError) as error:  # fmt: skip
        words = f"is no recording of ersatz emulate: {in_words(error)}"
        raise InputError([Problem(str(path), 0, 0, "", "", words)]) from None


def run_replay(replay: Replay, timer: str = "calibrated", calibration: str = "") -> ReplayResult:
    """Time a recording on the devices and the network of a case; its job, energy and cost follow."""
    scenario, recording = replay.scenario, replay.recording
    pool = scenario.pools[0]
    node = node_of(pool)
    traces = timed_anew(recording, node, pool.stack, timer, calibration)
    capacity = usable_memory(node, pool.stack)
    traces = [replace(t, memory={**t.memory, "capacity": capacity}) for t in traces]
    setting = Setting(recording.script, node, pool.nodes, recording.world, timer)
    known = rests_on(timer, calibration, node.device, traces, one_by_one=False)
    step = outcome(setting, traces, [*known, *_notes(replay, step_of=traces)])
    if not scenario.training.tokens:
        return ReplayResult(scenario.name, step, None, None, None)
    job = simulate_job(
        scenario, step.step_s, degraded_step_s=lambda lost: math.inf, model_params=replay.parameters
    )
    busy = 1.0 - math.fsum(step.breakdown.get(cause, 0.0) for cause in WAITS) / step.step_s
    energy = job_energy(scenario, job, busy)
    cost = job_cost(scenario, job, energy) if scenario.cost else None
    return ReplayResult(scenario.name, step, job, energy, cost)


def _notes(replay: Replay, step_of: Sequence[Trace]) -> list[str]:
    scenario, world = replay.scenario, replay.recording.world
    idle = scenario.devices - world
    found = [f"{idle:,} of {scenario.devices:,} devices have no rank"] if idle else []
    if any(t.memory["ooms"] for t in step_of):
        found.append("the script ran out of memory while it was recorded and went on with less")
    return [*found, *scenario.assumptions]


def timed_anew(
    recording: Recording, node: Node, stack: Stack, timer: str = "calibrated", calibration: str = ""
) -> list[Trace]:
    """Return the traces with every kernel, copy and collective timed on another node."""
    kernels = kernel_timer(timer, calibration, node.device)
    network = Network(node, stack, recording.world)
    host = host_defaults()

    def seconds(task: Task) -> float:
        if task.name == "recv" and task.tag:
            return 0.0  # its sender's stream carries it
        if task.kernel is not None:
            kernel = task.kernel
            if kernel.category == "attention":
                kernel = replace(
                    kernel, versions=words_of(stack.attention_kernel),
                    slowdown=1.0 / stack.attention_factor, portable=stack.portable_attention,
                )  # fmt: skip
            return kernels(node.device, kernel)
        if task.ranks is not None:
            return network.seconds(task.collective, task.nbytes, task.ranks)
        return task.nbytes / host.copy_bandwidth

    return together(recording.traces, stack.overlap_contention, seconds)


def recording_text(script: str, world: int, traces: Sequence[Trace]) -> str:
    """Return a recording as text: whole steps of every rank that ran."""
    from dataclasses import asdict

    data = {"ersatz_recording": FORMAT, "script": script, "world": world,
            "ranks": [asdict(t) for t in traces]}  # fmt: skip
    return json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"


def replay_text(
    script: str, node: str, nodes: int, stack: str, parameters: float, tokens_per_step: int = 0,
    recording: str = "ranks.json",
) -> str:  # fmt: skip
    """Return the file that replays a recording where it was made, to be changed."""
    import yaml

    training = {"parameters": int(parameters)}
    if tokens_per_step:
        training["tokens_per_step"] = tokens_per_step
    data = {
        "question": f"How long does a step of {script} take on other devices?",
        "emulated": recording, "stack": stack, "cluster": {"node": node, "nodes": nodes},
        "training": training,
    }  # fmt: skip
    head = (
        "# A recorded step: change node, nodes, network, stack; add job and cost.\n"
        "# A job needs training.tokens_per_step and tokens; parameters are what a checkpoint holds.\n"
    )
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
