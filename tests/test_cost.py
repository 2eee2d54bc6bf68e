"""Money and energy: the worked numbers of the published cost models, and the Ling identity."""

from pathlib import Path

import pytest
from factories import make_scenario

from ersatz.device_models.catalog.power import device_power
from ersatz.sim.answers.cases import load
from ersatz.sim.job.cost import (
    annuity_per_hour,
    break_even_price,
    capital_recovery_factor,
    decay_per_hour,
    implied_mfu,
    job_cost,
    run_cost,
    straight_line_per_hour,
)
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import simulate_job
from ersatz.sim.run import run_case
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import CostSpec, EnergySpec, JobSpec, Training

LING_FLOP = 6 * 28.8e9 * 1e12  # of Ling-Plus per 1e12 tokens, attention left out
SILENT = """question: What is assumed?
model: llama3-8b
cluster: {node: h100-8, nodes: 2}
training: {sequence_length: 8192, global_batch: 64, micro_batch: 1, tokens: 1 T tokens}
parallel: {tp: 8, dp: 2}
cost: {model: annuity, currency: USD, server_price: 300 k USD, interest: 8 %}
"""
D = (989e12, 27.5)  # peak FLOP/s and CNY/h of the Ling report's device D
A = (370e12, 7.0)


def test_the_ling_identity_holds_exactly() -> None:
    # cost = FLOP / (peak x MFU x 3600) x price, turned round at 6.35 M and 5.08 M CNY
    mfu_d, mfu_a = implied_mfu(LING_FLOP, *D, 6.35e6), implied_mfu(LING_FLOP, *A, 5.08e6)
    assert round(100 * mfu_d, 2) == 21.02
    assert round(100 * mfu_a, 2) == 17.88
    assert run_cost(LING_FLOP, D[0], mfu_d, D[1]) == pytest.approx(6.35e6, rel=1e-12)
    assert pytest.approx(0.20) == (6.35e6 - 5.08e6) / 6.35e6


def test_device_hours_of_the_ling_report() -> None:
    assert 6.35e6 / D[1] == pytest.approx(230_909, abs=1)
    assert 5.08e6 / A[1] == pytest.approx(725_714, abs=1)


@pytest.mark.parametrize(
    ("peak", "price", "expected"),
    [(370, 7, 18.92), (120, 4.5, 37.50), (312, 10, 32.05), (989, 27.5, 27.81), (147, 5.64, 38.37)],
)
def test_price_of_a_peak_petaflop_hour(peak: float, price: float, expected: float) -> None:
    assert price / (peak / 1000) == pytest.approx(expected, abs=0.005)


def test_break_even_price_of_device_a() -> None:
    # A at 17.88 % against D at 21.02 %: as cheap per work at 8.75 CNY/h
    price = break_even_price(27.5, 370 * 0.1788, 989 * 0.2102)
    assert price == pytest.approx(8.75, abs=0.005)


@pytest.mark.parametrize(
    ("capital", "interest", "years", "opex", "power", "sold", "expected"),
    [
        # US H100: 43,000 USD, 10 %, 1.3 kW in colocation at 150 USD/kW-month, 2 % running, 85 % sold
        (43_000, 0.10, 5, 0.02, 1.3 * 150 * 12 / 8760, 0.85, 1.953),
        (43_000, 0.10, 4, 0.02, 1.3 * 150 * 12 / 8760, 0.85, 2.252),
        # H800 at 2.8 M CNY / 8 x 1.15, 8 %, 3 years, 1.4 kW x PUE 1.3 x 0.6 CNY, 5 %, 90 %
        (2.8e6 / 8 * 1.15, 0.08, 3, 0.05, 1.4 * 1.3 * 0.6, 0.9, 23.58),
        (2.0e6 / 8 * 1.15, 0.08, 5, 0.05, 1.4 * 1.3 * 0.6, 0.9, 12.17),
        (1.5e6 / 8 * 1.15, 0.08, 3, 0.05, 0.75 * 1.3 * 0.6, 0.9, 12.63),
        (1.5e6 / 8 * 1.15, 0.08, 5, 0.05, 0.75 * 1.3 * 0.4, 0.9, 8.65),
        (1.2e6 / 8 * 1.15, 0.08, 5, 0.05, 0.9 * 1.3 * 0.6, 0.9, 7.35),
    ],
)
def test_annuities_of_the_market(
    capital: float,
    interest: float,
    years: float,
    opex: float,
    power: float,
    sold: float,
    expected: float,
) -> None:
    computed = annuity_per_hour(capital, interest, years, opex, power, sold)
    assert computed == pytest.approx(expected, rel=0.002)


