"""The published numbers: their arithmetic, which run each may stand beside, and how tables and figures show them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.report import published, tables
from harness.report.export import restore
from harness.report.figures.data import read_sweep_data
from harness.report.figures.drawn import Drawn
from harness.report.figures.write import draw_figures
from harness.report.published import COLUMNS, WORKS, PublishedNumber, published_beside, read_published
from harness.report.render import FORMATS, render_tables
from harness.report.tables import build_tables
from harness.spec.run import RunSpec
from harness.spec.sweep import load_sweep

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
PAPER_SWEEPS = ("paper_2b", "paper_7b", "paper_alpha", "paper_beta")
B2, B7 = "Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"

NUMBERS = read_published() or ()


def number(work: str, id: str) -> PublishedNumber:
    return next(one for one in NUMBERS if (one.work, one.id) == (work, id))


def accuracies(**values: object) -> dict[str, float]:
    return {
        one.id: one.value
        for one in NUMBERS
        if one.quantity == "accuracy" and all(getattr(one, key) == value for key, value in values.items())
    }


@pytest.mark.parametrize("one", [n for n in NUMBERS if n.arithmetic], ids=lambda n: f"{n.work}.{n.id}")
def test_arithmetic_gives_the_printed_digits(one: PublishedNumber) -> None:
    of_work = {other.id: other.value for other in NUMBERS if other.work == one.work}
    num_digits = len(one.digits.partition(".")[2])
    assert f"{eval(one.arithmetic, {'__builtins__': {}}, of_work):.{num_digits}f}" == one.digits


def test_every_derived_accuracy_and_gain_says_how() -> None:
    assert [one.id for one in NUMBERS if not one.is_direct and one.unit == "%" and not one.arithmetic] == []


def test_table_1_is_whole() -> None:
    table = [one for one in NUMBERS if one.work == "othink_mr1" and one.place == "Table 1" and one.num_examples]
    cells = {(one.model, one.method, one.target): one.digits for one in table}
    assert len(table) == len(cells) == 16
    assert (cells[B2, "grpo_d", "clevr"], cells[B2, "grpo_d", "geoqa"]) == ("76.50", "34.35")
    assert (cells[B7, "sft", "clevr"], cells[B7, "grpo", "geoqa"]) == ("74.50", "42.04")


def counts(digits: str, num_examples: int) -> list[int]:
    """The numbers of right answers that are printed with these digits."""
    return [count for count in range(num_examples + 1) if f"{100 * count / num_examples:.2f}" == digits]


def test_geometry_was_tested_on_754_examples_and_not_on_753() -> None:
    printed = [n.digits for n in NUMBERS if n.work == "othink_mr1" and n.place == "Table 1" and n.num_examples == 754]
    assert [len(counts(digits, 754)) for digits in printed] == [1] * 8
    assert [counts(digits, 753) for digits in printed] == [[]] * 8


@pytest.mark.parametrize(
    ("id", "count", "num_examples"),
    [
        ("grpo_d_clevr_to_geoqa_2b", 122, 754),
        ("sft_clevr_to_geoqa_2b", 26, 754),
        ("grpo_d_geoqa_to_clevr_2b", 139, 200),
        ("sft_geoqa_to_clevr_2b", 86, 200),
    ],
)
def test_derived_accuracies_are_whole_numbers_of_examples(id: str, count: int, num_examples: int) -> None:
    derived = number("othink_mr1", id)
    assert (counts(derived.digits, num_examples), derived.num_examples) == ([count], num_examples)
    assert not derived.is_direct


def test_no_accuracy_at_alpha_0_agrees_with_the_gain_and_with_table_1() -> None:
    at_1 = number("othink_mr1", "grpo_geoqa_2b").value
    gains = {f"{100 * (at_1 / round(100 * count / 754, 2) - 1):.2f}" for count in range(1, 755)}
    assert number("othink_mr1", "gain_alpha").digits not in gains


def test_the_abstracts_average_is_the_smaller_direction() -> None:
    gains = [number("othink_mr1", id).value for id in ("gain_cross_sft_clevr", "gain_cross_sft_geoqa")]
    assert (min(gains), round(sum(gains) / 2, 2)) == (61.63, 215.31)


@pytest.mark.parametrize("name", PAPER_SWEEPS)
def test_claims_state_the_published_gains(name: str) -> None:
    sweep = load_sweep(SWEEPS / f"{name}.yaml")
    models = {run.spec.model for run in sweep.runs.values()}
    stated = [claim for claim in sweep.claims if claim.published is not None]
    assert stated or name == "paper_beta"
    for claim in stated:
        where = {condition.key: condition.values[0] for condition in claim.where}
        if name == "paper_alpha":
            assert claim.published == number("othink_mr1", "gain_alpha").value / 100
            continue
        source = where["source"]
        sides = [next(c.values[0] for c in side if c.key == "method") for side in (claim.better, claim.than)]
        found = [
            one
            for one in NUMBERS
            if (one.work, one.quantity, {one.model}) == ("othink_mr1", "relative_gain", models)
            and [one.method, one.baseline] == sides
            and (one.source, one.target) == (source, where.get("target", source))
            and not one.settings
        ]
        assert [one.value / 100 for one in found] == [pytest.approx(claim.published, abs=1e-9)], claim.name


@pytest.mark.parametrize("name", ["paper_2b", "paper_7b"])
def test_the_papers_sweeps_stand_beside_every_accuracy_of_the_paper(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(SWEEPS / f"{name}.yaml")
    model = next(iter(sweep.runs.values())).spec.model
    shown = {one.id for row in build_tables(tmp_path, sweep) for one in row.published or () if one.work == "othink_mr1"}
    assert shown == accuracies(work="othink_mr1", model=model).keys()


@pytest.mark.parametrize("name", ["paper_alpha", "paper_beta"])
def test_the_ablations_stand_beside_table_1_where_they_are_its_run(name: str, tmp_path: Path) -> None:
    rows = build_tables(tmp_path, SWEEPS / f"{name}.yaml")
    shown = {
        (row.method, *row.settings.values(), row.target): [one.digits for one in row.published or ()]
        for row in rows
        if row.table == "same_task" and row.published and row.source is not None
    }
    assert shown == {("grpo", 1 if name == "paper_alpha" else 0.01, "geoqa"): ["30.24"]}


def test_the_miniature_has_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("paper_mini", "quickstart", "ablation_alpha"):
        assert [row for row in build_tables(tmp_path, SWEEPS / f"{name}.yaml") if row.published] == []


def spec(method: str = "grpo", source: str | None = "clevr", model: str = B2, **fields: object) -> dict[str, object]:
    settings = fields.pop("settings", {})
    record = {"method": {"type": method, **settings}, "source": source, "model": model, **fields}  # type: ignore[dict-item]
    return RunSpec.model_validate(record).model_dump(mode="json")


def beside(run: dict[str, object], target: str = "clevr") -> list[str]:
    return [f"{one.head} {one.shown}" for one in published_beside(NUMBERS, run, target)]


def test_a_run_stands_beside_what_agrees_with_it() -> None:
    assert beside(spec()) == ["paper 64.50"]
    assert beside(spec(), "geoqa") == []
    assert beside(spec("base", None)) == ["paper 42.50", "R1-V 48.0"]
    assert beside(spec(model="/models/Qwen2-VL-2B-Instruct")) == ["paper 64.50"]
    assert beside(spec(source="clevr_r1"), "clevr_r1") == ["paper 64.50"]
    assert beside(spec("grpo_d", "geoqa")) == ["paper 69.50 (d)"]
    step_100 = {"num_steps": 100, "schedule": {"type": "constant", "beta": 0.04}}
    assert beside(spec(num_train=1600, settings=step_100)) == ["R1-V 82.5"]


@pytest.mark.parametrize(
    "run",
    [
        spec(model="Qwen/Qwen2.5-VL-3B-Instruct"),
        spec(model="embedded"),
        spec(num_train=200),
        spec(settings={"format_weight": 0.5}),
        spec(settings={"schedule": {"type": "constant", "beta": 0.01}}),
        spec("grpo_d", settings={"schedule": {"type": "linear", "beta_min": 0.04, "beta_max": 0.1}}),
        spec(source="counting"),
    ],
)
def test_a_run_that_differs_in_what_is_stated_stands_alone(run: dict[str, object]) -> None:
    assert beside(run) == []


@pytest.fixture
def paper(results: Path, write_run, tmp_path: Path) -> Path:
    """Base, SFT and GRPO on the paper's data with two seeds on three and four examples; GRPO-D was not run."""
    file = tmp_path / "paper.yaml"
    file.write_text(
        f"name: paper\nbase: {{model: {B2}}}\naxes: {{method: [base, sft, grpo, grpo_d], source: [clevr, geoqa], "
        "seed: [0, 1]}\ntargets: [clevr, geoqa]\nevaluation: {num_examples: 4}\n"
    )
    for run in load_sweep(file).runs.values():
        if run.spec.method.type != "grpo_d":
            write_run(run.spec, {"clevr": [1, 0, 1], "geoqa": [1, 0, 0, 0]})
            summary = results / "runs" / run.run_id / "summary.json"
            record = json.loads(summary.read_text())
            record["evaluations"]["clevr"]["split_size"] = 3
            summary.write_text(json.dumps(record))
    return file


