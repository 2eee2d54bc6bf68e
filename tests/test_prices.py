"""Prices and supply: worked observations, straight lines between them, reach, and bad input."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ersatz.device_models.catalog.reading import list_devices, load_device, load_node
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import CURRENCIES
from ersatz.sim.errors import InputError
from ersatz.sim.job.cost import (
    HOURS_PER_YEAR,
    annuity_per_hour,
    break_even_price,
    capital_recovery_factor,
    implied_mfu,
    straight_line_per_hour,
    value_after,
)
from ersatz.sim.market.items import CONFIDENCES, KINDS, items, price_region, wider_regions
from ersatz.sim.market.observations import COLUMNS, Observation
from ersatz.sim.market.prices import Prices, Quote, load_prices
from ersatz.sim.market.supply import (
    deliverable,
    dies_per_wafer,
    load_supply,
    month_number,
    month_text,
    ramp,
)
from ersatz.sim.purchase.reading.schema import BuyFile

PRICES = load_prices()


def test_the_prices_of_the_ling_report() -> None:
    # A 7, B 4.5, C 10, D 27.5 and E 5.64 CNY an hour in March 2025
    for device, price in (
        ("ascend-910b2", 7.0),
        ("ppu-810e", 4.5),
        ("a800", 10.0),
        ("h800", 27.5),
        ("h20", 5.64),
    ):
        assert PRICES.at("rent", device, "CN", "2025-03-24", currency="CNY") == price
    # 6.35 M CNY were 875,952 USD
    assert 6.35e6 * PRICES.rate("CNY", "USD", "2025-03-24") == pytest.approx(875_952, rel=1e-4)


def test_every_currency_that_is_understood_has_a_rate_and_may_be_that_of_a_purchase() -> None:
    currency = BuyFile.model_fields["currency"].annotation
    assert set(get_args(currency)) == set(CURRENCIES) == set(PRICES.currencies())
    # what is fixed by law: 3.6725 AED and 3.75 SAR a dollar
    assert PRICES.rate("AED", "SAR", "2026-01-01") == pytest.approx(3.75 / 3.6725)


def test_the_break_even_price_follows_from_the_data() -> None:
    # 1.728e23 FLOP for 1e12 tokens; D at 6.35 M CNY against A at 5.08 M CNY
    flop, d, a = 6 * 28.8e9 * 1e12, 989e12, 370e12
    price_d = PRICES.at("rent", "h800", "CN", "2025-03-24", currency="CNY")
    price_a = PRICES.at("rent", "ascend-910b2", "CN", "2025-03-24", currency="CNY")
    mfu_d, mfu_a = implied_mfu(flop, d, price_d, 6.35e6), implied_mfu(flop, a, price_a, 5.08e6)
    assert (round(100 * mfu_d, 2), round(100 * mfu_a, 2)) == (21.02, 17.88)
    assert break_even_price(price_d, a * mfu_a, d * mfu_d) == pytest.approx(8.75, abs=0.005)
    assert mfu_a / mfu_d == pytest.approx(0.85, abs=0.001)  # A needs 85 % of D's utilisation


def test_a_price_runs_straight_between_observations() -> None:
    # H20 server: 1.4 M CNY on 2024-02-01, 1.2 M on 2024-07-15 (165 days): 1.3 M half-way, an eighth each
    half = PRICES.at("purchase", "h20", "CN", "2024-04-23", currency="CNY")  # 82 of 165 days
    assert half == pytest.approx((1.4e6 - 0.2e6 * 82 / 165) / 8)
    quote = PRICES.quote("purchase", "h20", "CN", "2025-07-15", "CNY")
    # at least 5 % either way, as the observation is of high confidence
    assert (quote.low, quote.mid, quote.high) == (0.95 * 131_250, 131_250, 150_000)
    assert (quote.basis, quote.kind, quote.held) == ("server", "channel", False)


def test_the_last_price_is_held_for_a_while_and_says_so() -> None:
    held = PRICES.quote("purchase", "h800", "CN", "2025-03-24", "CNY")
    assert (held.mid, held.held) == (350_000, True)  # 2.8 M / 8 of October 2023
    with pytest.raises(
        InputError, match=r"observed channel 2023-03-21 to 2023-10-21, and held 12 months"
    ):
        PRICES.at("purchase", "h800", "CN", "2026-03-24")


def test_cards_get_their_share_of_a_server() -> None:
    # MI300X: 12,500 USD and 15 % for the server; an eighth of a server has it already
    share = PRICES.at("server_share", "mi300x", "US", "2024-06-15")
    assert PRICES.at("purchase", "mi300x", "US", "2024-06-15") == pytest.approx(
        12_500 * (1 + share)
    )
    assert PRICES.at("purchase", "h100", "US", "2024-08-15") == pytest.approx(310_000 / 8)


def test_the_closest_series_wins() -> None:
    def at(item: str, device: str, region: str, day: str) -> float:
        return PRICES.at(item, device, region, day, currency="CNY")

    # subsidised power: domestic devices only, in the west only, from November 2025 only
    assert at("power", "ascend-910c", "CN-west", "2026-01-01") == 0.4
    assert at("power", "h20", "CN-west", "2026-01-01") == 0.5
    assert at("power", "ascend-910c", "CN-coast", "2026-01-01") == 0.7
    assert at("power", "ascend-910c", "CN-west", "2025-10-01") == 0.5
    # a province without a price asks the region around it
    assert at("power", "h20", "CN-guizhou", "2025-06-15") == 0.5
    assert at("carbon", "h20", "CN-yunnan", "2025-06-15") == 0.107
    assert at("network_share", "ascend-910b2", "CN", "2025-06-15") == 0.2
    # the price of a supernode holds its scale-up network already
    assert at("network_share", "ascend-910c", "CN", "2025-06-15") == 0.07


def test_fees_and_duties_come_from_the_rules() -> None:
    assert PRICES.at("licence_fee", "h20", "CN", "2025-09-01") == 0.15
    assert PRICES.at("licence_fee", "h20", "CN", "2025-03-01") == 0.0
    assert PRICES.at("duty", "h200", "CN", "2026-02-01") == 0.25
    assert PRICES.at("duty", "h100", "CN", "2026-02-01") == 0.0  # its memory is below the window


@pytest.mark.parametrize(
    "item", [i for i, m in items().items() if i not in ("licence_fee", "duty")]
)
def test_every_item_has_data_with_sources(item: str) -> None:
    rows = [row for series in PRICES.series for row in series if row.item == item]
    assert rows
    assert all(row.source and row.confidence in CONFIDENCES for row in rows)


def test_every_price_can_be_opened_or_is_an_assumption_in_words() -> None:
    for row in (row for series in PRICES.series for row in series):
        assert "recall" not in row.source, row  # is no source
        assert row.low <= row.mid <= row.high, row
        assert row.source.startswith("assumption: ") == (row.confidence == "assumed"), row
        if row.confidence == "assumed":
            assert row.high >= 1.35 * row.low, row  # nobody's observation: wide
        else:
            assert re.search(r"https?://[\w.-]+\.[a-z]+/\S", row.source), row


def test_an_assumption_is_used_only_where_nothing_was_observed() -> None:
    # an assumed tender beats neither a list price of low confidence nor one of high confidence
    rows = {name: _row(kind, name) for kind, name in
            (("tender", "assumed"), ("list", "low"), ("estimate", "high"))}  # fmt: skip

    def taken(*names: str) -> str:
        prices = Prices(tuple((rows[name],) for name in names), PRICES.rules)
        return prices.quote("rent", "h20", "CN", "2025-03-24", "CNY").confidence

    assert taken("assumed", "low", "high") == "high"
    assert taken("assumed", "low") == "low"
    assert taken("assumed") == "assumed"


def _row(kind: str, confidence: str) -> Observation:
    return Observation("rent", "h20", "CN", date(2025, 3, 1), 5, 6, 7, "CNY/h", "", 1, kind, "-",
                       confidence, "")  # fmt: skip


@pytest.mark.parametrize("name", list_devices())
def test_prices_of_the_catalogue_lie_within_the_series(name: str) -> None:
    # the files of devices hold single prices too; where a series covers the day, both must agree
    for price in load_device(name).prices:
        day = {4: f"{price.date}-07-01", 7: f"{price.date}-15"}.get(len(price.date), price.date)
        region = {"China": "CN"}.get(price.region, price.region)
        amount = price.amount * (3600.0 if price.kind == "rent" else 1.0)
        item = "rent" if price.kind == "rent" else "purchase"
        quotes = list(quotes_of(item, name, region, day, price.currency))
        if quotes:  # a fair price of a report is no market's: one kind must agree
            assert any(0.5 * q.low <= amount <= 1.6 * q.high for q in quotes), (price, quotes)


def quotes_of(item: str, device: str, region: str, day: str, currency: str) -> Iterator[Quote]:
    """Yield the quotes of every kind that there is for a day."""
    for kind in KINDS:
        try:
            yield PRICES.quote(item, device, region, day, currency, kind)
        except InputError:
            continue


@given(st.dates(min_value=date(2024, 2, 1), max_value=date(2025, 7, 15)),
       st.sampled_from(["low", "mid", "high"]))  # fmt: skip
def test_levels_stay_in_order_and_within_the_observations(day: date, level: str) -> None:
    wanted = ("purchase", "h20", "CN", "channel", "server")
    rows = next(series for series in PRICES.series if series[0].series == wanted)
    quote = PRICES.quote("purchase", "h20", "CN", day, "CNY")
    assert quote.low <= quote.mid <= quote.high
    values = [getattr(row, level) / row.devices for row in rows]
    # up to 15 % wider, where a single figure of medium confidence stands for a range
    assert 0.85 * min(values) - 1e-9 <= getattr(quote, level) <= 1.15 * max(values) + 1e-9


@pytest.mark.parametrize(
    ("item", "device", "region", "day", "currency", "words"),
    [
        ("price", "h20", "CN", "2025-01-01", "USD", "no such item"),
        ("purchase", "a30", "CN", "2025-01-01", "USD", "known nowhere"),
        ("purchase", "mi300x", "CN", "2025-01-01", "USD", "known in US"),
        ("purchase", "h20", "Mars", "2025-01-01", "USD", "no prices of such a region"),
        ("purchase", "h2O", "CN", "2025-01-01", "USD", "no such device, did you mean 'h20'"),
        ("purchase", "h20", "CN", "2025-01-01", "CHF", "CHF.* no exchange rate; known: USD, AED, CNY"),
        ("rent", "h20", "CN", "2020-01-01", "USD", "unknown on 2020-01-01: observed fair cost 2025-03-01"),
        ("duty", "h20", "CN", "2018-01-01", "USD", "rules are known from"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    item: str, device: str, region: str, day: str, currency: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        PRICES.at(item, device, region, day, currency=currency)


HEAD = ",".join(COLUMNS)
ROW = "purchase,ppu-810e,CN,2025-01-01,1,2,3,CNY,card,1,channel,me,low,"


def test_prices_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"{HEAD}\n{ROW}\n")
    own = load_prices(path)
    assert own.at("purchase", "ppu-810e", "CN", "2025-01-01", "high", "CNY") == pytest.approx(
        3 * 1.22
    )
    assert own.at("rent", "h800", "CN", "2025-03-24", currency="CNY") == 27.5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("purchase,", "buy,", "item: 'buy' - no such item"),
        (",CN,", ",China,", "no such region"),
        (",1,2,3,", ",3,2,1,", "expected 0 <= low <= mid <= high"),
        (",1,2,3,", ",one,2,3,", "expected a number"),
        ("2025-01-01", "2025", "expected a day"),
        (",me,", ",,", "a price needs its source"),
        (",card,", ",box,", "expected server, module or card"),
        ("item,", "article,", "lacks the columns item"),
        (",1,2,3,CNY", ",1,2,3,CHF", "expected CURRENCY, one of"),
    ],
)
def test_faulty_prices_are_named_with_their_line(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "own.csv"
    text = f"{HEAD}\n{ROW}\n"
    path.write_text(text.replace(old, new))
    assert path.read_text() != text
    with pytest.raises(InputError, match=words) as caught:
        load_prices(path).at("purchase", "ppu-810e", "CN", "2025-01-01")
    assert "own.csv" in str(caught.value) or "exchange" in words


# worked numbers of published cost models, with the closed forms of ersatz.sim.job.cost


def test_the_parts_of_an_annuity() -> None:
    # 43,000 USD at 10 % over 5 years: 1.295 USD/h; 1.3 kW at 150 USD/kW-month: 0.267; 2 % running: 0.098
    space = 1.3 * 150 * 12 / HOURS_PER_YEAR
    assert 43_000 * capital_recovery_factor(0.10, 5) / HOURS_PER_YEAR == pytest.approx(
        1.295, abs=5e-4
    )
    assert space == pytest.approx(0.267, abs=5e-4)
    running = 43_000 * 0.02 / HOURS_PER_YEAR
    assert running == pytest.approx(0.098, abs=5e-4)
    assert annuity_per_hour(43_000, 0.10, 5, 0.02, space, 1.0) == pytest.approx(1.660, abs=5e-4)
    assert annuity_per_hour(43_000, 0.10, 5, 0.02, space, 0.85) == pytest.approx(1.953, abs=5e-4)


def test_value_decays_by_a_constant_share() -> None:
    # 0.14 orders of magnitude a year: 27.6 % a year, half in 2.15 years
    assert value_after(1.0, 0.14, 1.0) == pytest.approx(1 - 0.276, abs=5e-4)
    assert value_after(1.0, 0.14, 2.15) == pytest.approx(0.5, abs=5e-4)
    assert value_after(5.0, 0.14, 0.0) == 5.0


def test_books_over_three_years_cost_twice_those_over_six() -> None:
    assert straight_line_per_hour(1e6, 3.0) == pytest.approx(2 * straight_line_per_hour(1e6, 6.0))


def test_carbon_of_chinese_data_centres() -> None:
    # 142.4 Mt over 260 TWh; a device of 0.7 kW over 5 years with PUE 1.3 emits 21.8 t, hardware 164 kg
    factor = PRICES.at("carbon", "*", "CN", "2024-06-15")
    assert factor == pytest.approx(142.4e9 / 260e9, abs=5e-4)
    use = 0.7 * 1.3 * 5 * HOURS_PER_YEAR * factor
    assert use / 1000 == pytest.approx(21.8, abs=0.05)
    assert 164 / use < 0.01


# supply


def test_dies_on_a_wafer_and_devices_of_it() -> None:
    # 665.6 mm2 on 300 mm: about 80; at 30 % 24 good ones, 12 pairs, 9 packages at 75 %
    assert dies_per_wafer(300.0, 665.6) == 80
    good = 80 * 0.30
    assert good / 2 * 0.75 == 9.0
    assert 5000 * 9 == 45_000  # 5,000 wafers a month make 45,000 devices
    for share, devices in ((0.2, 6), (0.3, 9), (0.4, 12), (0.5, 15)):
        assert 80 * share / 2 * 0.75 == pytest.approx(devices)


PRODUCTION = "ascend-910c"


def plain(**changes: str) -> tuple[str, ...]:
    """Overrides: 5,000 wafers at 30 %, no die bank, packaging and memory without limit."""
    month = '"2024-10"'
    values = {
        "wafers.series": f"[[{month}, 5000, 5000, 5000]]", "yield.series": f"[[{month}, 0.3, 0.3, 0.3]]",
        "memory_made.series": f"[[{month}, 0, 0, 0]]", "packaging.series": f"[[{month}, 1e9, 1e9, 1e9]]",
        "die_bank.mid": "0", "memory_stock.mid": "1e12", "packaging_yield.mid": "0.75", **changes,
    }  # fmt: skip
    return tuple(f"{PRODUCTION}.{key}={value}" for key, value in values.items())


def test_wafers_bind_without_a_die_bank() -> None:
    months = ramp(load_supply(plain())[PRODUCTION], "2025-03")
    assert all(m.units == pytest.approx(45_000) and m.binding == "dies" for m in months)


def test_thirteen_million_stacks_make_1_625_million_devices() -> None:
    # without domestic memory the stock of 13 M stacks is all: 13 M / 8
    changes = plain(**{"memory_stock.mid": "13e6", "die_bank.mid": "1e9"})
    months = ramp(load_supply(changes)[PRODUCTION], "2028-12")
    assert sum(m.units for m in months) == pytest.approx(1_625_000)
    assert months[0].binding == "memory"
    assert months[-1].units == 0.0


def test_stocks_are_carried_over() -> None:
    # packaging of 10,000 uses 26,667 of 120,000 dies a month; the rest waits for the next one
    packed = '[["2024-10", 1e4, 1e4, 1e4], ["2024-11", 1e9, 1e9, 1e9]]'
    changes = plain(**{"packaging.series": packed})
    first, second = ramp(load_supply(changes)[PRODUCTION], "2024-11")
    assert (first.units, first.binding) == (10_000, "packaging")
    assert first.die_stock == pytest.approx(120_000 - 10_000 * 2 / 0.75)
    assert second.units == pytest.approx(45_000 + (45_000 - 10_000))
    assert second.binding == "dies"


@given(st.sampled_from(["low", "mid", "high"]), st.floats(0.0, 1e5))
def test_nothing_is_made_of_nothing(level, demand) -> None:  # type: ignore[no-untyped-def]
    production = load_supply()[PRODUCTION]
    i = ("low", "mid", "high").index(level)
    months = ramp(production, "2028-12", level, demand)
    made = sum(m.dies_made for m in months) + production.die_bank[i]
    units = sum(m.units for m in months)
    used = units * production.dies_per_device / production.packaging_yield[i]
    assert used + months[-1].die_stock == pytest.approx(made)
    assert all(m.die_stock >= 0 and m.stack_stock >= 0 and m.units <= demand + 1e-9 for m in months)


def test_more_yield_never_makes_fewer() -> None:
    totals = []
    for share in (0.2, 0.3, 0.5):
        changes = plain(**{"yield.series": f'[["2024-10", {share}, {share}, {share}]]'})
        totals.append(sum(m.units for m in ramp(load_supply(changes)[PRODUCTION], "2026-12")))
    assert totals == sorted(totals)
    assert totals[2] == pytest.approx(2.5 * totals[0])


def test_the_ramp_brackets_what_was_reported() -> None:
    # 2026: 300,000 where memory binds (SemiAnalysis), a plan of 600,000 and up to 800,000 of 1.6 M dies
    year = {level: sum(m.units for m in ramp(load_supply()[PRODUCTION], "2026-12", level)[-12:])  # type: ignore[arg-type]
            for level in ("low", "mid", "high")}  # fmt: skip
    assert 300_000 <= year["low"] <= year["mid"] <= year["high"]
    assert year["low"] <= 600_000 <= year["high"]


def test_what_can_be_delivered_and_what_binds() -> None:
    units, binding = deliverable("ascend-910c", "CN", "2025-06")
    assert binding == "packaging"
    assert units > 0
    units, binding = deliverable("h20", "CN-west", "2025-07")
    assert binding == "deliveries of nvidia"
    assert units == pytest.approx(2.2e6 / 12, rel=1e-3)


@pytest.mark.parametrize(
    ("device", "region", "month", "words"),
    [
        ("ascend-910c", "CN", "2031-01", "is known from 2024-10 to 2028-12"),
        ("ascend-910c", "CN", "January", "expected a month like 2026-03"),
        ("h20", "CN", "2019-01", "delivery of h20 in CN"),
        ("mi300x", "US", "2025-01", "known in CN"),
    ],
)
def test_where_supply_is_unknown(device: str, region: str, month: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        deliverable(device, region, month)


def test_a_supply_what_if_must_name_something_known() -> None:
    with pytest.raises(InputError, match="no such value"):
        load_supply(("ascend-910d.yield=1",))
    with pytest.raises(InputError, match="no such value"):
        load_supply(("ascend-910c.wafer=1",))
    with pytest.raises(InputError, match=r"supply of ascend-910c: .*cannot be read"):
        load_supply(("ascend-910c.yield.series=1",))


@given(st.integers(0, 40_000))
def test_months_are_numbered_both_ways(number: int) -> None:
    assert month_number(month_text(number)) == number


def test_catalogue_servers_agree_with_the_series() -> None:
    # the node files state server prices; the series of the same day must agree with them
    node = load_node("h20-8")
    for price in node.prices:
        quote = PRICES.at("purchase", "h20", "CN", f"{price.date}-15", currency="CNY")
        assert quote * node.devices == pytest.approx(price.amount, rel=0.01)


def test_items_and_regions_are_data_with_their_sources() -> None:
    """How long an observation holds, and whose prices hold where, is written down with its confidence."""
    data = yaml.safe_load((DATA / "prices" / "market.yaml").read_text("utf-8"))
    for name, row in (*data["items"].items(), *data["regions"].items()):
        assert row["source"] in data["sources"], name
        assert row["confidence"] in CONFIDENCES, name
    assert (items()["rent"].back, items()["rent"].ahead) == (12, 24)
    assert wider_regions("CN-guizhou", "purchase") == ["CN-guizhou", "CN-west", "CN", "global"]
    assert wider_regions("IN", "purchase") == ["IN", "global", "US"]
    assert wider_regions("IN", "rent") == ["IN", "global"]
    assert [price_region(code) for code in ("KW", "AE", "PL", "FI", "CN", "BR")] == [
        "Gulf", "Gulf-AE", "EU", "EU-FI", "CN", "global",
    ]  # fmt: skip
