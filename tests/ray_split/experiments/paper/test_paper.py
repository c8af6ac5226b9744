"""The paper's tables predicted: what is calibrated from which numbers, and how far the prediction is off."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ray_split.config.devices import LINKS, Device, Link
from ray_split.costs.position_costs import PositionCosts
from ray_split.costs.workload import Line, Weights, Work
from ray_split.experiments.paper import main as paper
from ray_split.experiments.paper import predict, published, tables, text
from ray_split.experiments.paper.published import FITTED, NETWORKS, RULES, Times
from ray_split.experiments.paper.tables import Assumed, System
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def resnet50() -> PositionCosts:
    return predict.scan_network(NETWORKS[FITTED])


@pytest.fixture(scope="module")
def whole() -> System:
    return paper.system_of(paper.Settings())


def works(scan: PositionCosts) -> tuple[Any, Any]:
    return predict.work_of(scan, "relu", "avgpool"), predict.work_of(scan, "relu", None)


def test_the_constant_predictor_is_off_by_8_percent_and_24_at_worst() -> None:
    rows = [
        {"network": name, "column": column, "paper": told}
        for name, network in NETWORKS.items()
        for column, told in network.paper._asdict().items()
    ]
    found = tables.constant(rows)
    assert (round(found.median, 4), round(found.worst, 4)) == (0.0808, 0.2435)


def test_an_image_takes_what_the_layers_and_messages_of_its_network_take(resnet50: PositionCosts) -> None:
    phone, server = Device("phone", 2.0, 1e6, ""), Device("server", 500.0, 1e6, "")
    link = Link("link", 80.0, 160.0, 30.0, 0.0, 0.0, "")
    double, single = works(resnet50)
    first = 2 * 64 * 3 * 7 * 7 * 112 * 112  # of the first convolution, forward; none of the image's gradient
    last = 2 * 2048 * 1000
    phone_flops, text = (2 * first, 3 * last), 19.75 * 64 * 112 * 112
    rest = resnet50.total_flops - sum(phone_flops)

    found = predict.seconds(double, phone, link, server)
    assert found.phone == pytest.approx(sum(phone_flops) / 2e9)
    assert found.server == pytest.approx(rest / 500e9)
    both = text + 19.75 * 2048
    assert found.communication == pytest.approx(both * 8 / 80e6 + both * 8 / 160e6 + 4 * 0.03)

    found = predict.seconds(single, phone, link, server)
    assert found.phone == pytest.approx(phone_flops[0] / 2e9)
    assert found.server == pytest.approx((rest + phone_flops[1]) / 500e9)
    assert found.communication == pytest.approx(text * 8 / 80e6 + text * 8 / 160e6 + 2 * 0.03)


def test_calibrated_it_gives_resnet50s_row_again(resnet50: PositionCosts) -> None:
    system, row = System({FITTED: resnet50}, Assumed()), NETWORKS[FITTED].paper
    for split, overall, communication in (
        ("double", row.overall_double, row.communication_double),
        ("single", row.overall_single, row.communication_single),
    ):
        found = system.both(FITTED, split)
        assert found[1] == pytest.approx(communication, abs=1e-6)
        assert found[0] == pytest.approx(overall, rel=0.02)  # one number for both overalls
    assert predict.alone(system.work(FITTED, "double"), system.found) == pytest.approx(row.alone)


def test_no_other_row_enters_the_calibration(resnet50: PositionCosts, monkeypatch: pytest.MonkeyPatch) -> None:
    before = System({FITTED: resnet50}, Assumed()).found
    for name, network in NETWORKS.items():
        if name != FITTED:
            monkeypatch.setitem(NETWORKS, name, network._replace(paper=Times(9.0, 8.0, 7.0, 6.0, 99.0)))
    assert System({FITTED: resnet50}, Assumed()).found == before
    monkeypatch.setitem(NETWORKS, FITTED, NETWORKS[FITTED]._replace(paper=Times(9.0, 8.0, 7.0, 6.0, 99.0)))
    assert System({FITTED: resnet50}, Assumed()).found != before


def test_without_text_overall_is_what_is_computed_and_sent(resnet50: PositionCosts) -> None:
    system = System({FITTED: resnet50}, Assumed(text=False))
    overall, communication = system.both(FITTED, "double")
    found = system.found
    step = predict.seconds(system.work(FITTED, "double"), found.phone, found.link, found.server)
    assert found.text == 0
    assert (overall, communication) == (pytest.approx(step.overall), pytest.approx(step.communication))


def test_a_server_further_away_is_later_by_what_its_profile_takes_more() -> None:
    link, near = Link("link", 300.0, 300.0, 380.0, 0.0, 0.0, ""), LINKS["same_network"]
    assert tables.further(link, near, near)[1:-1] == pytest.approx(link[1:-1])
    cloud = tables.further(link, LINKS["cloud_tcp"], near)
    assert cloud.latency_ms == pytest.approx(380 + 25 + 3 - 2 - 1)
    assert cloud.seconds(1e6, True) - link.seconds(1e6, True) == pytest.approx(0.025 + 8e6 / 20e6 - 8e6 / 100e6)


STEM_7X7 = (2 * 2 * 64 * 3 * 49 * 112 * 112, 64 * 112 * 112)  # FLOPs of A in a step, numbers that cross
STEM_3X3 = (2 * 2 * 32 * 3 * 9 * 149 * 149 + 3 * 2 * 32 * 32 * 9 * 147 * 147, 32 * 147 * 147)
WHOLE = {  # FLOPs of a step, A's and what crosses there, numbers of the embedding
    "ResNet50": (24_299_077_632, STEM_7X7, 2048),
    "ResNet152": (68_845_731_840, STEM_7X7, 2048),
    "DenseNet121": (16_768_942_080, STEM_7X7, 1024),
    "DenseNet201": (25_512_167_424, STEM_7X7, 1920),
    "InceptionV3": (34_240_933_248, STEM_3X3, 2048),
    "InceptionResNetV2": (78_896_400_768, STEM_3X3, 1536),
}


class Known(System):
    """Of numbers written above instead of networks traced, which takes a minute."""

    def work(self, name: str, split: str, first: str | None = None, scan: PositionCosts | None = None) -> Work:
        whole, (a, crossing), embedding = WHOLE[name]
        c, hidden = (3 * 2 * embedding * 1000, embedding) if split == "double" else (0, 0)
        sizes = [Line(19.75 * numbers) for numbers in (crossing, hidden, hidden, crossing)]
        return Work(Line(a), Line(0), Line(whole - a - c), Line(0), Line(c), *sizes, Weights(), Weights())


@pytest.fixture(scope="module")
def known() -> System:
    return Known({}, Assumed(memory_mb=263.0))


def test_the_median_error_is_below_the_constant_predictors(known: System) -> None:
    rows = tables.cells(known)
    assert len([row for row in rows if row["network"] != FITTED and row["paper"] is not None]) == 21
    ours, constant = tables.errors(rows), tables.constant(rows)
    assert (round(ours.median, 4), round(constant.median, 4)) == (0.0736, 0.0808)
    assert (round(ours.worst, 2), round(constant.worst, 2)) == (0.42, 0.24)


def test_in_table_1_single_is_below_double_below_no_split_and_communication_is_most(known: System) -> None:
    for name in NETWORKS:
        single, double = (known.both(name, split)[0] for split in ("single", "double"))
        assert single < double < predict.alone(known.work(name, "double"), known.found)
    assert tables.communication_is_most(known)


def test_the_same_network_is_below_the_cloud_below_the_tunnel(known: System) -> None:
    rows = tables.figure_4c(known)
    assert [row["server"] for row in rows] == ["same network", "cloud, TCP", "tunnel"]
    for column in ("overall_double", "overall_single", "communication_double", "communication_single"):
        times = [row[column] for row in rows]
        assert times == sorted(set(times))


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["--cut", "somewhere"]) == 2
    assert capsys.readouterr().err.startswith("error: cut: must be ")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_the_networks_traced_take_what_is_written_here(whole: System, known: System) -> None:
    for name in NETWORKS:
        for split in ("double", "single"):
            assert whole.both(name, split) == pytest.approx(known.both(name, split), rel=1e-6)


@pytest.mark.slow
def test_the_paper_s_orderings_hold(whole: System) -> None:
    found = tables.orderings(whole)
    assert len(found) == 5
    assert all(found.values()), found


@pytest.mark.slow
def test_what_does_not_fit_the_phone_is_told_but_for_one(whole: System) -> None:
    rows = {row["network"]: row for row in tables.table_1(whole) if row["column"] == tables.ALONE}
    wrong = [name for name, row in rows.items() if bool(row["fits"]) != (row["paper"] is not None)]
    assert wrong == ["InceptionV3"]  # docs/paper.md says so


@pytest.mark.slow
def test_the_cuts_are_the_layers_of_table_2(whole: System) -> None:
    told = ["149x149x32", "147x147x32", "147x147x64", "73x73x64", "73x73x80", "71x71x192", "35x35x192"]
    assert [row["output"] for row in tables.figure_4b(whole)] == told
    for name, network in NETWORKS.items():
        places = [predict.place(whole.scans[name], layer) for layer in network.stem.layers]
        assert places == sorted(places)
        assert set(network.stem.rules) == set(RULES)


@pytest.mark.slow
def test_all_is_written_and_the_page_says_the_same(whole: System, tmp_path: Path) -> None:
    found = paper.all_tables(whole)
    paper.write(found, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*(f"{name}.csv" for name in found), "table1.png", "figure4.png"}
    assert len(rows_of(tmp_path / "out" / "table1.csv")) == 30
    page = (ROOT / "docs" / "paper.md").read_text()
    for written_as in (text.table_1, text.near, text.errors):
        assert written_as(found["table1"]) in page
    assert len(found["figure4b"]) == published.LAYERS_OF_TABLE_2