def test_limits_of_the_formulae() -> None:
    assert capital_recovery_factor(0.0, 4.0) == 0.25
    assert capital_recovery_factor(1e-9, 4.0) == pytest.approx(0.25)
    assert capital_recovery_factor(0.1, 1e4) == pytest.approx(0.1)  # interest alone
    assert decay_per_hour(43_000, 0.14) == pytest.approx(1.582, abs=0.001)  # 0.14 orders a year
    assert straight_line_per_hour(8760.0 * 4, 4.0) == 1.0


def test_mixed_fleet_by_speed_and_equally() -> None:
    # 1,000 D at 21.02 % and 4,000 A at 17.88 % on Ling-Plus, per 1e12 tokens
    d, a = D[0] * implied_mfu(LING_FLOP, *D, 6.35e6), A[0] * implied_mfu(LING_FLOP, *A, 5.08e6)
    hourly = 1000 * D[1] + 4000 * A[1]
    by_speed = LING_FLOP / (1000 * d + 4000 * a) / 3600
    equally = LING_FLOP / (5000 * min(d, a)) / 3600
    assert by_speed == pytest.approx(101.6, abs=0.1)
    assert equally == pytest.approx(145.1, abs=0.1)
    assert by_speed * hourly == pytest.approx(5.64e6, rel=0.002)
    assert equally * hourly == pytest.approx(8.05e6, rel=0.002)
    assert equally / by_speed - 1 == pytest.approx(0.43, abs=0.005)
    assert d / a == pytest.approx(3.14, abs=0.01)


def test_energy_of_the_ling_report() -> None:
    # 1.4 kW a device with its share of the server, PUE 1.3: 420 MWh; 0.75 kW: 708 MWh; 0.548 kg/kWh
    for hours, kw, mwh, tonnes in ((230_909, 1.4, 420, 230), (725_714, 0.75, 708, 388)):
        energy = hours * kw * 1.3
        assert energy / 1000 == pytest.approx(mwh, abs=0.5)
        assert energy * 0.548 / 1000 == pytest.approx(tonnes, abs=0.5)


def small_job(**changes: object):  # type: ignore[no-untyped-def]
    training = Training(1000, 64, 1, "bf16", 64_000.0 * 360)
    scenario = make_scenario(training=training, job=JobSpec(replicas=1), **changes)
    return scenario, simulate_job(scenario, 10.0, model_params=1.0)


def test_energy_of_a_job_by_hand() -> None:
    # one hour: 8 devices half busy at 300 W and a host of 1 kW: 3.4 kWh, with PUE 1.5 it is 5.1 kWh
    scenario, job = small_job(energy=EnergySpec(pue=1.5, carbon_intensity=1 / 3.6e6,
                                                embodied_kg_per_device=0.0))  # fmt: skip
    energy = job_energy(scenario, job, 0.5)
    assert job.wall_s == pytest.approx(3600, rel=1e-3)
    assert energy.kwh == pytest.approx(5.1, rel=1e-3)
    assert energy.carbon_kg == pytest.approx(5.1, rel=1e-3)
    assert energy.mean_device_w == pytest.approx(300, rel=1e-3)
    assert sum(energy.parts_kwh.values()) == pytest.approx(energy.kwh)


