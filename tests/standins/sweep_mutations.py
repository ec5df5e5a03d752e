"""What a sweep file may look like after any accident or attack: seeded mutations of files, their parts and text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Written:
    """A piece of YAML, to be written as it stands."""

    text: str


Pairs = list[tuple[Any, Any]]
"""A mapping whose keys may be repeated; told from a list by :class:`Mapped`."""


class Mapped(Pairs):
    """The entries of a mapping in order."""


WORDS = [
    "", " ", "a", "b" * 3000, "counting", "grpo_d", "same_task", "null", "~", "../../etc/passwd", "/etc/passwd", "/",
    ".", "..", "~nobody_of_that_name/x", "a\nb: c", "a\x00b", "\x1b[31mred", "\u202egnitnuoc", "x" * 300 + ".jsonl",
    "émoji 🦆🦆", "日本語", "-rf", "--help", "<class 'str'>", "{{ 7 * 7 }}", "%s%n",
    "no_rows.jsonl", "rows.jsonl",
    "task.yaml",
    "C:\\Windows", "sqlite:///x.db", "seed", "method.schedule.type", "method.method", ".lr", "lr.", "lr.type",
    "schedule.type",
]  # fmt: skip
NUMBERS = [0, -1, 1, 2, 3, 7, 0.5, -0.0, 1e-300, 1e300, 1e9, 2**31, 2**63, -(2**70), 10**18, 10**400, 1e-9, 99]
PIECES = [
    ".nan", ".inf", "-.inf", "1e999", "-1e999", "9" * 5000, "0x1f", "0o17", "1_000", "1__0", "_1", "1:30", "2024-01-01",
    "null", "~", "true", "no", "on", "[]", "{}", "[[]]", "[{}]", "{a: {b: {c: {d: 1}}}}", "!!int abc", "!!float x",
    "!!bool maybe",
    "!!null x", "!!timestamp soon", "!!timestamp 2024-01-01", "!!binary aGVsbG8=", "!!binary '*'", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!str 5", "!!str [1]", "!!seq 3", "!!map [1]", "!local 3", "!<tag:x> 3", "!",
    "!!python/object/apply:os.system ['touch canary']", "!!python/name:os.system ''", "!!python/tuple [1, 2]",
    "!!python/object/new:os.popen ['touch canary']", "!!python/module:os ''", "&a [*a]", "&a {b: *a}", "*nowhere",
    "[1, 2",
    "{a: 1", "'",
    '"', '"\\x"', '"a\\nb\\tc"', '"\\0"', '"\\uD800"', "|\n  text\n  more", ">-\n folded", "? a", "- a", "@x",
    "`x`", "%x", "a: b: c",
    "<<", "=", "'''", "\ufeff", "\x85", "\u2028",
]  # fmt: skip
FRAGMENTS = [
    b"\t", b"\r", b"\r\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"---\n", b"...\n", b"%YAML 1.1\n---\n",
    b"%TAG ! x\n",
    b"<<: *a\n", b"&a ", b"*a ", b": ", b"- ", b"? ", b"# ", b"[", b"]", b"{", b"}", b",", b"'",
    b'"', b"|\n", b">\n", b"!!", b"!!int ",
    b"!!python/object/apply:os.system [touch canary]", b"\n\n\n", b"  ", b"\xf0\x9f\xa6\x86", b"\x1b[2J", b"\x7f",
    b"name: x\n",
]  # fmt: skip


def mutants(texts: Mapping[str, str], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Mutated sweep files.

    Args:
        texts: Sweep files by name.
        count: How many to make.
        seed: Of everything random.

    Yields:
        What was done, and the file's bytes.
    """
    trees = {name: _tree(yaml.safe_load(text)) for name, text in texts.items()}
    kinds: list[Callable[[random.Random], tuple[str, bytes]]] = [
        *[lambda rng: _mutated_tree(rng, trees)] * 22,
        *[lambda rng: _mutated_text(rng, texts)] * 16,
        _monster,
    ]
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        what, content = rng.choice(kinds)(rng)
        yield f"{number}: {what}", content


def mutated_options(count: int, seed: int) -> Iterator[list[str]]:
    """The values of one or more `--set` options, each wrong in some way or right by chance."""
    keys = [
        "name", "description", "targets", "evaluation.num_examples", "evaluation.splits", "execution.device", "lr",
        "seed", "beta",
        "method", "method.type", "schedule", "source", "model", "group_size", "num_train", "clip_epsilon",
        "format_weight", "claims",
        "study", "base", "axes.seed", "precision", "lora_rank", "executor.type", "executor.slots",
        "executor.partition", "evaluation", "execution.devices",
    ]  # fmt: skip
    for number in range(count):
        rng = random.Random(f"options-{seed}-{number}")
        options = []
        for _ in range(rng.choice((1, 1, 2))):
            key = rng.choice((rng.choice(keys), rng.choice(keys), _typo(rng, rng.choice(keys)), rng.choice(WORDS)))
            value = rng.choice((rng.choice(PIECES), _emitted(_nasty(rng)), f"[{_emitted(_nasty(rng))}, 1]"))
            options.append(rng.choice(("{}={}", "{}={}", "{}={}", "{} = {}", "{}{}", "{}:{}")).format(key, value))
        yield options


