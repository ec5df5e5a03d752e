"""The two tables: their rows by hand, what is missing, and every format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.report.flat import tables_frame
from harness.report.grids import grids
from harness.report.render import FORMATS, render_tables
from harness.report.tables import TableRow, build_tables, missing_run_ids
from harness.spec.run import RunSpec

KEYS = {
    *("table", "method", "source", "target", "settings", "mean", "ci_low", "ci_high"),
    *("num_seeds", "num_examples", "split", "run_ids", "seeds", "is_best", "improvements", "by_format"),
}


def spec(method: str, source: str | None = None, seed: int = 0, **settings: object) -> RunSpec:
    return RunSpec.model_validate({"method": {"type": method, **settings}, "source": source, "seed": seed})


def improvement_over(row: TableRow, baseline: str) -> float | None:
    return row.improvements[baseline].mean if baseline in row.improvements else None


def row_of(rows: list[TableRow], table: str, method: str, source: str | None, target: str) -> TableRow:
    found = [r for r in rows if (r.table, r.method, r.source, r.target) == (table, method, source, target)]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def rows(results: Path, write_run, make_sweep) -> list[TableRow]:
    """Base; sft with one of three seeds missing; grpo without a run; grpo_d complete, 7/12, 3/12, 6/12 and 12/12."""
    write_run(spec("base"), {"counting": [1, 0, 0, 0], "geometry": [0, 0, 0, 0]})
    for source in ("counting", "geometry"):
        for seed in (0, 2):
            write_run(spec("sft", source, seed), {"counting": [1, 0, 0, 1], "geometry": [0, 0, 1, 0]})
    for seed, verdicts in enumerate([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0]]):
        write_run(spec("grpo_d", "counting", seed), {"counting": verdicts, "geometry": [0, 0, 0, 1]})
        write_run(spec("grpo_d", "geometry", seed), {"counting": verdicts[::-1][:1] * 4, "geometry": [1] * 4})
    sweep = make_sweep(method="[grpo_d, grpo, sft, base]", source="[counting, geometry]", seed="[0, 1, 2]")
    return build_tables(results, sweep)


def test_rows_stand_in_reading_order(rows: list[TableRow]) -> None:
    methods = ["base", "base", "sft", "sft", "grpo", "grpo", "grpo_d", "grpo_d"]
    assert [row.method for row in rows] == methods * 2
    assert [row.table for row in rows] == ["same_task"] * 8 + ["cross_task"] * 8
    same, cross = [(r.source, r.target) for r in rows[2:8:2]], [(r.source, r.target) for r in rows[10:16:2]]
    assert same == [("counting", "counting")] * 3
    assert cross == [("counting", "geometry")] * 3


def test_means_are_over_seeds_and_examples(rows: list[TableRow]) -> None:
    row = row_of(rows, "same_task", "grpo_d", "counting", "counting")
    assert row.mean == 7 / 12
    assert row.ci_low is not None
    assert row.ci_high is not None
    assert row.ci_low < 7 / 12 < row.ci_high
    assert (row.num_seeds, row.num_examples, len(row.run_ids), row.protocol) == (3, 4, 3, "r1v_counting")
    assert row_of(rows, "cross_task", "grpo_d", "counting", "geometry").mean == 0.25
    assert row_of(rows, "same_task", "grpo_d", "geometry", "geometry").ci_low == 1.0
    assert row_of(rows, "cross_task", "grpo_d", "geometry", "counting").mean == 0.0


def test_two_seeds_have_a_mean_without_an_interval(rows: list[TableRow]) -> None:
    row = row_of(rows, "same_task", "sft", "counting", "counting")
    assert (row.mean, row.ci_low, row.ci_high, row.num_seeds) == (0.5, None, None, 2)
    assert row.missing_run_ids == (spec("sft", "counting", 1).run_id,)


def test_base_stands_in_both_tables_with_an_interval_over_examples(rows: list[TableRow]) -> None:
    same, cross = (row_of(rows, table, "base", None, "counting") for table in ("same_task", "cross_task"))
    assert dataclasses.replace(cross, table="same_task") == same
    assert (same.mean, same.num_seeds, same.run_ids) == (0.25, 1, (spec("base").run_id,))
    # The mean of four draws from (1, 0, 0, 0) is 0 in 0.75^4 = 32 % and above 0.75 in 0.4 % of the resamples.
    assert (same.ci_low, same.ci_high) == (0.0, 0.75)


def test_missing_runs_are_a_dash_with_their_number(rows: list[TableRow]) -> None:
    row = row_of(rows, "same_task", "grpo", "geometry", "geometry")
    assert (row.mean, row.num_seeds, row.num_examples, row.run_ids) == (None, 0, 4, ())
    assert len(row.missing_run_ids) == 3
    assert len(missing_run_ids(rows)) == 6 + 2
    line = next(line for line in render_tables(rows).splitlines() if line.startswith("grpo "))
    assert line.split() == ["grpo", "-", "0/3", "-", "0/3"]


def test_the_same_folders_give_the_same_rows(rows: list[TableRow], results: Path, tmp_path: Path) -> None:
    assert build_tables(results, tmp_path / "small.yaml") == rows


def test_improvements_compare_the_same_source_and_target(rows: list[TableRow]) -> None:
    row = row_of(rows, "same_task", "grpo_d", "counting", "counting")
    assert improvement_over(row, "sft") == pytest.approx((7 / 12 - 1 / 2) / (1 / 2))
    assert improvement_over(row, "grpo") is None
    assert improvement_over(row, "grpo_d") is None
    assert improvement_over(row_of(rows, "same_task", "base", None, "counting"), "sft") is None
    same = row_of(rows, "same_task", "grpo_d", "geometry", "geometry")
    assert improvement_over(same, "sft") == pytest.approx(3.0)
    assert improvement_over(row, "base") == pytest.approx((7 / 12 - 1 / 4) / (1 / 4))


def test_an_improvement_has_an_interval_where_both_sides_have_three_seeds(rows: list[TableRow]) -> None:
    row = row_of(rows, "cross_task", "grpo_d", "counting", "geometry")
    assert row.improvements["sft"] == (0.0, None, None)  # two seeds of sft
    assert row.improvements["base"] == (None, None, None)  # base is at 0
    assert row.improvements["grpo"] == (None, None, None)  # no run


def test_improvements_are_paired_by_seed(results: Path, write_run, make_sweep) -> None:
    verdicts = ([1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0])
    for seed, correct in enumerate(verdicts):
        twice = [1, *correct[:-1]]
        write_run(spec("sft", "counting", seed), {"counting": correct, "geometry": [1, 1, 1, 1]})
        write_run(spec("grpo", "counting", seed), {"counting": twice, "geometry": [1, 1, 1, 1]})
    rows = build_tables(results, make_sweep(method="[sft, grpo]", source="[counting]", seed="[0, 1, 2]"))
    # Every seed and example is the same on both sides, so no resample tells them apart.
    assert row_of(rows, "cross_task", "grpo", "counting", "geometry").improvements["sft"] == (0.0, 0.0, 0.0)
    gain = row_of(rows, "same_task", "grpo", "counting", "counting").improvements["sft"]
    assert gain.mean == pytest.approx(0.5) and gain.low is None  # a resample of sft is at 0


def test_the_best_is_marked_where_it_is_beyond_chance(results: Path, write_run, make_sweep) -> None:
    hits = {"sft": 2, "grpo": 4, "grpo_d": 20}
    for method, count in hits.items():
        for seed in range(3):
            correct = [int(at < count) for at in range(24)]
            write_run(spec(method, "counting", seed), {"counting": correct, "geometry": correct})
    sweep = make_sweep(method="[sft, grpo, grpo_d]", source="[counting]", seed="[0, 1, 2]")
    sweep = dataclasses.replace(sweep, evaluation=sweep.evaluation.model_copy(update={"num_examples": 24}))
    rows = build_tables(results, sweep)
    assert [row.method for row in rows if row.is_best] == ["grpo_d", "grpo_d"]
    line = next(line for line in render_tables(rows).splitlines() if line.startswith("grpo_d"))
    assert line.split()[1:6] == ["83.3", *line.split()[2:4], "*", "3"]
    assert "| **83.3 [" in render_tables(rows, "markdown")
    assert r"\textbf{83.3 [" in render_tables(rows, "latex")
    assert "Marked as the best" in render_tables(rows)
    # Of two seeds nothing is beyond chance.
    few = make_sweep(method="[sft, grpo, grpo_d]", source="[counting]", seed="[0, 1]")
    few = dataclasses.replace(few, evaluation=sweep.evaluation)
    assert not any(row.is_best for row in build_tables(results, few))


def test_accuracy_by_format_by_hand(rows: list[TableRow]) -> None:
    # The first two completions of each run are in the right format.
    by_format = row_of(rows, "same_task", "grpo_d", "counting", "counting").by_format
    assert by_format is not None and by_format.in_format == 0.5
    assert (by_format.accuracy_in_format.num_hits, by_format.accuracy_in_format.num_of) == (5, 6)
    assert by_format.accuracy_otherwise.share == pytest.approx(2 / 6)
    lines = render_tables(rows).split("Same task: accuracy by format")[1].splitlines()
    grpo_d = next(line for line in lines if line.startswith("grpo_d")).split()
    assert (grpo_d[1], grpo_d[2]) == ("50.0", "83.3")


def test_more_than_two_tasks_make_a_matrix(results: Path, write_run, make_sweep) -> None:
    tasks = ("counting", "geometry", "clevr")
    verdicts = {task: [1, 0, 0, 0] for task in tasks}
    write_run(spec("base"), verdicts)
    for source in tasks:
        write_run(spec("sft", source), verdicts | {source: [1, 1, 1, 0]})
    sweep = make_sweep(method="[base, sft]", source="[counting, geometry, clevr]", seed="[0]", targets=tasks)
    matrix, gains, *_ = grids(build_tables(results, sweep))
    assert matrix.stub_heads == ["method", "trained on"] and matrix.pairs == list(tasks)
    assert matrix.stubs == [["base", ""], *(["sft", source] for source in tasks)]
    accuracies = [[cell[0] for cell in line] for line in matrix.cells]
    assert [text.split()[0] for text in accuracies[0]] == ["25.0"] * 3
    assert accuracies[1:] == [["75.0" if one == other else "25.0" for other in tasks] for one in tasks]
    assert gains.stubs == matrix.stubs[1:] and gains.cells[0] == [["+200.0 %"], ["+0.0 %"], ["+0.0 %"]]


def test_settings_that_vary_within_a_method_have_their_own_rows(results: Path, write_run, make_sweep) -> None:
    verdicts = {"counting": [1, 0, 0, 0], "geometry": [0, 0, 0, 0]}
    write_run(spec("sft", "counting"), verdicts)
    for beta, correct in ((0.0, [1, 1, 0, 0]), (0.01, [1, 1, 1, 0])):
        run = spec("grpo", "counting", schedule={"type": "constant", "beta": beta})
        write_run(run, verdicts | {"counting": correct})
    sweep = make_sweep(
        method="[base, sft, grpo]", source="[counting]", seed="[0]", num_train="[400]", beta="[0.0, 0.01]"
    )
    rows = build_tables(results, sweep)
    same = [(r.method, dict(r.settings), r.mean) for r in rows if (r.table, r.target) == ("same_task", "counting")]
    assert same == [
        ("base", {}, None),
        ("sft", {}, 0.25),
        ("grpo", {"method.schedule.beta": 0.0}, 0.5),
        ("grpo", {"method.schedule.beta": 0.01}, 0.75),
    ]
    # Two rows of grpo: none of them is "the" baseline of the other methods, and each is compared with the one sft.
    by_mean = {r.mean: r for r in rows if r.table == "same_task" and r.method == "grpo"}
    assert improvement_over(by_mean[0.75], "sft") == 2.0
    assert improvement_over(by_mean[0.75], "grpo") is None
    lines = render_tables(rows).splitlines()
    assert "vs grpo" not in "".join(lines)
    gains = lines[lines.index("Same task: relative improvement") :]
    assert next(line for line in lines if line.startswith("method")).split()[:4] == ["method", "beta", "accuracy", "n"]
    assert next(line for line in lines if line.startswith("grpo    0.01")).split()[2:] == ["75.0", "1"]
    assert next(line for line in gains if line.startswith("grpo    0.01")).split()[2:] == ["-", "+200.0", "%"]


def test_baselines_with_the_same_setting_are_compared(results: Path, write_run, make_sweep) -> None:
    for weight, grpo, grpo_d in ((0.0, [1, 0, 0, 0], [1, 1, 0, 0]), (1.0, [1, 1, 0, 0], [1, 1, 1, 0])):
        write_run(spec("grpo", "counting", format_weight=weight), {"counting": grpo, "geometry": grpo})
        write_run(spec("grpo_d", "counting", format_weight=weight), {"counting": grpo_d, "geometry": grpo})
    sweep = make_sweep(method="[grpo, grpo_d]", source="[counting]", seed="[0]", format_weight="[0.0, 1.0]")
    rows = build_tables(results, sweep)
    gains = [improvement_over(row, "grpo") for row in rows if row.method == "grpo_d" and row.table == "same_task"]
    assert gains == [1.0, 0.5]


def test_json_has_exactly_the_contract_s_keys(rows: list[TableRow]) -> None:
    records = json.loads(render_tables(rows, "json"))
    assert all(set(record) == KEYS for record in records)
    assert len(records) == len(rows)
    base = records[0]
    assert (base["method"], base["source"], base["target"], base["mean"]) == ("base", None, "counting", 0.25)
    assert base["run_ids"] == [spec("base").run_id]


def test_csv_parses_back(rows: list[TableRow]) -> None:
    records = list(csv.DictReader(io.StringIO(render_tables(rows, "csv"))))
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert (record["method"], record["source"] or None, record["target"]) == (row.method, row.source, row.target)
        assert (float(record["mean"]) if record["mean"] else None) == row.mean
        assert tuple(record["run_ids"].split()) == row.run_ids
        assert json.loads(record["settings"]) == row.settings


def test_a_frame_holds_what_csv_does(rows: list[TableRow], results: Path, tmp_path: Path) -> None:
    frame = tables_frame(results, tmp_path / "small.yaml")
    records = list(csv.DictReader(io.StringIO(render_tables(rows, "csv"))))
    assert list(frame.columns) == list(records[0])
    assert frame["source"].tolist()[:3] == [None, None, "counting"]
    row = frame[(frame["method"] == "grpo_d") & (frame["source"] == "geometry") & (frame["table"] == "same_task")]
    assert row["mean"].item() == 1.0 and row["improvement_over_sft"].item() == pytest.approx(3.0)
    assert row["accuracy_in_format"].item() == 1.0 and frame["accuracy_in_format_low"].dtype == float


def test_text_is_readable_and_nothing_is_cut_off(rows: list[TableRow]) -> None:
    text = render_tables(rows)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    assert text.isascii()
    assert not any(line != line.rstrip() for line in lines)
    at = lines.index("Same task: evaluated on the task it was trained on")
    assert lines[at + 2].split("  ")[-1].strip() == "geometry -> geometry"
    grpo_d = next(line for line in lines if line.startswith("grpo_d"))
    assert grpo_d.split()[1] == "58.3"
    assert any("+16.7 %" in line for line in lines if line.startswith("grpo_d"))
    assert "first 4 test examples" in " ".join(text.split())
    assert "r1v_counting for counting, r1v_geoqa for geometry" in text


def test_pairs_that_do_not_fit_go_below_each_other(rows: list[TableRow]) -> None:
    narrow = render_tables(rows, width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    wide, narrow = (render_tables(rows, width=n).split("Same task: relative improvement")[0] for n in (60, 50))
    # Two tables of two pairs each; at 50 only one of two fits.
    assert (wide.count("method "), narrow.count("method ")) == (2, 4)


def test_markdown_lines_have_the_same_number_of_cells(rows: list[TableRow]) -> None:
    lines = [line for line in render_tables(rows, "markdown").splitlines() if line.startswith("|")]
    # Accuracies with n; improvements over three baselines, without base; three shares by format, without grpo.
    widths = [line.count("|") for line in lines]
    assert widths == [1 + 1 + 2 * 2] * 2 * (2 + 4) + [1 + 1 + 2 * 3] * (2 * (2 + 3) + 2 * (2 + 3))


def test_latex_escapes_what_latex_reads(rows: list[TableRow]) -> None:
    latex = render_tables(rows, "latex")
    assert r"grpo\_d" in latex
    assert "_d" not in latex.replace(r"\_d", "")
    assert r"$+$16.7 \%" in latex
    assert [latex.count(rf"\begin{{tabular}}{{l{'r' * num}}}") for num in (4, 6)] == [2, 4]
    body = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in body} == {4, 6}


def test_a_sweep_of_base_alone_has_one_table(results: Path, write_run, make_sweep) -> None:
    write_run(spec("base"), {"counting": [1, 0, 0, 0], "geometry": [1, 1, 0, 0]})
    text = render_tables(build_tables(results, make_sweep(method="[base]")))
    assert "Cross task" not in text
    assert next(line for line in text.splitlines() if line.startswith("base")).split()[1] == "25.0"


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'markdown'"):
        render_tables([], "markdwon")


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_no_error(form: str) -> None:
    assert isinstance(render_tables([], form), str)
