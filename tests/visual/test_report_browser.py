"""The report in a real browser: no errors, no requests, no overflow, contrasts, and what moves."""
import os

from gluonzoo.visual import write_report

import chromium
import pytest
from report_cases import HOSTILE, epoch, step, write_answers, write_log

pytest.importorskip("PIL")
PROGRAM = chromium.find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here (Debian: apt-get install chromium-headless-shell); "
                                "GLUONZOO_CHROMIUM names one")

#: The contrast of all text with what is behind it, and of all lines: [[ratio, wanted, what]] of those that are too faint.
CONTRASTS = """(() => {
  const parse = text => { const v = text.match(/[\\d.]+/g).map(Number); return v.length > 3 ? v : [...v, 1]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element), back = behind(element);
    if (["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const wanted = element.closest("svg") ? 3 : 4.5;
    const colour = element.matches(".line, .dots") ? style.stroke : style.color;
    if (!own && !element.matches(".line, .dots")) continue;
    let shown = parse(colour);
    for (let e = element; e; e = e.parentElement) shown[3] *= Number(getComputedStyle(e).opacity);
    const found = ratio(over(shown, back), back);
    const what = `${element.tagName}.${element.className}: ${element.textContent.slice(0, 30)}`;
    if (found < wanted) faint.push([found, wanted, what]);
  }
  return faint;
})()"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of eight runs with all that logs and saved predictions can show, hostile names among them."""
    folder = tmp_path_factory.mktemp("report")
    paths = []
    for number in range(8):
        start = {"event": "start", "config": {"model": "net", "dataset": "made up", "lr": 0.1 * (number + 1), "epochs": 6},
                 "machine": {"cpu": "A processor with a rather long name @ 3.00 GHz", "cores": 2}}
        run = write_log(folder / f"run-{number}-with-a-name-that-is-long", [start] + [
            step(n, 1 / n) for n in range(1, 9)] + [epoch(n, 0.5 + 0.05 * n + 0.01 * number, 1 / (n + 1)) for n in range(6)])
        labels = [k for k in range(10) for _ in range(12)]
        guesses = [(k + (place % 12 > 8) * (place % 5)) % 10 for place, k in enumerate(labels)]
        write_answers(run, labels, guesses, [HOSTILE, "a class of many words, too long"] + [f"class {k}" for k in range(2, 10)])
        paths.append(str(run))
    (folder / "nothing").mkdir()
    write_report(paths + [str(folder / "nothing")], folder / "page.html", title="A report")
    return folder / "page.html"


@pytest.fixture(scope="module")
def page():
    with chromium.open_page(PROGRAM) as opened:
        yield opened


def load(page, path, width=1280, dark=False, **more):
    page.look(width, dark=dark, **more)
    page.load(path)
    page.run("localStorage.clear()")


