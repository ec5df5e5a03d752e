"""Sweep files: what they expand to, counted by hand, and how a mistake is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SpecError
from harness.spec import Grpo, GrpoD, RunSpec, Sft
from harness.spec.sweep import Sweep, load_sweep

HEAD = """\
name: test
base: {model: Qwen/Qwen2-VL-2B-Instruct}
targets: [counting, geometry]
"""

GRID = """\
axes:
  method: [base, sft, grpo, grpo_d]
  source: [counting, geometry]
  seed: [0, 1, 2]
"""


def load(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    file = tmp_path / "test.yaml"
    file.write_text(HEAD + text)
    return load_sweep(file, overrides)


def values(sweep: Sweep, method: str, setting: str) -> set[Any]:
    """A setting's values over the runs of a method."""
    runs = [run.spec.method for run in sweep.runs.values() if run.spec.method.type == method]
    return {getattr(run, setting) for run in runs}


def betas(sweep: Sweep, source: str) -> set[float]:
    methods = [run.spec.method for run in sweep.runs.values() if run.spec.source == source]
    return {method.schedule.beta for method in methods if isinstance(method, Grpo)}


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_grid_shares_its_base_run(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID)
    assert len(sweep.runs) == 1 + 3 * 2 * 3
    assert sweep.num_runs_naive == 4 * 2 * 3 * 2
    first = sweep.cells[0]
    assert (first.settings, first.spec.method.type, first.spec.source) == ({"method": "base"}, "base", None)
    assert dict(sweep.cells[1].settings) == {"method": "sft", "source": "counting", "seed": 0}
    assert dict(sweep.cells[2].settings) == {"method": "sft", "source": "counting", "seed": 1}
    assert all(run.targets == ("counting", "geometry") for run in sweep.runs.values())
    assert all(cell.run_id == cell.spec.run_id for cell in sweep.cells)


def test_a_setting_that_a_method_lacks_never_multiplies_its_runs(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + "  format_weight: [0, 0.5, 1]\n")
    # base 1, sft 2 x 3, grpo and grpo_d 2 x 3 x 3 each
    assert len(sweep.runs) == len(sweep.cells) == 1 + 6 + 18 + 18
    assert sweep.num_runs_naive == 4 * 2 * 3 * 3 * 2
    assert all("method.format_weight" not in cell.settings for cell in sweep.cells if "sft" in cell.run_id)
    assert values(sweep, "grpo", "format_weight") == {0, 0.5, 1}


def test_a_schedule_that_a_method_cannot_have_never_multiplies_its_runs(tmp_path: Path) -> None:
    sweep = load(
        tmp_path, GRID + "  schedule: [othink, linear, {type: constant, beta: 0.01}]\n  beta_max: [0.1, 0.2]\n"
    )
    # grpo: constant alone, with or without a beta of its own; grpo_d: othink and linear x 2, constant x 1
    assert len([run for run in sweep.runs if run.startswith("grpo_d")]) == 2 * 3 * (2 * 2 + 1)
    assert len([run for run in sweep.runs if run.startswith("grpo-")]) == 2 * 3 + 3
    assert betas(sweep, "counting") == {0.04, 0.01}
    assert betas(sweep, "geometry") == {0.01}


@pytest.mark.parametrize(
    "base",
    [
        "{method: {type: grpo, lr: 0.5, schedule: {beta: 0.3}}, source: counting}",
        "{method: grpo, method.lr: 0.5, method.schedule.beta: 0.3, source: counting}",
        "{method.type: grpo, lr: 0.5, schedule: {type: constant, beta: 0.3}, source: counting}",
        "{method: grpo, method.lr: 5e-1, beta: 0.3, source: counting}",
    ],
)
def test_settings_may_be_nested_dotted_or_short(tmp_path: Path, base: str) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(f"name: test\nbase: {base}\naxes: {{model: [a/b]}}\ntargets: [counting]\n")
    (run,) = load_sweep(file).runs.values()
    assert isinstance(run.spec.method, Grpo)
    assert (run.spec.method.lr, run.spec.method.schedule.beta) == (0.5, 0.3)


def test_a_block_adds_an_axis_where_it_applies(tmp_path: Path) -> None:
    blocks = """\
blocks:
- where: {method: grpo}
  axes: {method.schedule.beta: [0, 0.01, 0.04]}
- where: {method: [grpo, grpo_d], source: counting}
  set: {method.lr: 1e-4}
"""
    sweep = load(tmp_path, GRID + blocks)
    assert len(sweep.runs) == 1 + 6 + 18 + 6
    assert sweep.num_runs_naive == 4 * 2 * 3 * 3 * 2
    assert betas(sweep, "geometry") == {0, 0.01, 0.04}
    for run in sweep.runs.values():
        method = run.spec.method
        if isinstance(method, Grpo | GrpoD):
            assert method.lr == (1e-4 if run.spec.source == "counting" else 1e-6)
        elif isinstance(method, Sft):
            assert method.lr == 2e-5


