"""From a published figure to the step time that it means, and back.

Throughput follows from the batch; TFLOPS and MFU by the definition that the row states: with the
causal half or the full square of attention, with recomputation counted or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.validation.reading.rules import Filling, Refused, rules
from ersatz.sim.validation.reading.words import says

# Words by which a note counts what is computed again, or says that it does not.
RECOMPUTED = (
    r"(?<![a-z])hfu(?![a-z])|\b8 ?[*·]? ?n|hardware flop|(incl|with\b|count|plus)\w*[^;,|]{0,30}re-?comput"
    r"|re-?comput\w*[^;,|]{0,20}(incl|count)"
)
MODEL_ONLY = r"\bmfu\b|mfu_|model[_ -]|\b6n\b|palm"
SECONDS = (
    (r"^(ms|milli)", 1e-3),
    (r"^(us|µs|micro)", 1e-6),
    (r"^min", 60.0),
    (r"^(h\b|hour)", 3600.0),
    (r"^(d\b|day)", 86400.0),
    (r"^(s\b|sec)", 1.0),
)
THOUSANDS = (
    (r"^(k|thousand|千)", 1e3),
    (r"^(m|million)(?!in|s\b|ill?i-?s)", 1e6),
    (r"^(g|b|billion)(?=[ \w]*(tok|flop))", 1e9),
    (r"^(t|trillion)(?=[ \w]*tok)", 1e12),
)
PER = (
    (r"/ ?ms\b|per ms\b", 1e-3),
    (r"/ ?(s|sec|second)\b|per second|/s/|/p/s|tok\w*ps|tps|tgs", 1.0),
    (r"/ ?min|per minute", 60.0),
    (r"/ ?(h|hr|hour)\b|per hour", 3600.0),
    (r"/ ?(d|day)\b|per day", 86400.0),
    (r"/ ?(w|wk|week)\b|per week", 604800.0),
)
_STEPS = r"(\d[\d,]*) ?(k?) ?(?:it\b|iter|(?:train\w* |global )?steps?|updates?)"
MANY_STEPS = re.compile(rf"(?:/|\bper|\bfor|total of|sum of|all|together) ?{_STEPS}")
SOME_STEPS = re.compile(rf"(?<![\d,]){_STEPS}")
MEAN = re.compile(r"mean|median|averag|avg|typical|after|first|warm|skip|from|steps? \d")
# A device by its name, and the words of a package where dies are counted or the other way round.
NAMED_DEVICE = re.compile(
    r"(?:/|\bper) ?(?:an? )?(?:nvidia |amd )?(?:(?:[abhlv]|g[bh])\d{2,3}\w*|mi\d{3}\w*|tpu\w*"
    r"|gaudi\w*|trainium\w*"
    r"|ascend\w*|910\w*)",
    re.I,
)
OF_DIE = re.compile(r"\b(?:gcds?|dies?|xcds?|half)\b", re.I)
OF_PACKAGE = re.compile(
    r"\b(?:cards?|packages?|modules?|oams?|sockets?|mi250x?|910c|boards?)\b(?! ?\(?gcd)", re.I
)
DIE = re.compile(r"-(?:gcd|die)$")
GROUPED = re.compile(
    r"(?:/|\bper)[ -]?(?:(?:node|server|host|rack|replica|pod|superchip|group|stage|pipeline|rail"
    r"|board|blade|tray|instance|[dtpce]p"
    r"|vm)s?\b|\d+[ -]?(?:gpu|npu|device|card|chip|die)s?\b"
    r"|(?:dp|tp|pp|cp|ep|data|tensor|pipeline|model|expert)\w*[ -](?:\w+[ -])?(?:rank|group"
    r"|replica|stage|slice)s?\b"
    r"|(?:gpu|npu|device|card|chip|die)[ -]?(?:pair|group|quad)s?\b|pair\b)"
)
# What a rate counts; a unit that names another thing than its metric contradicts it.
THINGS = {"tokens": r"tok|\btgs\b|\btps\b|words?\b", "samples": r"sampl|seq|sentence|exampl|record|doc|image",
          "steps": r"\bit\b|\biter|\bsteps?\b|updates?\b|batch"}  # fmt: skip
EACH = re.compile(
    r"/ ?(device|gpu|npu|card|chip|accelerator|die|gcd|p|卡)s?\b"
    r"|per[ -](device|gpu|npu|card|chip|accelerator|die|gcd)|tgs\b",
    re.I,
)
SLOW = 100.0  # times the time at peak: less than one hundredth of the peak
WHOLE = re.compile(
    r"whole|globally|\bglobal\b(?! (?:step|batch|iter))|total|aggregate|cluster|system|\ball (devices|gpus)",
    re.I,
)
FLOPS = (
    (r"\be(xa)?flop", 1e18),
    (r"\bp(eta)?flop", 1e15),
    (r"\bt(era)?flop", 1e12),
    (r"\bg(iga)?flop", 1e9),
)
PEAK = re.compile(
    r"peak\w*[^0-9;,|]{0,15}(?<![A-Za-z\d.])(\d+(?:\.\d+)?)(?![\d.]| ?/)"
    r"|(?:% of |(?<![\w.,]))(\d[\d,]*(?:\.\d+)?) ?TFLOP\S*(?= [\w ]*peak)"
    r"|(?:% of|\bof|\bvs\.?|\bw\.?r\.?t\.?|against|relative to|over) (?:(?:an?|the|achievable"
    r"|measured|theoretical) )*"
    r"(\d[\d,]*(?:\.\d+)?) ?TFLOP",
    re.I,
)
UNLIKE_PEAK = 0.1  # of a peak that is stated from each of the device's
SPARSE = r"(?<!attention )(?<!block )spars(?:e|ity)"
PEAK_NAMED = re.compile(
    r"\b(bf16|fp16|fp8|mxfp8|fp4|nvfp4|mxfp4)[ -]?(?:dense |tensor[- ]?core |sparse |theoretical )*peak"
    r"|\bpeak (?:of |in |for )?(bf16|fp16|fp8|mxfp8|fp4|nvfp4|mxfp4)\b"
)


def measured_step_seconds(fill: Filling, scenario: Scenario) -> float | None:
    """Return the step time in seconds that a row's metric means, or None for an unknown metric.

    Raises `Refused` where the unit says another thing than the metric's name; a unit that is not
    understood is an assumption.
    """
    run = fill.run
    value = run.number("metric_value")
    if not value:
        return None
    batch = scenario.training.global_batch
    tokens = batch * scenario.training.sequence_length
    name, unit, devices = run.text("metric_name"), run.text("metric_unit").lower(), scenario.devices
    if GROUPED.search(unit):
        raise Refused(f"metric_unit {unit!r} is of a node: expected a device's or the whole job's")
    _same_die(scenario, unit)
    if name == "step_time_s":
        if re.search(
            r"(it|iter\w*|steps?) ?(/|per) ?s|micro[- ]?batch|micro(?!s)|sample|sequence|token|epoch"
            r"|accum\w*|\brounds?\b|\blayers?\b|\bhz\b",
            unit,
        ):
            raise Refused(f"metric_name {name!r} and metric_unit {unit!r} do not say the same")
        if EACH.search(unit):
            fill.assumptions.append(
                f"metric_unit {unit!r}: taken as the time of a step of all devices"
            )
        return value * _factor(fill, unit, SECONDS, 1.0) / _steps(fill, unit)
    _same_thing(name, unit)
    if name in ("tokens_per_s_per_device", "tokens_per_s"):
        rate = value * _rate(fill, unit) * (devices if _each(name, unit) else 1)
        return tokens / rate
    if name in ("samples_per_s", "finetune_throughput"):
        rate = value * _rate(fill, unit) * (devices if _each(name, unit) else 1)
        return batch / rate
    if ("tflops" in name and "%" in unit) or (
        name.startswith("mfu") and re.search(r"^[pt]?flop", unit)
    ):
        raise Refused(f"metric_name {name!r} and metric_unit {unit!r} do not say the same")
    if "tflops" in name:
        if says(SPARSE, f"{run.text('mfu_definition_note')} ; {unit}"):
            fill.assumptions.append(
                "the rate is said to be sparse: taken as of the operations that are done"
            )
        whole = devices if _each(name, unit, usual=True) else 1
        each = _factor(fill, unit, FLOPS, 1e12)
        return metric_flop(fill, scenario) / (value * each * whole)
    if name in ("mfu_percent", "hfu_percent", "percent_of_peak"):
        flop = metric_flop(fill, scenario)
        return flop / (_share(value, unit) * _peak(fill, scenario) * devices)
    return None


def _steps(fill: Filling, unit: str) -> float:
    """Return of how many steps a time is; left open where it may be their mean."""
    said, some = MANY_STEPS.search(unit), SOME_STEPS.search(unit)
    found = said or some
    if not found or (MEAN.search(unit) and not said):
        return 1.0
    steps = float(found[1].replace(",", "")) * (1000 if found[2] else 1) or 1.0
    if said and not MEAN.search(unit):
        return steps
    words = f"metric_unit {unit!r}: the time of {{}} steps (of all, or their mean, is not stated)"
    return float(fill.note("steps_timed", 1.0, words, [steps]))


def _same_die(scenario: Scenario, unit: str) -> None:
    """Raise `Refused` where a unit is of a die and the row counts cards of several, or the other way."""
    name = scenario.pools[0].node.device.name
    several = name in {rule["device"] for rule in rules("dies")}
    if several and OF_DIE.search(unit):
        raise Refused(f"metric_unit {unit!r} is of a die where the row counts {name}")
    if DIE.search(name) and OF_PACKAGE.search(unit) and not OF_DIE.search(unit):
        raise Refused(f"metric_unit {unit!r} is of a card where the row counts dies, {name}")


def _same_thing(name: str, unit: str) -> None:
    """Raise `Refused` where a rate's unit counts another thing than its metric's name does."""
    counted = "tokens" if "tokens" in name else "samples" if "samples" in name else ""
    said = {thing for thing, pattern in THINGS.items() if re.search(pattern, unit)}
    if counted and said and counted not in said:
        raise Refused(f"metric_name {name!r} and metric_unit {unit!r} do not say the same")


def least_step_seconds(reading_open: Mapping[str, Sequence[object]], scenario: Scenario) -> float:
    """Return the seconds that a step's products take at the peak of the devices, the causal half alone.

    A measured step that is shorter is none: a rate of one device, say, that was written as that of all.
    The format counts that the row states, or the fastest of those that it leaves open.
    """
    training, device = scenario.training, scenario.pools[0].node.device
    formats = {training.precision, *reading_open.get("precision", ())}
    peak = max(device.matrix_peak.get(str(name), 0.0) for name in formats)
    per_token = scenario.model.flop_per_token(training.sequence_length, causal=True, rule="6n")
    flop = per_token * training.global_batch * training.sequence_length
    return flop / (peak * scenario.devices) if peak else 0.0


def note_slow(fill: Filling, scenario: Scenario, measured: float) -> None:
    """Note a step so slow that another unit is as likely."""
    least = least_step_seconds(fill.open, scenario)
    if least and measured > SLOW * least:
        words = f"its step of {measured:.3g} s is {measured / least:.0f} times what its products take at the"
        fill.assumptions.append(f"{words} devices' peak: is its unit right?")


def _factor(fill: Filling, unit: str, factors: Sequence[tuple[str, float]], usual: float) -> float:
    """Return what a unit is worth; one that is not understood is what the metric's name says."""
    for pattern, factor in factors:
        if re.search(pattern, unit):
            return factor
    if unit:
        name = fill.run.text("metric_name")
        fill.assumptions.append(f"metric_unit {unit!r} is not understood: that of {name} is taken")
    return usual


