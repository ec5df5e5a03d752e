from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.record.atomic import write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.record.studies import default_storage, study_name
from harness.report.claims import judge_claims
from harness.report.export import export_sweep, restore
from harness.report.figures.data import read_sweep_data
from harness.report.html.charts import curve_chart, schedule_chart
from harness.report.html.completions import read_collections
from harness.report.html.contents import gather
from harness.report.html.forest import forest
from harness.report.html.page import ASSETS, render_page
from harness.report.html.pictures import Pictures
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep, load_sweep
from harness.tasks.base import load_task


class Reader(HTMLParser):
    """The tags, the addresses and the text of scripts in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        about = dict(attrs)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]
        if about.get("http-equiv") == "Content-Security-Policy":
            self.policy = about["content"] or ""
        if tag == "script":
            self.scripts.append((about, ""))

    def handle_data(self, data: str) -> None:
        if self.scripts and self.cdata_elem == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def script(self, name: str | None) -> str:
        [text] = [text for about, text in self.scripts if about.get("id") == name]
        return text


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def text(results: Path, sweep: Sweep) -> str:
    return render_page(gather(results, sweep, num_examples=200))


def test_a_page_names_no_place_but_itself_and_lets_no_other_script_run(text: str) -> None:
    reader = Reader(text)
    assert all(address.startswith(("data:", "#")) for address in reader.addresses), reader.addresses
    digest = base64.b64encode(hashlib.sha256(reader.script(None).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in reader.policy and "default-src 'none';" in reader.policy
    assert "unsafe-eval" not in reader.policy and len(reader.scripts) == reader.tags.count("script")
    assert (ASSETS / "uplot" / "LICENSE").read_text() in reader.script(None)


def test_what_is_written_by_others_is_text(text: str) -> None:
    reader = Reader(text)
    assert "Is &lt;b&gt;grpo&lt;/b&gt; better than sft?" in text and "GRPO beats &lt;i&gt;SFT&lt;/i&gt;" in text
    assert not {"b", "i"} & set(reader.tags) and "owned" not in text


def test_a_page_answers_with_verdicts_and_names_no_machine(text: str) -> None:
    assert re.search(r">1 supported</span>.*>1 contradicted</span>", text)
    assert "7 of 7 runs are completed; their workers took 49 s in all." in text
    assert "secrethost" not in text and "c0ffee with uncommitted changes" in text


def test_the_same_run_folders_give_the_same_page(text: str, results: Path, sweep: Sweep) -> None:
    assert render_page(gather(results, sweep, num_examples=200)) == text


def test_collections_hold_every_completion_as_it_was_written(text: str, results: Path, sweep: Sweep) -> None:
    reader = Reader(text)
    index = json.loads(reader.script("index"))
    assert [one["key"] for one in index["collections"]] == ["test:counting", "validation:counting", "rollouts:counting"]
    packed = unpacked(reader.script("rows:test:counting"))
    written = {}
    for run in sweep.runs:
        for line in RunFolder(results, run).evaluation("counting").read_text().splitlines():
            row = json.loads(line)
            rewards = (int(row["correct"]), int(row["format"]), None, row["accuracy_reward"], None)
            written[run, row["id"]] = (row["completion"], row["extracted"], *rewards)
    columns = ("run", "example", "text", "extracted", "right", "format", "reward", "accuracy", "advantage")
    texts = packed["texts"]
    held = {
        (index["runs"][run]["id"], packed["examples"][example]["id"]): (texts[said], texts[found], *rest)
        for run, example, said, found, *rest in zip(*(packed[name] for name in columns), strict=True)
    }
    assert held == written and len(held) == 28
    samples = unpacked(reader.script("rows:rollouts:counting"))
    assert sorted(set(samples["step"])) == [0, 3] and set(samples["reward"]) == {1.5} and len(samples["run"]) == 24
    during = unpacked(reader.script("rows:validation:counting"))
    assert sorted(set(during["step"])) == [2, 4], "steps done, not the index of the last one"


def test_pictures_are_those_of_the_task_to_the_pixel_each_once(text: str) -> None:
    reader = Reader(text)
    [page] = [unpacked(script) for about, script in reader.scripts if about.get("id") == "pictures:test:counting:0"]
    assert len(page) == 4
    for at, picture in enumerate(page):
        shown = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        assert np.array_equal(np.asarray(shown), np.asarray(load_task("counting").example("test", at).image))


def test_an_example_that_changed_since_has_no_picture_and_says_so() -> None:
    pictures = Pictures({})
    asked = load_task("counting").example("test", 0).question
    assert pictures.find("counting/test/0", asked)[1] is not None
    assert pictures.find("counting/test/0", "What else?") == (
        None,
        None,
        "The example has changed since it was answered.",
    )
    assert "there is no number 9999" in (pictures.find("counting/test/9999", None)[2] or "")
    assert "room for pictures is used up" in (Pictures({}, max_bytes=10).find("counting/test/0", asked)[2] or "")
    assert pictures.find("anything", None)[2] == "The row does not name its example."


def test_only_the_first_examples_are_shown_where_asked(results: Path, sweep: Sweep) -> None:
    data = read_sweep_data(results, sweep)
    tests, during, samples = read_collections(results, data, Pictures({}), num_examples=1)
    assert (tests.num_rows, tests.num_examples, tests.note) == (7, 1, "The first 1 examples are shown.")
    assert (during.num_rows, samples.num_rows, samples.note) == (12, 24, "")


def test_charts_show_the_numbers_of_the_figures_and_each_seed(results: Path, sweep: Sweep) -> None:
    data = read_sweep_data(results, sweep)
    chart = curve_chart(data)
    assert chart is not None
    lengths = {(line["label"], line["seed"]): line["values"] for line in chart["lines"] if line["panel"] == "length"}
    assert lengths == {(name, seed): [0, 0.5, 1, 1.5] for name in ("sft", "grpo") for seed in (None, 0, 1, 2)}
    schedules = schedule_chart(data)
    assert schedules is not None
    [line] = schedules["lines"]
    assert (line["label"], line["values"]) == ("grpo: constant (beta=0.04)", [0.04] * 4)


def test_a_difference_stands_where_its_axis_says(results: Path, sweep: Sweep) -> None:
    drawn = forest(judge_claims(results, sweep))
    # GRPO has three of four examples and SFT none: 75 points, on an axis that ends at the interval's end or beyond.
    [over], [under] = drawn.marks
    assert over.text == "+75.0 points" and under.text == "-75.0 points"
    assert over.at == pytest.approx(50 + 50 * 75 / drawn.limit, abs=0.01) and over.at + under.at == pytest.approx(100)
    assert over.high is not None and over.high <= 100


def test_a_restored_export_shows_verdicts_and_says_that_texts_are_missing(
    results: Path, sweep: Sweep, tmp_path: Path
) -> None:
    export_sweep(results, sweep, tmp_path / "out")
    restore(tmp_path / "out", tmp_path / "again")
    data = read_sweep_data(tmp_path / "again", sweep)
    [tests] = read_collections(tmp_path / "again", data, Pictures({}), num_examples=200)
    packed = unpacked(tests.packed)
    assert (tests.num_rows, tests.num_texts, packed["texts"]) == (28, 0, [])
    assert packed["right"] == [verdict for method in ("base", *["sft"] * 3, *["grpo"] * 3) for verdict in RIGHT[method]]
    assert packed["examples"][0]["question"] == load_task("counting").example("test", 0).question


RIGHT = {"base": (1, 0, 0, 0), "sft": (0, 0, 0, 0), "grpo": (1, 1, 1, 0)}


def test_a_sweep_without_runs_is_a_report_of_what_is_missing(sweep: Sweep, tmp_path: Path) -> None:
    run_id = next(iter(sweep.runs))
    write_json(RunFolder(tmp_path, run_id).state_json, {"status": "failed", "error": "no <room>"})
    text = render_page(gather(tmp_path, sweep, num_examples=200))
    assert "7 of 7 runs are missing" in text and "2 missing</span>" in text
    assert "no &lt;room&gt;" in text and text.count("not started") == 6


@pytest.mark.parametrize(
    ("head", "body", "says"),
    [
        (
            "# Written by `harness tune x.yaml` at commit c0ffee.\n",
            "",
            "it tests them on fresh seeds and test examples",
        ),
        ("", "study: {space: {lr: [1e-4, 1e-3]}, sampler: grid, objectives: [same_task]}\n", "This sweep is a search:"),
    ],
)
def test_a_report_says_how_settings_were_chosen(head: str, body: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "searched.yaml"
    axes = "axes: {method: [sft], source: [counting], seed: [7]}\ntargets: [counting]\n"
    file.write_text(f"{head}name: searched\ndescription: Which rate?\n{axes}{body}")
    text = render_page(gather(tmp_path, load_sweep(file), num_examples=200))
    assert says in text and "fresh seeds" in text and "validation examples" in text


def test_a_search_shows_its_winner_and_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "searched.yaml"
    space = "{lr: {low: 1.0e-5, high: 1.0e-3, log: true}, beta: {low: 0.0, high: 0.2}}"
    file.write_text(
        "name: searched\ndescription: Which rate?\naxes: {method: [grpo], source: [counting], seed: [7]}\n"
        f"study: {{space: {space}, num_trials: 12, objectives: [same_task, cross_task]}}\n"
        "targets: [counting, geometry]\nevaluation: {splits: [validation], num_validation: 2}\n"
    )
    sweep = load_sweep(file)
    study = optuna.create_study(
        study_name=study_name(sweep, {}), storage=default_storage(tmp_path, sweep), directions=["maximize"] * 2
    )
    for at in range(12):
        point = {"method.lr": 1e-5 * 1.5**at, "method.schedule.beta": 0.01 * at}
        rate = FloatDistribution(1e-5, 1e-3, log=True)
        distributions = {"method.lr": rate, "method.schedule.beta": FloatDistribution(0.0, 0.2)}
        [cell] = sweep.trial({}, point)
        _write_validation(RunFolder(tmp_path, cell.run_id), cell.spec, sweep.targets)
        values, ids = [at / 20, 0.6 - at / 20], {"run_ids": [cell.run_id]}
        study.add_trial(create_trial(params=point, distributions=distributions, values=values, user_attrs=ids))
    contents = gather(tmp_path, sweep, num_examples=200)
    drawn = [figure.name for figure in contents.study_figures]
    assert drawn == ["study_slices", "study_importances", "study_parallel", "study_front"]
    assert "trial 11: lr 0.000864976, schedule.beta 0.11" in contents.winners[0]
    assert contents.winners[0] in render_page(contents)


def _write_validation(folder: RunFolder, spec: RunSpec, targets: Iterable[str]) -> None:
    counted = {"num_examples": 2, "num_correct": 1, "accuracy": 0.5, "format": 1.0, "protocol": "r1v_counting"}
    for target in targets:
        rows = [{"index": at, "correct": at == 0, "format": 1.0} for at in range(2)]
        write_jsonl(folder.evaluation(target, "validation"), rows)
    write_json(folder.run_json, {"spec": spec.model_dump(mode="json")})
    write_json(folder.summary, {"evaluations": {}, "validations": dict.fromkeys(targets, counted)})


def test_the_verb_writes_the_file_and_names_missing_runs(results: Path, sweep: Sweep, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    done = CliRunner().invoke(app, ["report", str(sweep.path), "--results", str(results), "--out", str(out)])
    assert (done.exit_code, done.output.split()[0]) == (0, str(out)) and out.stat().st_size < 1_000_000
    lacking = CliRunner().invoke(app, ["report", str(sweep.path), "--results", str(tmp_path), "--set", "seed=[0]"])
    assert lacking.exit_code == 3 and "3 runs missing" in lacking.output
    assert (tmp_path / "reports" / "small.html").is_file()