def test_a_block_axis_replaces_the_one_it_is_named_after(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + "blocks:\n- where: {method: grpo_d}\n  axes: {seed: [7, 8]}\n")
    seeds = {run.spec.seed for run in sweep.runs.values() if run.spec.method.type == "grpo_d"}
    assert seeds == {7, 8}
    assert len(sweep.runs) == 1 + 6 + 6 + 2 * 2
    assert sweep.num_runs_naive == 4 * 2 * 5 * 2


def test_blocks_apply_in_order_and_see_what_earlier_ones_set(tmp_path: Path) -> None:
    blocks = """\
blocks:
- where: {method: sft, seed: 0}
  set: {lr: 0.1, num_steps: 7}
- where: {num_steps: 7}
  set: {lr: 0.2}
- where: {method: sft, seed: 1}
  set: {lr: 0.3}
"""
    sweep = load(tmp_path, GRID + blocks)
    lrs = {(run.spec.seed, run.spec.method.lr) for run in sweep.runs.values() if isinstance(run.spec.method, Sft)}
    assert lrs == {(0, 0.2), (1, 0.3), (2, 2e-5)}


def test_where_does_not_see_what_a_cell_does_not_have(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + "blocks:\n- where: {source: counting}\n  set: {precision: bf16}\n")
    assert [run.spec.precision for run in sweep.runs.values() if run.spec.source is None] == ["float32"]


def test_where_sees_the_default_of_precision(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + "blocks:\n- where: {precision: float32}\n  set: {lr: 0.5}\n")
    assert values(sweep, "sft", "lr") == values(sweep, "grpo", "lr") == {0.5}


def test_a_mapping_on_an_axis_is_one_value(tmp_path: Path) -> None:
    text = "axes: {method: [{type: sft, lr: 0.1}, {type: sft, lr: 0.2}, base], source: [counting]}"
    sweep = load(tmp_path, text)
    assert len(sweep.runs) == 3
    assert values(sweep, "sft", "lr") == {0.1, 0.2}
    assert dict(sweep.cells[0].settings) == {"method": {"type": "sft", "lr": 0.1}, "source": "counting"}


def test_equal_runs_of_different_cells_are_one_run(tmp_path: Path) -> None:
    sweep = load(tmp_path, "axes: {method: [grpo], source: [counting], schedule: [constant, {beta: 0.04}]}")
    assert (len(sweep.cells), len(sweep.runs)) == (2, 1)


def test_numbers_are_numbers_and_words_are_words(tmp_path: Path) -> None:
    sweep = load(tmp_path, "axes: {method: [sft], source: [counting], lr: [1e-4, 2E-4, 0.5, .25, 1_0]}")
    assert values(sweep, "sft", "lr") == {1e-4, 2e-4, 0.5, 0.25, 10}


def test_set_replaces_an_axis_by_a_value(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID, "seed=5", "method=[base, sft]")
    assert [run.spec.seed for run in sweep.runs.values()] == [0, 5, 5]
    assert sweep.num_runs_naive == 2 * 2 * 2
    assert "seed" not in sweep.cells[-1].settings


def test_set_keeps_an_axis_an_axis_in_its_place(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID, "source=[geometry]", "seed=[3, 4]")
    assert [list(cell.settings) for cell in sweep.cells[1:]] == [["method", "source", "seed"]] * 6
    assert {run.spec.source for run in sweep.runs.values()} == {None, "geometry"}


def test_set_makes_a_new_axis(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID, "format_weight=[0, 1]")
    assert len(sweep.runs) == 1 + 6 + 12 + 12


def test_set_wins_over_blocks_and_mappings(tmp_path: Path) -> None:
    text = """\
  schedule: [{type: constant, beta: 0.5}, othink]
blocks:
- where: {method: grpo}
  axes: {beta: [0.1, 0.2]}
- where: {method: grpo}
  set: {lr: 0.5}
"""
    sweep = load(tmp_path, GRID + text, "beta=0.3", "lr=1e-3")
    assert betas(sweep, "counting") == {0.3}
    assert values(sweep, "grpo", "lr") == values(sweep, "grpo_d", "lr") == {1e-3}


def test_the_last_set_wins(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID, "seed=[1, 2, 3]", "seed=9")
    assert {run.spec.seed for run in sweep.runs.values()} == {0, 9}