def test_a_node_alone_pays_for_no_network_between_nodes(tmp_path: Path) -> None:
    # eight rails of leaf switches drew 6 kW beside a node of 8: over half of the energy of its job
    text = """question: One node?
model: llama3-8b
stack: megatron-core
cluster: {node: h100-8, nodes: %d}
parallel: {tp: 2}
training: {sequence_length: 4096, global_batch: 64, tokens: 1 B}
job: {spare_nodes: %d}
"""
    found = []
    for nodes, spares in ((1, 0), (1, 1), (2, 0)):
        path = tmp_path / "asked.yaml"
        path.write_text(text % (nodes, spares))
        energy = run_case(load_cases(path, [], 0)[0]).energy
        assert energy
        found.append(energy.parts_kwh["network"])
    assert found[0] == 0.0
    assert min(found[1:]) > 0.0


def test_device_power_is_linear() -> None:
    device = make_scenario().pools[0].node.device
    assert [device_power(device, x) for x in (0.0, 0.5, 1.0, 2.0)] == [100, 300, 500, 500]


def test_cost_of_a_job_by_hand() -> None:
    # 8 device-hours at 3 CNY and 5.1 kWh at 1 CNY: 29.1 CNY for 23.04 M tokens
    cost = CostSpec(rent={"": 3.0 / 3600}, energy_price=1 / 3.6e6)
    scenario, job = small_job(cost=cost, energy=EnergySpec(pue=1.5))
    result = job_cost(scenario, job, job_energy(scenario, job, 0.5))
    assert result.total == pytest.approx(8 * 3 + 5.1, rel=1e-3)
    assert result.per_trillion_tokens == pytest.approx(29.1 / 23.04e6 * 1e12, rel=1e-3)
    assert result.per_device_hour == pytest.approx(29.1 / 8, rel=1e-3)


@pytest.mark.parametrize("model", ["annuity", "depreciation"])
def test_parts_of_the_cost_sum_to_its_total(model: str) -> None:
    cost = CostSpec(model=model, server_price={"": 2.8e6}, energy_price=0.6 / 3.6e6)  # type: ignore[arg-type]
    scenario, job = small_job(cost=cost)
    result = job_cost(scenario, job, job_energy(scenario, job, 1.0))
    assert sum(result.parts.values()) == pytest.approx(result.total)
    assert result.total > 0


def test_older_machines_have_lost_value_already() -> None:
    # two years at 0.14 orders of magnitude a year leave 10^-0.28 = 52.5 % of the price to be lost
    def servers(**changes: float) -> float:
        cost = CostSpec(model="depreciation", server_price={"": 2.8e6}, **changes)  # type: ignore[arg-type]
        scenario, job = small_job(cost=cost)
        return job_cost(scenario, job, job_energy(scenario, job, 1.0)).parts["servers"]

    two_years = 2 * 31_557_600.0
    assert servers(age_s=two_years) / servers() == pytest.approx(0.525, abs=5e-4)
    # books in a straight line do not ask what machines would sell for
    assert servers(age_s=two_years, value_decay=0.0) == servers(value_decay=0.0)


def test_what_a_job_its_money_and_its_energy_take_by_default_is_said(tmp_path: Path) -> None:
    """Each default with its reason, of what counts: rent knows no interest, a step no job."""
    path = tmp_path / "a.yaml"
    path.write_text(SILENT)
    (case,) = load(path)
    said = "\n".join(case.assumptions)
    for key in ("detection 5 min", "restart 10 min", "device_repair 2 days", "storage_bandwidth 100 GB/s",
                "network_share 15 %", "opex_share 5 %", "sold_fraction 90 %", "life 4 years",
                "pue 1.3", "carbon_intensity 0.548 kg/kWh", "embodied_per_device 164 kg"):  # fmt: skip
        assert key in said, key
    assert "interest 8 %" not in said  # it is given
    assert "memory_bandwidth" not in said  # a synchronous checkpoint makes no copy
    assert "cost.energy_price is not given: of electricity none of it is counted" in said
    (rented,) = load(path, ["cost.model=rent", "cost.rent=2 USD/h", "cost.server_price=null"])
    said = "\n".join(rented.assumptions)
    assert "network_share" not in said
    assert "of electricity rent is taken to hold it" in said
    (step,) = load(path, ["training.tokens=null", "cost=null"])
    assert not any("does not say" in line for line in step.assumptions)
