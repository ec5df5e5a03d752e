from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import UserError
from harness.report.html.pdf import BROWSER_VARIABLE
from harness.report.html.write import write_report
from harness.spec.sweep import Sweep

if TYPE_CHECKING:
    from conftest import Page


@pytest.fixture(scope="module")
def file(results: Path, sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [written] = write_report(results, sweep, tmp_path_factory.mktemp("page") / "report.html").files
    return written


@pytest.fixture
def opened(page: Page, file: Path) -> Page:
    """The report, just opened on a desk."""
    page.requests.clear()
    page.complaints.clear()
    page.look(1280, 900)
    page.open(file)
    return page


def browse(page: Page) -> None:
    page.run("document.getElementById('completions').scrollIntoView()")
    page.wait("document.querySelectorAll('#list li').length")


def choose(page: Page, name: str, value: str) -> str:
    """Sets a filter as a reader does, and returns what the page counts then."""
    kind = "input" if name == "text" else "change"
    page.run(
        f"(() => {{ const field = document.getElementById('filters').elements['{name}']; field.value = '{value}';"
        f" field.dispatchEvent(new Event('{kind}')); }})()"
    )
    page.wait("!document.getElementById('count').textContent.startsWith('Unpacking')")
    counted: str = page.run("document.getElementById('count').textContent")
    return counted


def test_filters_narrow_down_to_what_they_say(opened: Page) -> None:
    browse(opened)
    assert opened.run("document.getElementById('count').textContent").startswith("1 to 10 of 28 completions: 35.7 %")
    assert choose(opened, "method", "grpo") == "1 to 10 of 12 completions: 75.0 % right, 50.0 % in format."
    assert choose(opened, "seed", "1") == "1 to 4 of 4 completions: 75.0 % right, 50.0 % in format."
    assert choose(opened, "right", "0") == "1 to 1 of 1 completions: 0.0 % right, 0.0 % in format."
    assert choose(opened, "format", "1") == "No completion is like this."
    opened.run("document.querySelector('#filters [type=reset]').click()")
    assert choose(opened, "text", "sft looked") == "1 to 6 of 6 completions: 0.0 % right, 100.0 % in format."
    assert choose(opened, "text", "") == "1 to 10 of 28 completions: 35.7 % right, 50.0 % in format."
    opened.run("document.querySelector('#pager-top [name=next]').click()")
    assert opened.run("document.getElementById('count').textContent").startswith("11 to 20 of 28")
    assert choose(opened, "kind", "rollouts").startswith("1 to 10 of 24 completions: 100.0 % right")
    assert choose(opened, "step", "3").startswith("1 to 10 of 12 completions")
    assert opened.complaints == []


def test_a_hostile_completion_does_nothing_and_nothing_leaves_the_page(opened: Page, file: Path) -> None:
    browse(opened)
    choose(opened, "format", "0")
    shown = opened.run("document.querySelector('#list .completion').textContent")
    assert shown.startswith("base: </script><script>document.title = 'owned'</script><img src=x onerror=")
    assert opened.run("document.querySelectorAll('#list script, #list .completion img').length") == 0
    assert opened.run("document.title") == "small"
    assert opened.requests == [file.as_uri()]
    assert opened.complaints == []


def test_the_policy_stops_a_script_that_found_a_way_in(opened: Page) -> None:
    opened.run("stopped = []; addEventListener('securitypolicyviolation', e => stopped.push(e.effectiveDirective))")
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    opened.run("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))")
    opened.wait("['img-src', 'script-src-attr', 'script-src-elem'].every(name => stopped.includes(name))")
    assert opened.run("document.title") == "small"


def test_tags_are_marked_and_the_extracted_answer_is_shown(opened: Page) -> None:
    browse(opened)
    card = "document.querySelector('#list li')"
    tags = opened.run(f"[...{card}.querySelectorAll('.tag')].map(tag => tag.textContent).join(' ')")
    assert tags == "<think> </think> <answer> </answer>"
    assert opened.run(f"{card}.querySelector('.answer').textContent") == " 0 "
    facts = opened.run(f"{card}.querySelector('.facts').innerText")
    assert "✓ right" in facts and "extracted 0" in facts and "accuracy reward 1" in facts and "format reward 1" in facts
    opened.wait(f"{card}.querySelector('img').naturalWidth === 112")


def test_examples_stand_side_by_side_by_keyboard_alone(opened: Page) -> None:
    browse(opened)
    choose(opened, "kind", "validation")
    opened.run("document.querySelector('.open').focus()")
    opened.press("Enter")
    opened.wait("document.getElementById('compare').open")
    heads = opened.run("[...document.querySelectorAll('.side thead th')].map(head => head.textContent).join('|')")
    assert heads == "steps, seed|sft, trained on counting|grpo, trained on counting"
    rows = opened.run("[...document.querySelectorAll('.side tbody th')].map(head => head.textContent).join('|')")
    assert rows == "after 2 steps, seed 0|after 4 steps, seed 0"
    verdicts = opened.run("[...document.querySelectorAll('.side .badge')].map(one => one.textContent).join('|')")
    assert verdicts == "|".join(["✗ wrong|in format"] * 2 + ["✓ right|in format"] * 2)
    asked = "document.querySelector('.asked .note').textContent"
    assert opened.run(asked) == "counting/validation/0"
    opened.press("ArrowRight")
    assert opened.run(asked) == "counting/validation/1"
    opened.press("ArrowRight")
    assert opened.run(asked) == "counting/validation/1", "the last example"
    opened.press("Escape")
    opened.wait("!document.getElementById('compare').open")
    assert opened.run("document.activeElement.className") == "open"


def test_everything_that_acts_is_reached_by_the_tab_key(opened: Page) -> None:
    browse(opened)
    opened.run("document.body.tabIndex = -1, document.body.focus()")
    reached = set()
    for _ in range(90):
        opened.press("Tab")
        reached.add(opened.run("(e => e.id || e.name || e.className || e.tagName)(document.activeElement)"))
    assert {"skip", "SUMMARY", "panel", "plot", "kind", "task", "method", "seed", "right", "format", "text"} <= reached
    assert {"next", "open"} <= reached


def test_a_chart_tells_values_and_switches_methods_off(opened: Page) -> None:
    opened.wait("document.querySelector('.plot canvas')")
    opened.run(
        "(s => { s.value = 'length'; s.dispatchEvent(new Event('change')); })(document.querySelector('[name=panel]'))"
    )
    opened.run("document.querySelector('.plot').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    readout = "document.querySelector('.readout').innerText.replace(/\\s+/g, ' ').trim()"
    assert opened.run(readout) == "step 1 sft 0.5 grpo 0.5"
    opened.run("document.querySelector('.chart .box input').click()")
    opened.run("document.querySelector('.plot').focus()")
    opened.press("ArrowLeft")
    assert opened.run(readout) == "step 3 grpo 1.5"


def test_nothing_bulky_is_unpacked_before_the_reader_comes_near(opened: Page) -> None:
    opened.look(1280, 300)
    opened.wait("document.querySelector('.plot canvas')")
    assert opened.run("[...unpacked.keys()].join()") == "charts"


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_a_phone_in_light_and_dark(opened: Page, dark: bool) -> None:
    opened.look(390, 844, dark=dark)
    browse(opened)
    opened.wait("document.querySelector('.plot canvas')")
    assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    ground, text = opened.run(
        "(s => [s.backgroundColor, s.color].map(c => c.match(/\\d+/g).reduce((a, b) => a + Number(b), 0)))"
        "(getComputedStyle(document.body))"
    )
    assert (ground < 150 and text > 600) if dark else (ground > 600 and text < 150)


@pytest.mark.slow
def test_the_static_part_prints_as_pdf(browser: str, results: Path, sweep: Sweep, tmp_path: Path) -> None:
    page, printed = write_report(results, sweep, tmp_path / "report.html", pdf=True).files
    assert printed == page.with_suffix(".pdf") and printed.read_bytes().startswith(b"%PDF-")
    assert printed.stat().st_size > 20_000


def test_without_a_browser_a_pdf_is_refused_before_anything_is_done(
    results: Path, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BROWSER_VARIABLE, "no-such-browser")
    with pytest.raises(UserError, match="HARNESS_BROWSER names no program: no-such-browser"):
        write_report(results, sweep, tmp_path / "report.html", pdf=True)
    assert not (tmp_path / "report.html").exists()