def _rate(fill: Filling, unit: str) -> float:
    """Return by what a rate is multiplied to be one per second: 1000 of "ktokens/s"."""
    thousands = next((f for pattern, f in THOUSANDS if re.search(pattern, unit)), 1.0)
    return thousands / _factor(fill, unit, PER, 1.0)


def _each(name: str, unit: str, *, usual: bool = False) -> bool:
    """Tell whether a rate is one device's; raises `Refused` where name and unit do not agree."""
    stated = "_per_device" in name
    each = EACH.search(unit) is not None or NAMED_DEVICE.search(unit) is not None
    whole = WHOLE.search(unit) is not None
    if (each and whole) or (stated and whole):
        raise Refused(f"metric_name {name!r} and metric_unit {unit!r} do not say the same")
    if "tokens" in name and each and not stated and name == "tokens_per_s":
        raise Refused(f"metric_name {name!r} and metric_unit {unit!r} do not say the same")
    return each or stated or (usual and not whole)


def _share(value: float, unit: str) -> float:
    """Return a utilisation as a share of 1; raises `Refused` for what is none."""
    whole = re.search(r"fraction|ratio|share", unit) or (not unit and value <= 1)
    share = value if whole else value / 100
    if share > 1:
        raise Refused(f"a utilisation of {share:.0%} is none")
    return share