def test_set_reaches_targets_evaluation_and_name(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID, "targets=[geometry]", "evaluation.num_examples=50", "name=other", "description=Why?")
    assert (sweep.targets, sweep.evaluation.num_examples, sweep.name) == (("geometry",), 50, "other")
    assert sweep.description == "Why?"
    assert load(tmp_path, GRID, "targets=counting").targets == ("counting",)


def test_execution_reaches_the_sweep_and_changes_no_run(tmp_path: Path) -> None:
    plain = load(tmp_path, GRID)
    given = load(tmp_path, GRID + "execution: {gradient_checkpointing: true, reference: offload}\n")
    assert (given.execution.gradient_checkpointing, given.execution.reference) == (True, "offload")
    assert load(tmp_path, GRID, "execution.micro_batch_tokens=512").execution.micro_batch_tokens == 512
    assert given.runs.keys() == plain.runs.keys()


def test_adapters_multiply_runs_only_where_they_are(tmp_path: Path) -> None:
    axes = "axes: {method: [base, sft], source: [counting], seed: [0], lora_rank: [0, 4], lora_alpha: [8, 16]}"
    sweep = load(tmp_path, axes + "\n")
    ranks = sorted((run.spec.method.type, run.spec.lora_rank, run.spec.lora_alpha) for run in sweep.runs.values())
    assert ranks == [("base", 0, 32.0), ("sft", 0, 32.0), ("sft", 4, 8.0), ("sft", 4, 16.0)]


def test_targets_and_evaluation_change_no_run(tmp_path: Path) -> None:
    ids = load(tmp_path, GRID).runs.keys()
    assert load(tmp_path, GRID, "targets=[relations]", "evaluation.every=5").runs.keys() == ids