def test_text_shows_the_paper_beside_ours(results: Path, paper: Path) -> None:
    text = render_tables(build_tables(results, paper))
    same, cross = (part.splitlines() for part in text.split("Cross task")[:2])
    line = next(line for line in same if line.startswith("sft"))
    assert line.split()[:4] == ["sft", "66.7", "2", "68.50"]
    assert next(line for line in same if line.startswith("base")).split()[5:7] == ["42.50", "48.0"]
    assert any("3.45 (d)" in line for line in cross if line.startswith("sft"))
    assert next(line for line in same if line.startswith("grpo_d")).split()[1:4] == ["-", "0/2", "76.50"]
    words = " ".join(text.split())
    assert "first test examples of each target (3 for clevr, 4 for geoqa)" in words
    assert "paper: OThink-MR1, arXiv 2503.16081v2; R1-V: R1-V at bbbbe3d" in words
    assert "(d) computed from printed numbers" in words
    assert max(map(len, text.splitlines())) <= 110 and text.isascii()


def test_json_and_csv_say_whether_a_number_is_direct(results: Path, paper: Path) -> None:
    rows = build_tables(results, paper)
    records = json.loads(render_tables(rows, "json"))
    found = {(r["method"], r["source"], r["target"]): r.get("published") for r in records}
    assert found["sft", "clevr", "geoqa"] == [
        {"work": "othink_mr1", "accuracy": 0.0345, "kind": "derived", "place": "Figure 7, text", "num_examples": 754}
    ]
    assert found["grpo", "clevr", "geoqa"] is None
    parsed = csv.DictReader(io.StringIO(render_tables(rows, "csv")))
    assert [row["published"] for row in parsed] == [
        json.dumps(r["published"]) if "published" in r else "" for r in records
    ]