def _peak(fill: Filling, scenario: Scenario) -> float:
    """Return the peak in FLOP/s that a utilisation is a share of: as stated, or that of 16 bits."""
    run, device = fill.run, scenario.pools[0].node.device
    sixteen = sixteen_bit_peak(device)
    said = PEAK.search(f"{run.text('mfu_definition_note')} | {run.text('metric_unit')}")
    if said:
        stated = float(next(n for n in said.groups() if n).replace(",", "")) * 1e12
        peaks = [times * peak for peak in device.matrix_peak.values() for times in (1, 2)]
        if not any(abs(stated / peak - 1) < UNLIKE_PEAK for peak in peaks):
            words = f"the utilisation is a share of {stated / 1e12:g} TFLOPS, as stated, which is no peak"
            fill.assumptions.append(f"{words} of {device.title}")
        return stated
    named = PEAK_NAMED.search(
        f"{run.text('mfu_definition_note')} | {run.text('metric_unit')}".lower()
    )
    sparse = says(SPARSE, f"{run.text('mfu_definition_note')} ; {run.text('metric_unit')}")
    twice = 2.0 if sparse else 1.0
    if sparse:
        fill.assumptions.append(
            "the utilisation is a share of a sparse peak: of twice the dense one"
        )
    if named and device.supports(_format(named)):
        return device.matrix_peak[_format(named)] * twice
    own = device.matrix_peak.get(scenario.training.precision, sixteen)
    if own == sixteen:
        return sixteen * twice
    words = "of which peak the utilisation is a share is not stated: of {}"
    taken = fill.note("peak", "16 bits", words, [scenario.training.precision])
    return twice * (sixteen if taken == "16 bits" else own)


