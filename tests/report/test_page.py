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
from gpunet.experiments import experiments
from gpunet.experiments.claims import VERDICTS, judge
from gpunet.experiments.result import Metric, Result, Row
from gpunet.report import page
from gpunet.report.claims import SIGNS, ClaimView, counts, kind, opening, verdict_told

from .page_folder import Walk, made, svd_init, write

MARK = "<script>alert('x')</script>\"&"
X = experiments()["svd-init"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("reproduction"),
        **{
            "svd-init-mnist": svd_init(), "svd-init-points": svd_init("points"), "mine": made(),
            "mine-a": ("mine", "skipped", "a is not here"), "mine-b": ("mine", "failed", "diverged at step 7"),
            "mine-c": ("mine", "waiting", ""),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged(folder):
    """The claims of both runs with their verdicts."""
    results = [Result.read(folder / name / "result.json") for name in ("svd-init-mnist", "svd-init-points")]
    return [(result.dataset, claim) for result in results for claim in judge(X, result)]


@pytest.fixture(scope="module")
def html(folder):
    path = page.write(folder)
    assert path == folder / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def walk(html):
    return Walk(html)


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    """A folder with a run of one seed, on data whose name is markup, and its page."""
    folder = write(tmp_path_factory.mktemp("one"), one=replace(svd_init(seeds=1), dataset="<script>&"))
    return folder, page.write(folder).read_bytes()


def page_of(folder, **runs):
    return page.write(write(folder, **runs)).read_text()


# -- structure -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_elements_nest_and_names_are_unique(html, walk):
    assert html.startswith("<!DOCTYPE html>")
    assert walk.problems == []
    ids = [attributes["id"] for _, attributes in walk.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert walk.all("html") == [{"lang": "en"}]
    assert len(walk.all("h1")) == len(walk.all("main")) == 1
    assert html.index("<title>") < html.index("<body>")


def test_every_link_leads_to_a_place_on_the_page(walk):
    ids = {attributes.get("id") for _, attributes in walk.elements}
    targets = [attributes["href"] for attributes in walk.all("a")]
    assert len(targets) > 20
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
    assert not {"link", "iframe", "object", "base", "form", "button"} & {tag for tag, _ in walk.elements}
    addresses = [a[name] for _, a in walk.elements for name in ("src", "srcset", "href", "poster", "data") if name in a]
    assert all(address.startswith(("#", "data:image/")) for address in addresses)
    assert not any("style" in a or any(name.startswith("on") for name in a) for _, a in walk.elements)
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_its_policy_admits_its_own_style_sheet_and_script_alone(html, walk):
    (policy,) = [a["content"] for a in walk.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert walk.all("style") == walk.all("script") == [{}]
    hashes = [
        base64.b64encode(hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1].encode()).digest())
        for tag in ("style", "script")
    ]
    style, script = (each.decode() for each in hashes)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_every_column_has_one_heading_that_puts_in_order(html):
    for table in re.findall(r'<table class="sheet">.*?</table>', html, re.DOTALL):
        rows = [
            re.findall(r"<t[hd]", row) for row in re.findall(r"<tr.*?</tr>", table.partition("<tbody>")[2], re.DOTALL)
        ]
        columns = [int(each) for each in re.findall(r'data-column="(\d+)"', table)]
        assert rows
        assert {len(row) for row in rows} == {len(columns)}
        assert sorted(columns) == list(range(len(columns)))


def test_figures_are_whole_svg_with_alternative_texts(walk):
    images, sources = walk.all("img"), walk.all("source")
    assert len(images) == len(sources) == 4 + 4
    for each in images:
        assert len(each["alt"]) > 20
        assert int(each["width"]) > 0 < int(each["height"])
    for wide, narrow in zip(images, sources, strict=True):
        assert int(narrow["width"]) < 420 < int(wide["width"])
    for uri in [*(each["src"] for each in images), *(each["srcset"] for each in sources)]:
        content_kind, _, content = uri.partition(",")
        assert content_kind == "data:image/svg+xml;base64"
        svg = ET.fromstring(base64.b64decode(content))
        links = [value for each in svg.iter() for name, value in each.attrib.items() if name.endswith("href")]
        ids = {each.get("id") for each in svg.iter()}
        assert links
        assert all(link[1:] in ids for link in links)


# -- content ---------------------------------------------------------------------------------------------------------


def test_every_claim_stands_once_with_its_verdict(judged, html, walk):
    assert len(judged) == 2 * 23
    rows = [each for each in walk.all("tr") if "id" in each]
    assert len(rows) == len(judged)
    for told in SIGNS:
        count = sum(verdict_told(claim) == told for _, claim in judged)
        assert len([each for each in rows if each["class"] == kind(told)]) == count
        assert (f'id="show-{kind(told)}"' in html) == (count > 0)
    said = walk.text()
    for _, claim in judged:  # of both runs
        assert said.count(f"{claim.statement} {claim.where} ") == 2


def test_every_verdict_is_a_square_that_leads_to_its_claim(judged, html):
    squares = re.findall(r'<a href="#([\w-]+)" tabindex="-1"><rect class="([\w-]+)"', html)
    assert len(squares) == sum(claim.verdict != "not tested" for _, claim in judged)
    by_anchor = {anchor: name for name, anchor in re.findall(r'<tr class="([\w-]+)" id="([\w-]+)"', html)}
    assert all(by_anchor[anchor] == name for anchor, name in squares)


def test_verdicts_on_other_data_are_told_apart_and_not_counted_among_the_others(judged, html):
    views = [ClaimView("", "svd-init", dataset, claim) for dataset, claim in judged]
    found = counts(views)
    own = [claim for dataset, claim in judged if dataset == "mnist"]
    assert {verdict: found[verdict] for verdict in VERDICTS[:4]} == {
        verdict: sum(claim.verdict == verdict for claim in own) for verdict in VERDICTS[:4]
    }
    here = [claim for dataset, claim in judged if dataset == "points" and claim.verdict != "not tested"]
    assert len(here) == sum(count for told, count in found.items() if told.endswith("here")) > 0
    assert not re.findall(r'<tr class="(?:reproduced|exceeded|not-reproduced|inconclusive)" id="svd-init-points', html)


def test_numbers_that_do_not_apply_are_folded(html, walk):
    folded = re.findall(r'<details class="untested">(.*?)</details>', html, re.DOTALL)
    assert sum(each.count('<tr class="not-tested"') for each in folded) == html.count('<tr class="not-tested"') >= 15
    assert "15 not tested not applicable: the document speaks of mnist" in walk.text()
    assert not any("open" in each for each in walk.all("details"))


@pytest.mark.slow
def test_of_several_runs_what_agrees_and_what_is_further_is_folded(folder, html):
    agreed = re.findall(r'<details class="agreed">(.*?)</details>', html, re.DOTALL)
    for kinds in ("reproduced", "holds-here"):
        assert sum(each.count(f'<tr class="{kinds}"') for each in agreed) == html.count(f'<tr class="{kinds}"') > 0
    assert not re.search(r'<tr class="(exceeded|not-reproduced|inconclusive)', "".join(agreed))
    shown = re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)
    assert (html.count("<figure"), shown.count("<figure")) == (8, 4)  # of both runs
    alone = page.write(folder / "svd-init-mnist").read_text()
    assert '<details class="agreed">' not in alone
    assert '<details class="further">' in alone


def test_the_opening_says_what_was_found(judged):
    views = [ClaimView("", "svd-init", dataset, claim) for dataset, claim in judged]
    found = counts(views)
    first, second, third = opening(views)
    every, told = sum(found[verdict] for verdict in VERDICTS[:4]), (f"{found[one]} {one}" for one in VERDICTS[:4])
    assert first == f"On the data that documents speak of, {every} claims were judged: {', '.join(told)}."
    fared = r"(\d (holds?|do(es)? not|cannot be told yet)[,;] )+"
    assert re.match(rf"On other data or settings \(points\), 8 claims were judged: {fared}15 stated", second)
    assert "; 15 stated numbers do not apply there." in second
    assert third.startswith("For instance “")
    assert opening([]) == []
    untested = [view for view in views if view.told == "not tested"]
    assert opening(untested) == ["None of the claims could be judged."]


def test_the_opening_compares_documents(judged):
    names = {"reproduced": "a", "not reproduced": "b"}
    own = [claim for dataset, claim in judged if dataset == "mnist" and claim.verdict in names]
    views = [ClaimView("", names[claim.verdict], "mnist", claim) for claim in own]
    a, b = (sum(view.experiment == name for view in views) for name in "ab")
    assert a > 0 < b
    compared = f"Of what was decided, a agrees with its document most ({a} of {a}), b least (0 of {b})."
    assert opening(views)[1] == compared


def test_claimed_and_measured_stand_side_by_side(folder, judged, walk):
    result = Result.read(folder / "svd-init-mnist" / "result.json")
    said = walk.text()
    for row, claimed in (("random", "90.98"), ("orth-each", "93.03")):
        found = result.metric(row, "test_accuracy")
        assert f"{claimed} {100 * found.mean:.2f} ± {100 * found.std:.2f}" in said
    (one,) = [claim for dataset, claim in judged if claim.id == "table1-random-test-accuracy" and dataset == "mnist"]
    assert f"90.98 % {100 * one.measured:.2f} %" in said


def test_who_points_at_a_number_is_told_the_values_of_all_seeds(folder, html):
    values = Result.read(folder / "svd-init-mnist" / "result.json").values("random", "test_accuracy")
    assert f'title="{", ".join(f"{100 * value:.8g}" for value in values)}"' in html


def test_a_document_says_what_it_says_and_what_was_chosen(walk):
    said, paper = walk.text(), X.paper
    assert paper.title in said
    assert paper.authors in said
    assert " ".join(paper.says) in said
    for choice in paper.choices:
        assert choice.what in said
        assert choice.chosen in said


@pytest.mark.slow
def test_captions_promise_bands_only_where_there_are_several_seeds(one_seed, walk):
    bands = "bands one standard deviation"
    assert bands in walk.text()
    said = Walk(one_seed[1].decode()).text()
    assert "1 seed" in said
    assert bands not in said


def test_what_was_found_and_asked_is_told(walk):
    said = walk.text()
    assert "What was found svd whole route gram, residual 1e-06" in said
    assert "Settings epochs 3" in said
    assert re.search(r"svd whole: \(route \w+, residual [\d.e-]+", said)


def test_runs_that_did_not_finish_say_why(walk):
    said = walk.text()
    assert said.count("mine-a was skipped: a is not here") == 2
    assert said.count("mine-b failed: diverged at step 7") == 2
    assert said.count("mine-c has not been run to its end yet.") == 2
    assert "3 of 6 runs finished" in said


def test_a_finished_run_whose_result_is_gone_is_named(tmp_path):
    folder = write(tmp_path, one=made(), two=made())
    (folder / "two" / "result.json").unlink()
    said = Walk(page.write(folder).read_text()).text()
    assert "two has lost its result: two/result.json is not there any more" in said


def test_times_and_speeds_are_told(tmp_path):
    said = Walk(page_of(tmp_path, one=made())).text()
    assert "first 500 ± 354 1.00 second 250 ± 177 2.00" in said
    assert "took 1 min 5 s · 2 January 2026, 03:04 UTC" in said


def test_numbers_that_are_not_finite_are_dashes(tmp_path):
    rows = [Row("first", {"test_accuracy": Metric([math.nan, 0.5]), "loss": Metric([1.0, math.nan])})]
    said = Walk(page_of(tmp_path, one=made(rows=rows, notes={"share": math.nan}))).text()
    assert "first – –" in said
    assert "share –" in said
    assert "nan" not in said


def test_forty_seeds(tmp_path):
    result = made(seeds=list(range(40)), rows=[Row("first", {"test_accuracy": Metric([0.5, 0.75] * 20)})])
    said = Walk(page_of(tmp_path, one=result)).text()
    assert "40 seeds" in said
    assert "62.50 ± 12.66" in said


def test_names_from_outside_are_escaped(tmp_path):
    result = made(
        MARK, dataset=MARK, device=MARK, settings={MARK: MARK, "deep": [{MARK: [MARK] * 9}]},
        rows=[Row(MARK, {MARK: Metric([1.0, 2.0])})],
        notes={MARK: {MARK: [MARK] * 9}}, timings={MARK: {MARK: [1.0]}}, provenance={MARK: MARK},
    )  # fmt: skip
    html = page_of(tmp_path, one=result, two=(MARK, "failed", MARK))
    walk = Walk(html)
    assert walk.problems == []
    assert walk.all("script") == [{}]
    assert html.count("alert(") == html.count("&lt;script&gt;alert(") > 10
    assert "alert('x')" in walk.text()


def test_a_figure_with_markup_in_a_name_stays_a_figure(one_seed):
    images = Walk(one_seed[1].decode()).all("img")
    assert images
    for each in images:
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
    with pytest.raises(DataError, match=r"^'[^']*some-figure\.png' is not a PNG image"):
        page.write(folder)


# -- files -----------------------------------------------------------------------------------------------------------


def test_one_run_or_several_side_by_side_without_claims_json(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        made(dataset=name).write(tmp_path / name)
    said = Walk(page.write(tmp_path).read_text()).text()
    assert said.index("On a 2 seeds") < said.index("On b 2 seeds")
    assert "A quick run" not in said
    assert "mine on a" in Walk(page.write(tmp_path / "a").read_text()).text()


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes_and_nothing_else_is_written(one_seed):
    folder, first = one_seed
    assert page.write(folder).read_bytes() == first
    assert {str(each.relative_to(folder)) for each in folder.rglob("*")} == {
        "claims.json", "one", "one/result.json", "report.html",
    }  # fmt: skip
    assert len(first) < 1_000_000


DAMAGE = {
    "no JSON": "{",
    "a list": "[]",
    "no rows": lambda held: held.pop("rows"),
    "no text": lambda held: held.update(dataset=3),
    "words for numbers": lambda held: held["rows"][0]["metrics"]["loss"].update(values=["much"]),
    "a row without values": lambda held: held["rows"][0]["metrics"]["loss"].pop("values"),
    "times in another shape": lambda held: held["timings"].update(first=[1.0]),
    "settings of an older version": lambda held: held.update(experiment="svd-init", settings={}),
    "another format": lambda held: held.update(format=3),
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
        lambda held: held["runs"][0].update(name=".."),
        lambda held: held["runs"][0].update(seconds=-1),
        lambda held: held.update(updated="yesterday"),
        lambda held: held["runs"][0].pop("state"),
        lambda held: held.update(schema=1),
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
    results = [Result.read(tmp_path / run["result"]) for run in held["runs"]]
    assert {result.experiment for result in results} == set(experiments())
    declared = [each for result in results for each in experiments()[result.experiment].figures(result)]
    assert [each["alt"] for each in walk.all("img")] == [each.alt for each in declared]