AXES = "axes: {method: [sft, grpo], source: [counting]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AXES + "blok: []\n", "test.yaml:5: unknown key 'blok' in a sweep: did you mean 'blocks'?"),
        (AXES + "blocks:\n- where: {method: sft}\n  sett: {lr: 1}\n", "test.yaml:7: unknown key 'sett' in blocks"),
        (AXES + "blocks:\n- set: {lr: 1}\n", "test.yaml:6: a block has a `where`"),
        (AXES + "blocks:\n  where: {}\n", "test.yaml:5: blocks must be a list"),
        (
            AXES + "blocks:\n- where: {metod: sft}\n  set: {lr: 1}\n",
            "test.yaml:6: unknown setting 'metod': did you mean",
        ),
        (AXES + "blocks:\n- where: {method: sfft}\n  set: {lr: 1}\n", "test.yaml:6: unknown method 'sfft': did you"),
        (AXES + "blocks:\n- where: {seed: 4}\n  set: {lr: 1}\n", "test.yaml:6: this block selects no cell"),
        (
            AXES + "blocks:\n- where: {method: [base, sft]}\n  set:\n    lr: 1\n    format_weight: 1\n",
            "test.yaml:9: no cell with method 'base' or 'sft' can have method.format_weight 1",
        ),
        (
            AXES + "blocks:\n- where: {method: grpo}\n  axes:\n    schedule: [constant,\n      linear]\n",
            "test.yaml:9: no cell with method 'grpo' can have method.schedule 'linear'",
        ),
        (AXES + "blocks:\n- where: {method: grpo}\n  set: {beta_min: 0}\n", "test.yaml:7: no cell with method 'grpo'"),
        (
            AXES + "blocks:\n- where: {method: grpo}\n  set:\n    lr: -1\n",
            "test.yaml:8: method.lr must be greater than 0, not -1",
        ),
        (
            AXES + "evaluation:\n  num_exampels: 3\n",
            "test.yaml:6: unknown key 'num_exampels' in evaluation: did you mean",
        ),
        (
            AXES + "evaluation:\n  every: -1\n",
            "test.yaml:6: evaluation.every must be greater than or equal to 0, not -1",
        ),
        (AXES + "evaluation: 5\n", "test.yaml:5: evaluation must be a mapping"),
        (
            AXES + "evaluation:\n  num_examples: 2000000\n",
            "test.yaml:6: evaluation.num_examples must be less than or equal to 1000000, not 2000000",
        ),
        (AXES + "evaluation:\n  every: true\n", "test.yaml:6: evaluation.every must not be true"),
        (
            AXES + "execution:\n  sharding: fspd\n",
            "test.yaml:6: execution.sharding must be 'none' or 'fsdp', not 'fspd': did you mean 'fsdp'?",
        ),
        (AXES + "execution:\n  devices: 0\n", "test.yaml:6: execution.devices must be greater than or equal to 1"),
        (AXES + "description: [a]\n", "test.yaml:5: description must be text"),
        (AXES + "name: again\n", "test.yaml:5: 'name' is repeated; it stands in line 1 too"),
        (AXES + "description: a: b\n", "test.yaml:5: not YAML: mapping values are not allowed here"),
        (AXES + "description: *a\n", "test.yaml:5: not YAML: found undefined alias"),
        (AXES + "description: !!python/name:os.system\n", "test.yaml:5: not YAML: the tag !!python/name"),
        ("axes: {method: [sft], lrr: [1]}", "test.yaml:4: unknown setting 'lrr': did you mean 'lr'?"),
        ("axes: {method: [sft], method.lrr: [1]}", "unknown setting 'method.lrr': did you mean 'method.lr'?"),
        ("axes:\n  method: [sft]\n  seed: []\n", "test.yaml:6: the axis seed is empty"),
        ("axes:\n  method: [sft]\n  seed: 3\n", "test.yaml:6: the axis seed must be a list of values, not 3"),
        ("axes:\n  method: [sft]\n  seed: {a: 3}\n", "test.yaml:6: the axis seed must be a list of values, not a map"),
        ("axes:\n  method: [sft]\n  seed: [0,\n  0]\n", "test.yaml:7: the axis seed lists 0 twice"),
        ("axes:\n  method: [sft]\n  lr: [1]\n  method.lr: [2]\n", "test.yaml:7: method.lr is set twice here"),
        ("axes: [method]", "test.yaml:4: axes must be a mapping of settings"),
        ("axes:\n  method:\n  - sft\n  - grop\n", "test.yaml:7: unknown method 'grop': did you mean 'grpo'?"),
        ("axes: {method: [sft], source: [counts]}", "test.yaml:4: unknown task 'counts': did you mean 'counting'?"),
        (
            "axes: {method: [grpo_d], schedule: [otink]}",
            "test.yaml:4: unknown schedule 'otink': did you mean 'othink'?",
        ),
        (
            "axes:\n  method: [sft]\n  source: [counting]\n  seed:\n  - 0\n  - 1.5\n",
            "test.yaml:9: seed must be a valid",
        ),
        ("axes: {method: [sft], seed: [true]}", "test.yaml:4: seed must not be true"),
        ("axes: {method: [sft], seed: [null]}", "test.yaml:4: seed has no value"),
        ("axes: {method: [sft], seed: [[0, 1]]}", "test.yaml:4: seed takes one value here, not a list"),
        ("axes: {method: [sft], lr: [{a: 1}]}", "test.yaml:4: method.lr takes one value, not a mapping"),
        (
            "axes: {source: [counting], method: [sft],\n  lr_schedule: [cosin]}",
            "test.yaml:5: method.lr_schedule must be 'constant', 'linear' or 'cosine', not 'cosin': did you mean 'cos",
        ),
        (
            "axes:\n  source: [counting]\n  method: [grpo_d]\n  beta_min:\n  - 0\n  - 0.5\n",
            "test.yaml:9: beta_min 0.5 is above beta_max 0.1",
        ),
        (
            "axes:\n  source: [counting]\n  method:\n  - {type: sft, group_size: 4}\n",
            "test.yaml:7: method 'sft' has no setting 'group_size'",
        ),
        ("axes: {source: [counting]}", "test.yaml:1: the sweep has no method"),
        ("axes: {method: [sft, grpo]}", "test.yaml:4: method 'sft' trains, so it needs a source"),
        ("axes: {method: [sft], source: [counting], num_train: [0]}", "test.yaml:4: num_train must be at least 1"),
        (f"axes: {{seed: {list(range(1000))}, num_train: {list(range(1000))}}}", "is the most that a sweep may have"),
        ("\x00", "test.yaml:4: not YAML: the character U+0000"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes: {method: [base]}\ntargets: [counting]", "bad.yaml:1: the sweep has no 'name'"),
        ("name: a\ntargets: [counting]", "bad.yaml:1: the sweep has no 'axes'"),
        ("name: a\naxes: {method: [base]}", "bad.yaml:1: the sweep has no 'targets'"),
        ("", "bad.yaml: the sweep has no 'name'"),
        ("- a", "bad.yaml:1: a sweep must be a mapping with the keys name, "),
        ("name: a/b\naxes: {method: [base]}\ntargets: [counting]", "bad.yaml:1: name must be a word"),
        ("name: 5\naxes: {method: [base]}\ntargets: [counting]", "bad.yaml:1: name must be a word"),
        ("name: a\naxes: {method: [base]}\ntargets: counting", "bad.yaml:3: targets must be a list"),
        ("name: a\naxes: {method: [base]}\ntargets: []", "bad.yaml:3: targets is empty"),
        (
            "name: a\naxes: {method: [base]}\ntargets: [counting,\n counting]",
            "bad.yaml:4: targets lists 'counting' twice",
        ),
        (
            "name: a\naxes: {method: [base]}\ntargets: [chart]",
            "unknown task 'chart' in targets: did you mean 'charts'?",
        ),
        ("name: a\naxes: {method: [base]}\nbase: [1]\ntargets: [charts]", "bad.yaml:3: base must be a mapping of sett"),
        (
            "name: a\naxes: {}\nbase: {seed: [1]}\ntargets: [charts]",
            "bad.yaml:3: seed takes one value here, not a list",
        ),
        ("name: &x [*x]", "bad.yaml:1: a value contains itself"),
    ],
)
def test_what_a_file_needs(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_sweep(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("lr", "--set lr: write KEY=VALUE"),
        ("=3", "--set =3: write KEY=VALUE"),
        ("lrr=3", "--set lrr=3: unknown setting 'lrr': did you mean 'lr'?"),
        ("lr=", "--set lr=: method.lr has no value"),
        ("lr=[1", "--set lr=[1: not YAML: "),
        ("lr=-1", "--set lr=-1: method.lr must be greater than 0, not -1"),
        ("lr=[1, -1]", "--set lr=[1, -1]: method.lr must be greater than 0, not -1"),
        ("seed=[]", "--set seed=[]: the axis seed is empty"),
        ("method=grop", "--set method=grop: unknown method 'grop': did you mean 'grpo'?"),
        ("target=[counting]", "--set target=[counting]: method.target must be"),
        ("targets=[count]", "--set targets=[count]: unknown task 'count' in targets: did you mean 'counting'?"),
        ("num_examples=9", "unknown setting 'num_examples': did you mean 'evaluation.num_examples'?"),
        ("evaluation.num_examples=0", "evaluation.num_examples must be greater than or equal to 1, not 0"),
        ("schedule={type: linear, beta: 1}", "method.schedule 'linear' has no setting 'beta'"),
        ("axes=[1]", "--set axes=[1]: unknown setting 'axes'"),
    ],
)
def test_a_mistaken_option_is_told_as_typed(tmp_path: Path, option: str, said: str) -> None:
    assert said in refused(tmp_path, GRID, option)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(SpecError, match=r"quickstrat\.yaml: there is no such file: did you mean '.*/quickstart\.yaml'"):
        load_sweep(tmp_path / "quickstrat.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load_sweep(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match="not UTF-8 text: byte 6"):
        load_sweep(tmp_path / "a.yaml")


def test_ten_thousand_cells_expand_quickly(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(1000)))
    text = f"axes: {{method: [grpo_d], source: [counting, geometry], seed: [{seeds}], format_weight: [0, 1, 2, 3, 4]}}"
    started = time.process_time()
    sweep = load(tmp_path, text)
    assert len(sweep.runs) == 10_000
    assert time.process_time() - started < 3.0


