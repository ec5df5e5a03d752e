"""What lies in a run folder is data: no pickle, no model code, no template and no tag in it is ever carried out."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded_run import record
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.record import RunFolder, write_sweep_record
from harness.record.atomic import file_digest, read_json, read_jsonl, write_json, write_jsonl
from harness.spec import Job
from harness.spec.run import embedded_folder
from harness.spec.sweep import load_sweep

PACKAGE = Path(harness.__file__).parent

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_ATTRIBUTES = {
    ("torch", "load"), ("yaml", "load"), ("yaml", "load_all"), ("yaml", "full_load"), ("yaml", "unsafe_load"),
    ("yaml", "Loader"), ("yaml", "FullLoader"), ("yaml", "UnsafeLoader"), ("yaml", "CLoader"), ("os", "system"),
    ("os", "popen"),
}  # fmt: skip
UNSAFE_VALUES = {
    "trust_remote_code": True,
    "allow_pickle": True,
    "shell": True,
    "weights_only": False,
    "use_safetensors": False,
}


def unsafe(source: str) -> list[str]:
    """What a module's source could carry out of the data that it reads, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases if alias.name.partition(".")[0] in UNSAFE_MODULES]
            case ast.ImportFrom(module=str(module), names=aliases):
                names = [module] if module.partition(".")[0] in UNSAFE_MODULES else []
                names += [f"{module}.{one.name}" for one in aliases if (module, one.name) in UNSAFE_ATTRIBUTES]
            case ast.Name(id=name) if name in UNSAFE_NAMES:
                names = [name]
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in UNSAFE_ATTRIBUTES:
                names = [f"{module}.{name}"]
            case ast.keyword(arg=str(name), value=value) if name in UNSAFE_VALUES:
                is_safe = isinstance(value, ast.Constant) and value.value is not UNSAFE_VALUES[name]
                names = [] if is_safe else [f"{name}={ast.unparse(value)}"]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="from_pretrained"), keywords=keywords):
                is_told = not name.startswith("Auto") or any(one.arg == "trust_remote_code" for one in keywords)
                names = [] if is_told else [f"{name}.from_pretrained without a word on code"]
            case _:
                pass
        found += [f"{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import pickle as p", "from pickle import loads", "import joblib.numpy_pickle",
        "from torch import load",
        "torch.load(path)", "torch.load(path, weights_only=True)", "yaml.load(text)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "from yaml import unsafe_load", "eval(text)", "exec(text)", "run = eval", "np.load(path, allow_pickle=True)",
        "f(trust_remote_code=True)", "f(trust_remote_code=wanted)", "AutoConfig.from_pretrained(path)",
        "subprocess.run(text, shell=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(unsafe(source)) >= 1


@pytest.mark.parametrize(
    "source",
    ["re.compile(text)", "model.eval()", "yaml.safe_load(text)", "json.load(file)",
    "np.load(path, allow_pickle=False)", "import json"],
)  # fmt: skip
def test_the_search_passes_what_is_harmless(source: str) -> None:
    assert unsafe(source) == []


def test_the_package_has_no_way_to_carry_data_out() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert [f"{file.relative_to(PACKAGE)}:{line}" for file in files for line in unsafe(file.read_text())] == []


class _Touching:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return open, (self.canary, "w")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is made when something is carried out; it must not be there in the end."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def pickled(canary: Path) -> bytes:
    """A pickle that makes a file."""
    return pickle.dumps(_Touching(canary), protocol=0)


def code(canary: Path) -> str:
    """A module that makes a file when it is imported."""
    return f"open({str(canary)!r}, 'w').close()\n"


def test_the_planted_pickle_and_code_would_work(tmp_path: Path) -> None:
    for number, carry_out in enumerate((lambda path: pickle.loads(pickled(path)), lambda path: exec(code(path)))):
        with contextlib.suppress(AttributeError), contextlib.closing(carry_out(tmp_path / str(number))):
            pass
        assert (tmp_path / str(number)).exists()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model folder as a run keeps it."""
    folder = tmp_path / "weights"
    shutil.copytree(embedded_folder(), folder)
    return folder


def changed(path: Path, **entries: Any) -> None:
    """Some entries of a JSON file replaced."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def pickle_for_weights(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))


def pickle_under_the_right_name(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickled(canary))


def code_beside(folder: Path, canary: Path) -> None:
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil", "processing_evil"):
        (folder / f"{name}.py").write_text(code(canary))
    auto = {"AutoConfig": "configuration_evil.C", "AutoModelForImageTextToText": "modeling_evil.M"}
    changed(folder / "config.json", auto_map=auto)
    changed(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.T", None]})
    processors = {"AutoImageProcessor": "processing_evil.I", "AutoProcessor": "processing_evil.P"}
    changed(folder / "preprocessor_config.json", auto_map=processors)


def code_for_a_model_of_its_own(folder: Path, canary: Path) -> None:
    code_beside(folder, canary)
    changed(folder / "config.json", model_type="evil", architectures=["EvilModel"])
    changed(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer")


def adapter(folder: Path, canary: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": "embedded"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.bin").write_bytes(pickled(canary))


def template(payload: str) -> Callable[[Path, Path], None]:
    def plant(folder: Path, canary: Path) -> None:
        (folder / "chat_template.jinja").write_text(payload.replace("CANARY", str(canary)))

    return plant


TEMPLATES = [
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{{ c('CANARY', 'w') }}{% endfor %}",
    "{{ raise_exception.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ strftime_now.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{% include 'CANARY' %}{% import 'os' as os %}{{ os.system('touch CANARY') }}",
]  # fmt: skip


@pytest.mark.parametrize(
    "plant",
    [
        pickle_for_weights, pickle_under_the_right_name, code_beside, code_for_a_model_of_its_own, adapter,
        *map(template, TEMPLATES),
    ],
)  # fmt: skip
def test_a_model_folder_is_never_carried_out(
    weights: Path, canary: Path, plant: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from harness.policy import load_policy

    plant(weights, canary)
    monkeypatch.setattr(builtins, "input", lambda *_: "yes")  # somebody who agrees to everything
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused = False
    try:
        policy = load_policy(str(weights), torch.device("cpu"))
        policy.tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except Exception:
        refused = True
    assert refused is (plant is not code_beside)  # a known model needs no code of its own, and is read without


SWEEP = """\
name: small
base: {source: counting, num_steps: 1, prompts_per_step: 2, num_train: 2}
axes: {method: [sft], seed: [0, 1]}
targets: [counting, geometry]
evaluation: {num_examples: 4}
execution: {device: cpu}
"""


def recorded(job: Job, says: str = "3") -> RunFolder:
    """A completed run whose rows have all that a worker writes."""
    record(job, 0, 1)
    folder = RunFolder(job.results, job.spec.run_id)
    write_json(folder.run_json, read_json(folder.run_json) | {"resolved": {"device": "cpu", "num_threads": 1}})
    more = {"question": says, "completion": says, "solution": says, "accuracy": 0.0, "format": 1.0, "num_tokens": 2}
    write_jsonl(folder.completions, [{**row, **more} for row in read_jsonl(folder.completions)])
    summary = read_json(folder.summary)
    for target, path in folder.evaluations().items():
        rows = [{**row, **more, "index": n, "extracted": says} for n, row in enumerate(read_jsonl(path))]
        write_jsonl(path, rows)
        noted = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        summary["files"][f"eval/{target}.jsonl"] = noted
    write_json(folder.summary, summary)
    return folder


def payloads(canary: Path) -> dict[str, bytes]:
    """What a reader might carry out."""
    return {
        "pickle": pickled(canary),
        "tag": f"!!python/object/apply:builtins.open [{canary}, w]\n".encode(),
        "code": code(canary).encode(),
        "object": json.dumps({"__class__": "os.system",
        "py/reduce": [{"py/function": "os.system"}, f"touch {canary}"]}).encode(),
        "template": json.dumps({"error": TEMPLATES[0].replace("CANARY", str(canary))}).encode(),
    }  # fmt: skip


FILES = [
    "state.json", "run.json", "summary.json", "metrics.jsonl", "completions.jsonl", "validations.jsonl",
    "eval/counting.jsonl",
    "marks.json", "launches.json", "wandb.json", "job.json", "log.txt",
]  # fmt: skip


def test_readers_of_a_run_folder_carry_nothing_out(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in a run's files, a verb shows it, passes it over or refuses it in one line."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    file, results = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(SWEEP)
    sweep = load_sweep(file)
    write_sweep_record(results, sweep)
    first = next(iter(sweep.runs.values()))
    folder = recorded(Job(spec=first.spec, targets=first.targets, results=str(results), sweep="small", wandb=False))
    contents = list(payloads(canary).values())
    before = {name: (folder.path / name).read_bytes() for name in FILES if (folder.path / name).exists()}
    # Each file with one of the contents in turn, then all files with each content.
    plans = [{name: contents[number % len(contents)]} for number, name in enumerate(FILES)]
    plans += [dict.fromkeys(FILES, content) for content in contents]
    for planted in plans:
        for name in FILES:
            content = planted.get(name, before.get(name))
            if content is not None:
                (folder.path / name).write_bytes(content)
        for verb in (["status"], ["tables", "small"], ["show", first.run_id]):
            done = CliRunner().invoke(app, [*verb, "--results", str(results)])
            assert verb[0] == "show" or done.exit_code in (0, 2, 3), (planted, verb, done.exception, done.output)
        assert not canary.exists(), planted


def test_a_report_shows_markup_as_text(tmp_path: Path, canary: Path) -> None:
    evil = "</script><script>document.title='canary'</script><img src=x onerror=alert(1)>"
    file, results = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(SWEEP + f"description: {json.dumps(evil)}\n")
    sweep = load_sweep(file)
    write_sweep_record(results, sweep)
    first = next(iter(sweep.runs.values()))
    folder = recorded(
        Job(spec=first.spec, targets=first.targets, results=str(results), sweep=evil, wandb=False), says=evil
    )
    attempts = [{**one, "device": evil, "host": evil} for one in read_json(folder.run_json)["attempts"]]
    about = {"resolved": {"device": evil, "num_threads": 1}, "attempts": attempts}
    write_json(folder.run_json, read_json(folder.run_json) | about)
    done = CliRunner().invoke(app, ["report", str(file), "--results", str(results)])
    assert done.exit_code in (0, 3), done.output
    page = (results / "reports" / "small.html").read_text()
    assert "<img src=x" not in page and "<script>document.title=" not in page
    assert "&lt;img src=x" in page  # it is shown, as text


@pytest.mark.slow
def test_a_worker_carries_nothing_of_its_run_folder_out(tmp_path: Path, canary: Path) -> None:
    """One run finds trained weights with code and a pickle beside them, the other a checkpoint of pickles."""
    file, results = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(SWEEP)
    trained, begun = (RunFolder(results, run_id) for run_id in load_sweep(file).runs)
    shutil.copytree(embedded_folder(), trained.weights)
    code_beside(trained.weights, canary)
    (trained.weights / "pytorch_model.bin").write_bytes(pickled(canary))
    begun.checkpoint.mkdir(parents=True)
    for name in ("checkpoint.safetensors", "checkpoint.pt", "optimizer.pt", "rng_state.pth", "training_args.bin"):
        (begun.checkpoint / name).write_bytes(pickled(canary))
    for folder in (trained, begun):
        for name in ("sitecustomize.py", "usercustomize.py", "torch.py", "conftest.py"):
            (folder.path / name).write_text(code(canary))
        (folder.path / "metrics.jsonl").write_bytes(pickled(canary))
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        str(file),
        "--results",
        str(results),
        "--no-wandb",
        "--slots",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=500)
    told = [folder.log.read_text() for folder in (trained, begun) if folder.log.exists()]
    assert done.returncode in (0, 3), (done.stderr, told)
    assert begun.summary.exists(), (done.stderr, told)  # what could not be trusted was set aside and made again
    assert "Traceback" not in done.stderr
