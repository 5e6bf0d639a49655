"""The report's page: whole, by itself, readable by machines and people, and true to the results."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest

from gpunet.errors import DataError
from gpunet.experiments.registry import EXPERIMENTS
from gpunet.experiments.result import VERDICTS, Metric, Row
from gpunet.report import page
from gpunet.report.documents import DOCUMENTS
from gpunet.report.page.captions import CAPTIONS

from .page_folder import Walk, claim, made, svd_init, toy, write

MARK = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("reproduction"),
        **{
            "svd-init-mnist": svd_init(), "toy": toy(), "dmn-mnist": ("dmn", "skipped", "mnist is not here"),
            "cifar-mlp-cifar10": ("cifar-mlp", "failed", "diverged at step 7"),
            "svd-dnn-xor": ("svd-dnn", "waiting", ""),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(folder):
    path = page.write(folder)
    assert path == folder / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def walk(html):
    return Walk(html)


def page_of(folder, **runs):
    return page.write(write(folder, **runs)).read_text()


# -- structure -------------------------------------------------------------------------------------------------------


def test_elements_nest_and_names_are_unique(html, walk):
    assert html.startswith("<!DOCTYPE html>")
    assert walk.problems == []
    ids = [attributes["id"] for _, attributes in walk.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert walk.all("html") == [{"lang": "en"}]
    assert len(walk.all("h1")) == len(walk.all("title")) == len(walk.all("main")) == 1


def test_every_link_leads_to_a_place_on_the_page(walk):
    ids = {attributes.get("id") for _, attributes in walk.elements}
    targets = [attributes["href"] for attributes in walk.all("a")]
    assert len(targets) > 30
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    named = [each for _, attributes in walk.elements if (each := attributes.get("aria-labelledby"))]
    assert named
    assert set(named) <= ids


def test_headings_go_down_one_level_at_a_time(walk):
    levels = [int(tag[1]) for tag, _ in walk.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_tables_are_named_and_their_heads_have_a_scope(walk):
    tables, captions = walk.all("table"), len(walk.all("caption"))
    assert len(tables) == captions + sum("aria-label" in each for each in tables)
    assert all(each.get("scope") in ("col", "row", "colgroup") for each in walk.all("th"))


def test_the_page_needs_no_other_file(html, walk):
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in walk.elements}
    addresses = [a[name] for _, a in walk.elements for name in ("src", "srcset", "href", "poster", "data") if name in a]
    assert all(address.startswith(("#", "data:image/")) for address in addresses)
    assert not any("style" in a or any(name.startswith("on") for name in a) for _, a in walk.elements)
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for a in walk.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")


def test_figures_are_whole_svg_with_alternative_texts(walk):
    images, sources = walk.all("img"), walk.all("source")
    assert len(images) == len(sources) == 4 + 4
    for each in images:
        assert len(each["alt"]) > 20
        assert int(each["width"]) > 0 < int(each["height"])
    for wide, narrow in zip(images, sources, strict=True):
        assert int(narrow["width"]) < 420 < int(wide["width"])
    for uri in [*(each["src"] for each in images), *(each["srcset"] for each in sources)]:
        kind, _, content = uri.partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = ET.fromstring(base64.b64decode(content))
        links = [value for each in svg.iter() for name, value in each.attrib.items() if name.endswith("href")]
        ids = {each.get("id") for each in svg.iter()}
        assert all(link[1:] in ids or link.startswith("data:image/png") for link in links)
        assert "prefers-color-scheme:dark" in ET.tostring(svg, "unicode") or "image" in {
            each.tag.rpartition("}")[2] for each in svg.iter()
        }


# -- content ---------------------------------------------------------------------------------------------------------


def test_every_claim_is_listed_with_its_verdict_and_leads_to_its_section(folder, html, walk):
    held = json.loads((folder / "claims.json").read_text())
    assert len(held["claims"]) == 23 + 10
    for verdict in VERDICTS:
        kind, count = verdict.replace(" ", "-"), held["counts"][verdict]
        assert re.search(rf'<li class="{kind}"><span class="figure">{count}</span>', html)
        rows = [a for a in walk.all("tr") if a.get("class") == kind]
        assert len(rows) == 2 * count  # in the summary and in the section
    anchors = {a["id"] for a in walk.all("tr") if "id" in a}
    linked = [a["href"][1:] for a in walk.all("a") if a["href"][1:] in anchors]
    assert sorted(linked) == sorted(anchors)
    assert len(anchors) == len(held["claims"])
    for one in held["claims"]:
        assert one["statement"] in walk.text()


def test_claimed_and_measured_stand_side_by_side(folder, walk):
    held = json.loads((folder / "svd-init-mnist" / "result.json").read_text())
    by_name = {row["name"]: row["metrics"] for row in held["rows"]}
    said = walk.text()
    for row, claimed in (("random", "90.98"), ("orth-each", "93.03")):
        found = by_name[row]["test_accuracy"]
        assert f"{claimed} {100 * found['mean']:.2f} ± {100 * found['std']:.2f}" in said
    (one,) = [each for each in held["claims"] if each["id"] == "table1-random-test-accuracy"]
    assert f"90.98 % {100 * one['measured']:.2f} %" in said


def test_every_document_says_what_it_says_and_what_was_chosen(walk):
    said = walk.text()
    for name in EXPERIMENTS:
        document = DOCUMENTS[name]
        assert document.title in said
        assert document.authors in said
        assert " ".join(document.says) in said
        for choice in document.choices:
            assert choice.what in said
            assert choice.chosen in said
    order = [said.rindex(DOCUMENTS[name].title) for name in ("svd-init", "svd-dnn", "dmn", "toy", "cifar-mlp")]
    assert order == sorted(order)


def test_runs_that_did_not_finish_say_why(walk):
    said = walk.text()
    assert said.count("dmn-mnist was skipped: mnist is not here") == 2
    assert said.count("cifar-mlp-cifar10 failed: diverged at step 7") == 2
    assert said.count("svd-dnn-xor has not been run to its end yet.") == 2
    assert "2 of 5 finished" in said


def test_a_finished_run_whose_result_is_gone_is_named(tmp_path):
    folder = write(tmp_path, one=made(), two=made())
    (folder / "two" / "result.json").unlink()
    said = Walk(page.write(folder).read_text()).text()
    assert "two has lost its result: two/result.json is not there any more" in said


def test_a_claim_of_two_runs_is_counted_once_where_it_was_tested(tmp_path):
    untested = [claim("a", "not tested"), claim("b", "not tested"), claim("c", "not tested")]
    tested = [claim("a", "exceeded"), claim("b", "not tested")]
    said = Walk(page_of(tmp_path, one=made(claims=untested), two=made(claims=tested))).text()
    assert "3 claims" in said
    assert "1 exceeded, 2 not tested" in said
    assert "mine on points 2 not tested" in said
    assert "mine on points 1 exceeded" in said


def test_times_and_speeds_are_told(tmp_path):
    said = Walk(page_of(tmp_path, one=made())).text()
    assert "first 500 ± 354 1.00 second 250 ± 177 2.00" in said
    assert "Took 1 min 5 s" in said
    assert "2 January 2026, 03:04 UTC" in said


def test_numbers_that_are_not_finite_are_dashes(tmp_path):
    rows = [Row("first", {"test_accuracy": Metric([math.nan, 0.5]), "loss": Metric([1.0, math.nan])})]
    said = Walk(page_of(tmp_path, one=made(rows=rows, claims=[claim("a", "not reproduced", measured=math.nan)]))).text()
    assert "first – –" in said
    assert "nan" not in said
    assert "statement of a 0.500 –" in said


def test_forty_seeds(tmp_path):
    result = made(seeds=list(range(40)), rows=[Row("first", {"test_accuracy": Metric([0.5, 0.75] * 20)})])
    said = Walk(page_of(tmp_path, one=result)).text()
    assert "Seeds 40" in said
    assert "62.50 ± 12.66" in said


def test_names_from_outside_are_escaped(tmp_path):
    result = made(
        MARK, dataset=MARK, device=MARK, settings={MARK: MARK, "deep": [{MARK: [MARK] * 9}]},
        rows=[Row(MARK, {MARK: Metric([1.0, 2.0])})],
        claims=[replace(claim("a", "reproduced", MARK, MARK), statement=MARK)],
        timings={MARK: {MARK: [1.0]}}, provenance={MARK: MARK},
    )  # fmt: skip
    html = page_of(tmp_path, one=result, two=(MARK, "failed", MARK))
    walk = Walk(html)
    assert walk.problems == []
    assert not walk.all("script")
    assert "alert('x')" in walk.text()


def test_a_figure_with_markup_in_a_name_stays_a_figure(tmp_path):
    html = page_of(tmp_path, one=replace(svd_init(seeds=1), dataset="<script>&", claims=[]))
    for each in Walk(html).all("img"):
        svg = base64.b64decode(each["src"].partition(",")[2])
        assert not [element for element in ET.fromstring(svg).iter() if element.tag.endswith("script")]


def test_a_figure_of_an_unknown_experiment_is_its_png(tmp_path):
    from gpunet.report.style import figure

    folder = write(tmp_path, one=made())
    with figure(folder / "one" / "some-figure.png") as axes:
        axes.plot([1, 2])
    (image,) = Walk(page.write(folder).read_text()).all("img")
    content = (folder / "one" / "some-figure.png").read_bytes()
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == content
    assert (image["width"], image["height"]) == ("614", "384")
    (folder / "one" / "some-figure.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"some-figure\.png' is not a PNG image"):
        page.write(folder)


# -- files -----------------------------------------------------------------------------------------------------------


def test_one_run_or_several_side_by_side_without_claims_json(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        made(dataset=name).write(tmp_path / name)
    said = Walk(page.write(tmp_path).read_text()).text()
    assert said.index("mine on a") < said.index("mine on b")
    assert "A quick run" not in said
    assert "mine on a" in Walk(page.write(tmp_path / "a").read_text()).text()


def test_the_same_results_give_the_same_bytes_and_nothing_else_is_written(tmp_path):
    folder = write(tmp_path, one=svd_init(seeds=1))
    before = set(folder.rglob("*"))
    first = page.write(folder).read_bytes()
    assert page.write(folder).read_bytes() == first
    assert set(folder.rglob("*")) - before == {folder / "report.html"}
    assert len(first) < 1_000_000


DAMAGE = {
    "no JSON": "{",
    "a list": "[]",
    "no rows": lambda held: held.pop("rows"),
    "no text": lambda held: held.update(dataset=3),
    "words for numbers": lambda held: held["rows"][0]["metrics"]["loss"].update(values=["much"]),
    "a row without values": lambda held: held["rows"][0]["metrics"]["loss"].pop("values"),
    "a verdict of its own": lambda held: held["claims"][0].update(verdict="maybe"),
    "a claim with more": lambda held: held["claims"][0].update(more=1),
    "settings of an older version": lambda held: held.update(experiment="toy"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_one_line_and_leaves_the_old_page(tmp_path, damage):
    folder = write(tmp_path, one=made())
    (folder / "report.html").write_text("old")
    path = folder / "one" / "result.json"
    held = json.loads(path.read_text())
    change = DAMAGE[damage]
    text = change if isinstance(change, str) else (change(held), json.dumps(held))[1]
    path.write_text(text)
    with pytest.raises(DataError, match=r"one/result\.json' is damaged, or of another version of gpunet") as caught:
        page.write(folder)
    assert "\n" not in str(caught.value)
    assert (folder / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.pop("runs"),
        lambda held: held["runs"][0].update(state="lost"),
        lambda held: held["runs"][0].update(name="../one"),
        lambda held: held["runs"][0].pop("state"),
    ],
)
def test_a_damaged_claims_json_is_one_line(tmp_path, change):
    folder = write(tmp_path, one=made())
    held = json.loads((folder / "claims.json").read_text())
    change(held)
    (folder / "claims.json").write_text(json.dumps(held))
    with pytest.raises(DataError, match=r"claims\.json' is damaged, or of another version"):
        page.write(folder)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(DataError, match=r"holds neither claims\.json nor result\.json"):
        page.write(tmp_path)


# -- all experiments -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_quick_reproduction_of_everything(tmp_path):
    from gpunet.reproduce.runner import Request, reproduce

    outcome = reproduce(Request(quick=True, device="numpy", folder=tmp_path))
    assert outcome.problems == []
    html = (tmp_path / "report.html").read_text()
    walk = Walk(html)
    assert walk.problems == []
    assert len(html) < 3_000_000
    held = json.loads((tmp_path / "claims.json").read_text())
    assert f"{len(held['claims'])} claims" in walk.text()
    drawn = {run["experiment"]: {name.removesuffix(".png") for name in run["figures"]} for run in held["runs"]}
    assert set(drawn) == set(CAPTIONS)
    assert all(stems <= set(CAPTIONS[experiment]) for experiment, stems in drawn.items())
    assert len(walk.all("img")) == sum(len(run["figures"]) for run in held["runs"])