def _drawn(rng: random.Random, files: Mapping[str, Any]) -> str:
    """A file's name; large ones, which take long to read and are alike within, more rarely."""
    return rng.choices(list(files), [1 / max(600, len(repr(content))) for content in files.values()])[0]


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Mapped((key, _tree(item)) for key, item in value.items())
    return [_tree(item) for item in value] if isinstance(value, list) else value


def _nasty(rng: random.Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind <= 3:
        return Written(rng.choice(PIECES))
    if kind == 4:
        return [_nasty(rng) for _ in range(rng.randrange(4))]
    return Mapped((rng.choice(WORDS), _nasty(rng)) for _ in range(rng.randrange(3)))


def _typo(rng: random.Random, word: str) -> str:
    at = rng.randrange(len(word) + 1)
    return rng.choice(
        (word[:at] + word[at + 1 :], word[:at] + rng.choice("a_.-Z é") + word[at:], word.upper(), word + word)
    )


def _spots(tree: Any) -> list[tuple[Any, int]]:
    """Every place that holds a value: its container and its position in it."""
    found = []
    for position, item in enumerate(tree if isinstance(tree, list) else ()):
        found += [(tree, position), *_spots(item[1] if isinstance(tree, Mapped) else item)]
    return found


def _mutated_tree(rng: random.Random, trees: Mapping[str, Any]) -> tuple[str, bytes]:
    name = _drawn(rng, trees)
    tree = _copy(trees[name])
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        spots = _spots(tree)
        if not spots:
            break
        container, position = rng.choice(spots)
        edit = rng.choice(_EDITS)
        edit(rng, container, position, trees)
        done.append(edit.__name__.strip("_"))
    lines = [f"{_key(key)}: {_emitted(value)}\n" for key, value in tree]
    return f"{name} {' '.join(done)}", "".join(lines).encode(errors="surrogatepass")


def _copy(tree: Any) -> Any:
    if isinstance(tree, Mapped):
        return Mapped((key, _copy(item)) for key, item in tree)
    return [_copy(item) for item in tree] if isinstance(tree, list) else tree


def _value(container: Any, position: int) -> Any:
    return container[position][1] if isinstance(container, Mapped) else container[position]


def _put(container: Any, position: int, value: Any) -> None:
    container[position] = (container[position][0], value) if isinstance(container, Mapped) else value


def _delete(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    del container[position]


def _duplicate(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    container.insert(rng.randrange(len(container) + 1), _copy([container[position]])[0])


def _rename(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    if isinstance(container, Mapped):
        key, value = container[position]
        other, _ = rng.choice(rng.choice(list(trees.values())))
        container[position] = (rng.choice((_typo(rng, str(key)), rng.choice(WORDS), other, _nasty(rng))), value)
    else:
        container[position] = Mapped([(rng.choice(WORDS), container[position])])


def _retype(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    _put(container, position, _nasty(rng))


def _splice(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    _put(container, position, _copy(_value(*rng.choice(_spots(rng.choice(list(trees.values())))))))


def _wrap(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    value = _value(container, position)
    _put(container, position, rng.choice(([value], [value, value], Mapped([(rng.choice(WORDS), value)]), [[[value]]])))


def _unwrap(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    value = _value(container, position)
    if isinstance(value, list) and value:
        _put(container, position, _value(value, rng.randrange(len(value))))


def _extend(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    value = _value(container, position)
    if isinstance(value, Mapped):
        value.append((rng.choice(WORDS), _nasty(rng)))
    elif isinstance(value, list):
        value += rng.choice(([_nasty(rng)], value[:1], list(range(rng.choice((3, 300))))))
    else:
        _put(container, position, [value, _nasty(rng)])


def _respell(rng: random.Random, container: Any, position: int, trees: Mapping[str, Any]) -> None:
    value = _value(container, position)
    if isinstance(value, (int, float)):
        value = rng.choice((-value, value * 10**9, value / 3, rng.choice(NUMBERS), str(value), [value]))
    elif isinstance(value, str):
        value = _typo(rng, value)
    _put(container, position, value)


_EDITS = (_delete, _duplicate, _rename, _retype, _retype, _splice, _wrap, _unwrap, _extend, _respell, _respell)


def _emitted(value: Any) -> str:
    """Flow-style YAML; keys of a mapping may be anything."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, Mapped):
        return "{" + ", ".join(f"{_key(key)}: {_emitted(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_emitted, value)) + "]"
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
    )


def _key(key: Any) -> str:
    return key if isinstance(key, str) and key.replace("_", "").isalnum() else _emitted(key)


def _mutated_text(rng: random.Random, texts: Mapping[str, str]) -> tuple[str, bytes]:
    name = _drawn(rng, texts)
    content = texts[name].encode()
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        edit = rng.choice(_TEXT_EDITS)
        content = edit(rng, content)
        done.append(edit.__name__.strip("_"))
    return f"{name} {' '.join(done)}", content


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(rng: random.Random, content: bytes) -> bytes:
    at = rng.choice((0, len(content), rng.randrange(len(content) + 1)))
    return content[:at] + rng.choice(FRAGMENTS) + content[at:]


def _lines(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
        case _:
            lines[first] = rng.choice((b" ", b"\t", b"    ")) + lines[first].lstrip()
    return b"".join(lines)


def _tokens(rng: random.Random, content: bytes) -> bytes:
    """One word or number replaced by a piece of YAML."""
    words = content.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(PIECES).encode(errors="surrogatepass")
    return b" ".join(words)


def _crlf(rng: random.Random, content: bytes) -> bytes:
    return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n")))


_TEXT_EDITS = (_cut, _flip, _flip, _insert, _insert, _lines, _lines, _tokens, _tokens, _crlf)


def _monster(rng: random.Random) -> tuple[str, bytes]:
    """A file that is small, and large in what it asks for."""
    head = "name: monster\ntargets: [counting]\n"
    size = rng.choice((5, 5, 40, 40, 300, 300, 3000))
    bombs = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, min(size, 40)))
    chain = "".join(f"c{n}: &c{n} [*c{n - 1}]\n" for n in range(1, size))
    axes = "".join(
        f"  {key}: {list(range(1, size + 1))}\n" for key in ("num_steps", "num_train", "seed", "prompts_per_step")
    )
    grid = f"{head}axes:\n  method: [sft]\n  source: [counting]\n{axes}"
    sampler = rng.choice(("grid", "tpe"))
    space = f"axes: {{method: [grpo], source: [counting]}}\nstudy:\n  sampler: {sampler}\n  num_trials: 3\n"
    ranges = [
        f"  space: {{group_size: {{low: 2, high: {10 ** min(size, 400)}}}}}\n",
        "  space: {lr: {low: 1e-9, high: 1, step: 1e-9}}\n",
        "  space: {lr: {low: -.inf, high: .inf}}\n",
        "  space: {lr: {low: .nan, high: 1}}\n",
        "  space: {lr: {low: 1e-300, high: 1e300, step: 1e-300}}\n",
        f"  space: {{lr: {{low: 0, high: 1, step: 1e-4}}, beta: {{low: 0, high: 1, step: 1e-4}}, "
        f"seed: {list(range(size))}}}\n",
    ]
    files = {
        "laughs": f"{head}b0: &b0 [x, x]\n{bombs}",
        "laughs_in_axes": f"{head}x: &b0 [1, 2]\n{bombs}axes: {{seed: *b9}}\n",
        "chain": f"{head}c0: &c0 [x]\n{chain}",
        "cycle": f"{head}axes: &a {{seed: *a}}\n",
        "cycle_in_list": f"{head}base: &a [1, {{b: [*a]}}]\n",
        "deep_list": head + "axes: " + "[" * size + "]" * size,
        "deep_open": head + "axes: " + rng.choice(("[", "{a: ", "- ", "? ")) * size,
        "deep_mapping": head + "axes: " + "{a: " * size + "1" + "}" * size,
        "deep_block": head + "base:\n" + "".join(" " * n + "a:\n" for n in range(1, min(size, 400))),
        "long_word": f"{head}axes: {{method: [{'x' * (size * 100)}]}}\n",
        "long_key": f"{head}{'k' * (size * 100)}: 1\n",
        "many_keys": head + "".join(f"k{n}: {n}\n" for n in range(size)),
        "grid": grid,
        "grid_twice": grid
        + f"blocks:\n  - where: {{method: sft}}\n    ablate: {{lr: {[n / 1e6 for n in range(1, size)]}}}\n",
        "study": head + space + rng.choice(ranges),
        "noise": "".join(map(chr, rng.choices(range(1, 255), k=size))),
        "nothing": rng.choice(
            ("", "\n", "# only a comment\n", "---\n", "--- a\n--- b\n", "null", "3", "[1]", "'x'", "...", "\ufeff")
        ),
    }
    name = rng.choice(list(files))
    return f"{name} of size {size}", files[name].encode(errors="surrogatepass")