def _format(named: re.Match[str]) -> str:
    return re.sub("nv|mx", "", next(name for name in named.groups() if name))


def metric_flop(fill: Filling, scenario: Scenario) -> float:
    """Return the FLOPs of a step by the row's own definition.

    Where it does not say how it counts attention, the full square is taken, as most publications do;
    the causal half is left open.
    """
    run = fill.run
    note = " ; ".join(map(run.text, ("mfu_definition_note", "metric_unit", "metric_name"))).lower()
    training, model = scenario.training, scenario.model
    counted = next((rule["attention"] for rule in rules("attention_counted")
                    if re.search(rule["pattern"], note)), "unstated")  # fmt: skip
    if counted == "unstated":
        words = "how the metric counts attention is not stated: the {} is taken"
        counted = fill.note("attention_counted", "full square", words, ["causal half"])
    causal = counted in ("causal", "causal half")
    rule: Literal["6n", "6n+attention"] = "6n" if counted == "none" else "6n+attention"
    per_token = model.flop_per_token(training.sequence_length, causal=causal, rule=rule)
    if scenario.parallel.recompute == "selective" and says(RECOMPUTED, note):
        words = "the metric counts what is computed again, which of a selective recomputation is not counted"
        fill.assumptions.append(words)
    if scenario.parallel.recompute == "full" and _counts_recompute(fill, note):
        per_token *= 4 / 3
    return per_token * training.global_batch * training.sequence_length


def _counts_recompute(fill: Filling, note: str) -> bool:
    """Tell whether a row's operations count those that are computed again.

    Left open where it does not say.
    """
    if "_hw" in note:
        return True
    said = says(RECOMPUTED, note)
    if said is not None:
        return said
    framework = fill.run.text("framework")
    if any(re.search(rule["pattern"], framework, re.I) for rule in rules("counts_recompute")):
        return True
    if re.search(MODEL_ONLY, note):
        return False
    words = "whether the metric counts recomputation is not stated: {}"
    return bool(fill.note("recompute_counted", "no", words, ["yes"]) == "yes")
