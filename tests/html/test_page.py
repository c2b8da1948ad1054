"""The page: every text escaped, no address, readable without its script, which sorts and filters
where there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from probe.html import (
    Cell,
    Column,
    Comparison,
    Curve,
    Figure,
    Finding,
    Page,
    Picture,
    Row,
    RunPart,
    Table,
    render,
)
from probe.html.page import asset, policy

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
NASTY = [
    "<script>alert(1)</script>",
    "</style><b>",
    "\"' onload=alert(1) x='\"",
    "{{ 7 * 7 }}{% raw %}",
    "n" * 300,
    "javascript:alert(1)",
]
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Seen(HTMLParser):
    """Elements with their attributes, ids, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def layers(names: list[str], values: list[float | None]) -> Table:
    rows = [
        Row(
            (
                Cell(name, n, f"r-curve-{n}"),
                Cell("-" if v is None else str(v), v),
                Cell("x y", "x_y", status="x_y"),
            ),
            f"s{n % 2}",
        )
        for n, (name, v) in enumerate(zip(names, values, strict=True))
    ]
    columns = (Column("layer", "Its path.", False), Column("alpha"), Column("status", number=False))
    return Table("t", "Layers", columns, tuple(rows))


def page(
    text: str = "plain", names: list[str] | None = None, values: list[float | None] | None = None
) -> Page:
    names = names or [text, f"b{text}"]
    picture = Picture(PNG, f"alt {text}")
    part = RunPart(
        "r",
        text,
        text,
        facts=((text, text),),
        warnings=(text,),
        findings=(Finding(text, text),),
        notes=(text,),
        layers=layers(names, values or [1.0] * len(names)),
        curves=tuple(
            Curve(f"r-curve-{n}", name, text, ((text, text),), picture if n else None)
            for n, name in enumerate(names)
        ),
        curves_note=text,
        figures=(Figure("r-f", text, text, picture),),
        attention=Table("h", text, (Column(text, text),), (Row((Cell(text, text),)),)),
        attention_figures=(Figure("r-g", text, text, picture),),
        manifest=text,
        files=((text, text),),
    )
    return Page(text, (part,))


@pytest.mark.parametrize("text", NASTY)
def test_a_text_from_outside_is_shown_and_never_obeyed(text: str) -> None:
    html = render(page(text))
    seen, plain = Seen(html), Seen(render(page()))
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in plain.elements]
    assert seen.text.count(text) >= 15
    assert not [
        name for _, attributes in seen.elements for name in attributes if name.startswith("on")
    ]
    assert seen.open == []


def test_nothing_is_loaded_and_no_link_leaves_the_page() -> None:
    html = render(page())
    seen = Seen(html)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", html)
    for _, attributes in seen.elements:
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("src") or "data:image/png;base64,").startswith(
            "data:image/png;base64,"
        )
    assert not [
        tag for tag, _ in seen.elements if tag in ("link", "iframe", "object", "base", "form")
    ]


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    html = render(page())
    (style,), (script,) = (
        re.findall(r"<style>(.*?)</style>", html, re.DOTALL),
        re.findall(r"<script>(.*?)</script>", html, re.DOTALL),
    )
    (told,) = [meta["content"] for meta in Seen(html).all("meta") if "http-equiv" in meta]
    assert told == policy(style, script) == policy(asset("style.css"), asset("table.js"))
    assert told.startswith("default-src 'none'")
    assert "unsafe" not in told
    assert not [attributes for _, attributes in Seen(html).elements if "style" in attributes]


def test_ids_are_unique_and_every_link_leads_somewhere() -> None:
    part = page().parts[0]
    several = Page("two", (part,), Comparison(layers(["a"], [1.0]), ()))
    for html in (render(page()), render(several)):
        seen = Seen(html)
        ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
        if html == render(page()):
            assert len(ids) == len(set(ids))
        assert {(link["href"] or "")[1:] for link in seen.all("a")} <= set(ids)


def test_pictures_have_words_and_their_size_and_stand_once() -> None:
    html = render(page(names=["a", "b", "c"]))
    pictures = Seen(html).all("img")
    assert len(pictures) == 2 + 2  # a layer without a picture has none
    assert all(
        image["alt"] and (image["width"], image["height"]) == ("1", "1") for image in pictures
    )


def test_the_table_reads_in_its_order_and_holds_its_keys() -> None:
    html = render(page(names=["second", "first"], values=[0.123456789, None]))
    assert html.index(">second<") < html.index(">first<")
    seen = Seen(html)
    keys = [cell["data-v"] for cell in [*seen.all("td"), *seen.all("th")] if "data-v" in cell]
    assert "0.123456789" in keys
    assert keys.count("") == 1
    assert all(
        controls.get("hidden", "no") is None
        for controls in seen.all("div")
        if controls.get("class") == "controls"
    )


def test_what_a_run_does_not_have_has_no_section() -> None:
    bare = render(Page("bare", (RunPart("r", "bare", "nothing"),)))
    assert [h["id"] for h in Seen(bare).all("h2")] == ["r-run-title"]
    assert "<table" not in bare


def test_a_comparison_comes_first_and_headings_keep_their_order() -> None:
    part = page().parts[0]
    html = render(
        Page(
            "a, b",
            (part,),
            Comparison(layers(["a"], [1.0]), (Figure("c", "Side", "by side", Picture(PNG, "x")),)),
        )
    )
    levels = [int(tag[1]) for tag, _ in Seen(html).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[:2] == [1, 2]
    assert html.index('id="comparison"') < html.index('id="r"')
    assert levels.count(1) == 1


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVE = """<script>
const out = [];
const shown = () => [...document.querySelectorAll("#t tbody tr")]
  .filter((row) => !row.hidden);
const cells = () => shown().map((row) => row.cells[0].textContent);
addEventListener("error", (event) => out.push("ERROR " + event.message));
const button = (n) => document.querySelectorAll("#t th button")[n];
for (const n of [1, 1, 1, 0, 0]) {
  button(n).click();
  out.push(cells().join(" ") + " " + button(n).closest("th").ariaSort);
}
const name = document.querySelector("input"), status = document.querySelector("select");
name.value = "A"; name.dispatchEvent(new Event("input"));
out.push(cells().join(" ") + " " + document.querySelector("output").textContent);
name.value = ""; status.value = "s1"; status.dispatchEvent(new Event("change"));
out.push(cells().join(" "));
location.hash = "#r-curve-1";
document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
out.push(location.hash);
document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
out.push(location.hash);
document.body.textContent = ""; document.body.setAttribute("data-out", out.join("|"));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_the_table_sorts_filters_and_the_keys_work(tmp_path: Path) -> None:
    html = render(page(names=["a1", "b2", "a3", "b4"], values=[10.0, None, 9.0, 1e-3]))
    file = tmp_path / "page.html"
    file.write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", DRIVE + "</body>")
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    dom = subprocess.run(
        [*command, file.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    (out,) = re.findall(r'data-out="([^"]*)"', dom)
    assert out.split("|") == [
        "b4 a3 a1 b2 ascending",  # as numbers, the empty one last
        "a1 a3 b4 b2 descending",
        "a1 b2 a3 b4 none",
        "a1 b2 a3 b4 ascending",
        "b4 a3 b2 a1 descending",
        "a3 a1 2 of 4 layers",
        "b4 b2",
        "#r-curve-2",
        "#r-curve-2-small",
    ]