@pytest.mark.parametrize("width", [390, 820, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_is_readable_and_asks_for_nothing(page, page_file, width, dark):
    load(page, page_file, width, dark)
    page.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.problems == [] and page.requests == [f"file://{os.path.abspath(page_file)}"]
    assert page.run("window.hit") is None, "a class's name ran as a program"
    assert page.run("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
    assert page.run(CONTRASTS) == []
    small = page.run("[...document.querySelectorAll('button, summary')].filter(e => e.getClientRects().length).map("
                     "e => [e.getBoundingClientRect().height, e.textContent]).filter(([height]) => height < 24)")
    assert small == [], "too small for a finger (WCAG 2.5.8)"
    if dark:
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


def test_the_check_of_contrasts_can_fail(page, page_file):
    load(page, page_file)
    page.run("document.querySelector('h1').style.color = 'rgb(140, 140, 140)'")  # 3.4 to 1 on white.
    page.run("document.querySelector('.line').style.stroke = 'rgb(220, 220, 220)'")
    assert [what.split(".")[0] for _, _, what in page.run(CONTRASTS)] == ["H1", "path"]


def test_values_follow_the_pointer_and_the_arrow_keys(page, page_file):
    load(page, page_file)
    box = page.run("(() => { document.querySelector('.plot').scrollIntoView({ behavior: 'instant', block: 'center' }); "
                   "const b = document.querySelector('.plot').getBoundingClientRect(); "
                   "return [b.left, b.top, b.width, b.height]; })()")
    read = "document.querySelector('.readout').textContent"
    assert page.run(read) == ""
    # Epochs 0 to 6: at 2.9 / 6 of the width the nearest is the third. Its validation accuracies: 0.58 and 0.01 more each run.
    page.move(box[0] + box[2] * 2.9 / 6, box[1] + box[3] / 2)
    assert page.run(read) == "epochs 3" + "".join(f"{key} {58 + n:.2f}" for n, key in enumerate("ABCDEFGH"))
    assert page.run("document.querySelector('.guide').style.left") == "50%"
    page.move(1275, 5)
    assert page.run(read) == "" and page.run("document.querySelector('.guide').hidden")
    page.run("document.querySelector('.plot').focus()")
    page.press("ArrowRight")
    assert page.run(read).startswith("epochs 1A 48.00B 49.00")
    page.press("ArrowRight")
    assert page.run(read).startswith("epochs 2A 53.00")
    page.press("End")
    assert page.run(read).startswith("epochs 6A 73.00")
    page.press("Escape")
    assert page.run(read) == ""


def test_runs_are_switched_off_and_on(page, page_file):
    load(page, page_file)
    shown = "[...document.querySelectorAll('.plot [data-run=\"1\"]')].filter(e => getComputedStyle(e).display !== 'none').length"
    before = page.run(shown)
    assert before >= 14
    page.run("document.querySelector('[data-switch=\"1\"]').click()")
    assert page.run(shown) == 0
    assert page.run("document.querySelector('[data-switch=\"1\"]').getAttribute('aria-pressed')") == "false"
    page.run("document.querySelector('[data-switch=\"1\"]').click()")
    assert page.run(shown) == before


def test_tables_sort_by_value(page, page_file):
    load(page, page_file)
    column = "[...document.querySelectorAll('.sortable tbody .key')].map(key => key.textContent).join('')"
    head = "document.querySelectorAll('.sortable thead button')[%d]"
    assert page.run(column) == "ABCDEFGH"
    page.run((head + ".click()") % 3)  # Best accuracy: the largest first.
    assert page.run(column) == "HGFEDCBA"
    assert page.run((head + ".closest('th').getAttribute('aria-sort')") % 3) == "descending"
    page.run((head + ".focus()") % 3)
    page.press("Enter")
    assert page.run(column) == "ABCDEFGH"
    assert page.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_button_changes_the_colours_and_keeps_them(page, page_file):
    load(page, page_file)
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.run(back) == "rgb(255, 255, 255)"
    page.run("document.getElementById('theme').click()")
    assert page.run(back) == "rgb(20, 23, 27)"
    page.load(page_file)
    assert page.run(back) == "rgb(20, 23, 27)" and page.run("document.getElementById('theme').textContent") == "Light colours"
    page.run("localStorage.clear()")


def test_a_link_to_a_run_opens_it(page, page_file):
    load(page, page_file)
    assert page.run("document.getElementById('run-C').open") is False
    page.run("document.querySelector('a[href=\"#run-C\"]').click()")
    page.run("new Promise(done => setTimeout(done, 100))")
    assert page.run("document.getElementById('run-C').open") is True


def test_the_keyboard_reaches_everything_in_order(page, page_file):
    load(page, page_file)
    seen = []
    for _ in range(12):
        page.press("Tab")
        seen.append(page.run("document.activeElement.textContent.trim() || document.activeElement.className"))
    assert seen[0] == "To the content" and seen[1] == "Dark colours" and "Curves" in seen
    assert page.run("[...document.querySelectorAll('img')].filter(e => !e.alt).length") == 0
    assert page.run("[...document.querySelectorAll('button')].filter(e => !e.textContent.trim()).length") == 0
    levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), "a level of headings is left out"


def test_without_scripts_all_is_there(page, page_file):
    page.look(1280, scripts=False)
    try:
        page.load(page_file)
        assert page.run("document.querySelectorAll('.plot .line').length") >= 50
        assert page.run("getComputedStyle(document.querySelector('.switches')).display") == "none"
        assert page.run("getComputedStyle(document.getElementById('theme')).display") == "none"
    finally:
        page.look(1280)


def test_on_paper_it_is_light_and_open(page, page_file):
    load(page, page_file, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.run(CONTRASTS) == []
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") > 0
    page.look(1280)