def test_cells_that_differ_in_their_seed_are_what_each_would_be_alone(tmp_path: Path) -> None:
    blocks = "blocks:\n  - where: {method: grpo, seed: [1, 2]}\n    set: {beta: 0.5}\n"
    blocks += "  - where: {method: sft}\n    ablate: {lr: [1e-3, 1e-4]}\n"
    sweep = load(tmp_path, GRID.replace("[0, 1, 2]", "[0, 1, 2, 2147483647]") + blocks)
    assert len({(cell.run_id, cell.ablation) for cell in sweep.cells}) == len(sweep.cells) == 1 + 3 * 8 + 2 * 8
    for cell in sweep.cells:
        alone = RunSpec.model_validate(cell.spec.model_dump(mode="json"))
        assert (alone, alone.run_id) == (cell.spec, cell.run_id)
        beta = 0.5 if alone.seed in (1, 2) else 0.04 if alone.source == "counting" else 0.01
        assert not isinstance(alone.method, Grpo) or alone.method.schedule.beta == beta
        assert cell.settings.get("seed", 0) == alone.seed
    with pytest.raises(SpecError, match=r"test.yaml:\d+: seed must be less than 2147483648, not 2147483648"):
        load(tmp_path, GRID.replace("[0, 1, 2]", "[0, 2147483648]"))
    with pytest.raises(SpecError, match=r"seed must be greater than or equal to 0, not -1"):
        load(tmp_path, GRID.replace("[0, 1, 2]", "[0, -1]"))