def test_markdown_and_latex_have_the_column(results: Path, paper: Path) -> None:
    rows = build_tables(results, paper)
    markdown = [line for line in render_tables(rows, "markdown").splitlines() if line.startswith("|")]
    assert "| paper | R1-V |" in markdown[0]
    assert {line.count("|") for line in markdown} == {1 + 1 + 2 * 4, 1 + 1 + 2 * 3}
    assert "& 42.50 & 48.0 &" in render_tables(rows, "latex")


def test_a_sweep_on_record_tells_its_model_by_its_runs(results: Path, paper: Path) -> None:
    from harness.record.sweep_record import write_sweep_record

    write_sweep_record(results, load_sweep(paper))
    by_name, by_file = build_tables(results, "paper"), build_tables(results, paper)
    assert [row.published for row in by_name if row.run_ids] == [row.published for row in by_file if row.run_ids]
    assert {row.published for row in by_name if not row.run_ids} == {()}


def test_an_installation_without_the_numbers_says_so(
    results: Path, paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "read_published", lambda: None)
    rows = build_tables(results, paper)
    assert {row.published for row in rows} == {None}
    for form in FORMATS:
        text = render_tables(rows, form)
        assert ("Published numbers are no part of this installation" in text) == (form not in ("csv", "json"))
        assert "42.50" not in text


def figures(results: Path, sweep: Path) -> dict[str, Drawn]:
    return {one.name: one for one in draw_figures(read_sweep_data(results, sweep))}


