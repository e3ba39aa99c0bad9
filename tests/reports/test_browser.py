"""The pages in a real browser: complete, without errors, responsive, and usable by keyboard."""

import io
import itertools
import json
import shutil
import urllib.parse

import PIL.Image
import pytest
from playwright import sync_api

from configs import tiny
from sejax.config import modes
from sejax.evaluation import metrics, results
from sejax.evaluation.benchmarks import protocol
from sejax.reports import comparison, pages
from sejax.reports import training as report
from tests.data.problems import random_png
from tests.reports import test_pages, test_report

pytestmark = pytest.mark.long

LONG = "unbroken" * 40
WIDTHS = {"narrow": 360, "wide": 1440}

# Elements are identified by their index in the document.
ACTIVE = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
OUTLINE = "getComputedStyle(document.activeElement).outline"
KEYBOARD = """[...document.querySelectorAll('*')].flatMap((element, place) => {
  const style = getComputedStyle(element)
  const scrolls = [style.overflowX, style.overflowY].some(o => o == 'auto' || o == 'scroll')
  return scrolls || element.matches('summary, a, button, input, select, textarea') ? [place] : []
})"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SIDEWAYS = """[...document.querySelectorAll('[tabindex]')]
  .filter(e => e.scrollWidth > e.clientWidth && e.checkVisibility())"""


def write_report(folder):
  test_report.leave_run(folder)
  group = test_report.group(50) | {"id": LONG, "question": LONG, "texts": [LONG, LONG]}
  with (folder / "groups.jsonl").open("a") as file:
    file.write(json.dumps({"step": 50, **group}) + "\n")
  report.run(folder)
  return folder / "report.html"


def write_inspect(folder):
  (folder / "wide.png").write_bytes(random_png(224, 28))
  lines = [
    {"id": "good", "question": "How many?", "image": "wide.png", "answer": "4"},
    {"id": LONG, "question": LONG[:40]},
    {"id": LONG, "question": "Which?", "image": f"{LONG[:100]}.png"},
  ]
  (folder / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
  config = tiny.get_config()
  config.data.update(source="jsonl", path=str(folder / "set.jsonl"))
  modes.inspect(config, folder)
  return folder / "inspect.html"


def write_summary(folder):
  figure = metrics.Interval(0.5, 0.25, 0.75)
  parts = {"subject": {"algebra": protocol.Share(1, 2), LONG: protocol.Share(0, 2)}}
  scores = protocol.Scores({"accuracy": figure, "pass@2": figure}, {"right": 1}, parts)
  result = results.Result("mathvision", "toolkit", "accuracy", scores, 4, 1, 2, 0, {"rules": 8})
  path = folder / "summary.html"
  path.write_text(results.page([result, result]))
  return path


def write_comparison(folder):
  for name in ("one", "two"):
    (folder / name).mkdir()
    test_report.leave_run(folder / name)
  comparison.run([folder / "one", folder / "two"], folder / "comparison.html")
  return folder / "comparison.html"


# For each page: what writes it, and how many <details> elements, images and links it has.
PAGES = {
  "report": (write_report, 24 + 6 + 1, 24, 5),
  "comparison": (write_comparison, 3, 0, 3),
  "inspect": (write_inspect, 1, 1, 0),
  "summary": (write_summary, 2, 0, 0),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
  return {name: write(tmp_path_factory.mktemp(name)) for name, (write, *_) in PAGES.items()}


@pytest.fixture(scope="module")
def browser():
  chromium = shutil.which("chromium")
  if chromium is None:
    pytest.skip("no chromium on PATH: apt-get install chromium")
  with sync_api.sync_playwright() as playwright:
    started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    yield started
    started.close()


@pytest.fixture(params=[(name, width) for name in PAGES for width in WIDTHS], ids="-".join)
def case(request):
  return request.param


@pytest.fixture
def page(browser, paths, case):
  """Loads a page; fails if it requests another file or reports an error."""
  name, width = case
  # Without a viewport tag, a phone renders the page as on a wide screen and scales it down.
  viewport = {"width": WIDTHS[width], "height": 800}
  opened = browser.new_page(viewport=viewport, is_mobile=width == "narrow")
  said, asked = [], []
  opened.on("console", lambda message: said.append((message.type, message.text)))
  opened.on("pageerror", lambda error: said.append(("error", str(error))))
  opened.on("request", lambda request: asked.append(request.url))
  opened.goto(paths[name].as_uri())
  yield opened
  opened.close()
  assert [message for message in said if message[0] in ("error", "warning")] == []
  assert [url for url in asked if urllib.parse.urlparse(url).scheme != "data"] == [
    paths[name].as_uri()
  ]


def test_headings_language_and_pictures(page, case):
  thumbnails = PAGES[case[0]][2]
  (heading,) = page.locator("main h1").all_inner_texts()
  assert heading == page.title() != ""
  assert page.get_attribute("html", "lang") == "en"
  levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(h => Number(h.tagName[1]))")
  assert len(levels) > 1
  assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
  widths = page.eval_on_selector_all("img", "all => all.map(i => i.alt && i.naturalWidth)")
  assert len(widths) == thumbnails
  assert all(widths)


def test_the_keyboard_reaches_and_opens_all_and_nothing_is_too_wide(page, case):
  _, details, _, links = PAGES[case[0]]
  assert page.evaluate("innerWidth") == WIDTHS[case[1]]
  assert page.evaluate(WIDER) == 0
  expected = set(page.evaluate(KEYBOARD))
  reached, opened = [], 0
  while True:
    page.keyboard.press("Tab")
    place = page.evaluate(ACTIVE)
    if page.evaluate("document.activeElement == document.body") or place in reached:
      break
    reached.append(place)
    assert "solid 2px" in page.evaluate(OUTLINE), "where the focus is cannot be seen"
    if page.evaluate("document.activeElement.matches('summary')"):
      page.keyboard.press(("Enter", "Space")[opened % 2])
      opened += 1
      assert page.locator("details[open]").count() == opened
  assert opened == details
  assert set(reached) == expected
  names = page.eval_on_selector_all("[role=region]", "all => all.map(e => e.ariaLabel)")
  assert all(names)
  assert len(names) + details + links == len(expected)
  assert page.evaluate(WIDER) == 0, "what was opened is too wide"


@pytest.mark.parametrize("name", test_pages.MAKERS)
def test_no_text_runs_as_a_script_and_all_of_it_is_shown(browser, name, tmp_path):
  opened, said = browser.new_page(), []
  opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
  for hostile in test_pages.HOSTILE:
    path = tmp_path / "page.html"
    pages.write(path, test_pages.MAKERS[name](hostile, tmp_path))
    opened.goto(path.as_uri())
    assert opened.locator("script, i, [onload], [onerror]").count() == 0
    opened.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert hostile in opened.locator("main").inner_text()
  opened.close()
  assert said == []


def test_a_table_too_wide_for_the_screen_moves_by_arrow_keys(browser, paths):
  page = browser.new_page(viewport={"width": WIDTHS["narrow"], "height": 800})
  page.goto(paths["summary"].as_uri())
  (table,) = page.evaluate_handle(SIDEWAYS).get_properties().values()
  table.as_element().focus()
  page.keyboard.press("ArrowRight")
  page.wait_for_function("table => table.scrollLeft > 0", arg=table)
  page.close()


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_colours_follow_the_reader(browser, paths, scheme, bright):
  page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
  page.goto(paths["summary"].as_uri())
  shot = PIL.Image.open(io.BytesIO(page.screenshot())).convert("L")
  page.close()
  assert (shot.getpixel((2, 2)) > 128) == bright
  low, high = shot.getextrema()
  assert high - low > 200, "the text stands out"