def test_figures_mark_the_published_accuracy(results: Path, paper: Path) -> None:
    drawn = figures(results, paper)
    same = drawn["same_task"].numbers.set_index(["method", "source"])
    assert same.loc[("sft", "geoqa"), "paper"] == 32.49
    assert same.loc[("base", "clevr"), "R1-V"] == 48.0
    cross = drawn["cross_task"].numbers.set_index(["method", "source", "target"])
    assert tuple(cross.loc[("sft", "geoqa", "clevr"), ["paper", "paper_kind"]]) == (43.0, "derived")
    shown = {text.get_text() for axes in drawn["cross_task"].figure.axes for text in axes.texts}
    assert "paper 43.00 (d)" in shown and "paper 68.50" in shown
    for name in ("same_task", "cross_task"):
        assert "OThink-MR1, arXiv 2503.16081v2" in drawn[name].figure.texts[0].get_text().replace("\n", " ")


def test_an_ablation_marks_the_one_value_that_was_printed(results: Path, write_run, tmp_path: Path) -> None:
    file = tmp_path / "betas.yaml"
    file.write_text(
        f"name: betas\nbase: {{model: {B2}, source: geoqa}}\naxes: {{method: [grpo], beta: [0, 0.01], seed: [0]}}\n"
        "targets: [geoqa]\nevaluation: {num_examples: 4}\n"
    )
    for run in load_sweep(file).runs.values():
        write_run(run.spec, {"geoqa": [1, 0, 0, 0]})
    one = figures(results, file)["ablation_beta"]
    printed = one.numbers[one.numbers["quantity"].str.startswith("published: ")]
    assert printed[["value", "mean", "quantity"]].to_numpy().tolist() == [["0.01", 30.24, "published: paper, direct"]]
    assert printed[["num_seeds", "run_ids", "ci_low"]].isna().all(axis=None)
    assert "paper (diamond): OThink-MR1" in one.figure.texts[0].get_text()
    labels = {text.get_text() for axes in one.figure.axes if (legend := axes.get_legend()) for text in legend.texts}
    assert "paper, geoqa" in labels


def test_an_export_of_a_small_test_set_is_whole(results: Path, paper: Path, tmp_path: Path) -> None:
    from harness.record.atomic import read_json, write_json
    from harness.report.export import export_sweep

    sweep = load_sweep(paper)
    started = {"started": "2026-01-01T10:00:00+0000", "ended": None, "start_step": 0, "outcome": None, "device": "cpu"}
    for run_id in sweep.runs:
        file = results / "runs" / run_id / "run.json"
        if file.exists():
            record = read_json(file)
            record["provenance"]["versions"] = {}
            attempt = started | {"commit": "c0ffee", "dirty": False}
            write_json(file, record | {"resolved": {"device": "cpu", "num_threads": 1}, "attempts": [attempt]})
    export_sweep(results, sweep, tmp_path / "out")
    restore(tmp_path / "out", tmp_path / "again")
    means = [(row.mean, row.num_examples) for row in build_tables(tmp_path / "again", sweep)]
    assert means == [(row.mean, row.num_examples) for row in build_tables(results, sweep)]
    assert (2 / 3, 3) in means


def test_every_file_and_row_is_checked(tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS, "") | {"id": "a", "quantity": "accuracy", "value": "1", "kind": "direct"}

    def write(**changes: str) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for work in WORKS:
            with (folder / f"{work}.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerow(row | changes)
        return folder

    good = read_published(write())
    assert good is not None and [one.work for one in good] == list(WORKS)
    assert dataclasses.replace(good[0], work="r1v") == good[1]
    for changes, words in (
        ({"value": "many"}, "value, num_examples or settings cannot be read"),
        ({"kind": "guessed"}, "kind is direct or derived, not 'guessed'"),
        ({"settings": "beta"}, "'beta' is not key=value"),
        ({"id": "a b"}, "the id 'a b'"),
    ):
        with pytest.raises(DataError, match=r"othink_mr1\.csv:2: .*" + words):
            read_published(write(**changes))
    lacking = write()
    (lacking / "r1v.csv").unlink()
    with pytest.raises(DataError, match="the published numbers are not whole"):
        read_published(lacking)


def test_an_installation_looks_beside_the_package_and_in_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published.published_folder() == ROOT / "results" / "published"
    monkeypatch.setattr(published, "__file__", str(tmp_path / "lib" / "harness" / "report" / "published.py"))
    monkeypatch.setattr(published.sysconfig, "get_path", lambda name: str(tmp_path / name))
    assert published.published_folder() is None
    shared = tmp_path / "data" / "share" / "grpo-d-harness" / "published"
    shared.mkdir(parents=True)
    (shared / "othink_mr1.csv").write_text("")
    assert published.published_folder() == shared
