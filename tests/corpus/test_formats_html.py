"""Web pages as documents: what a reader sees of their main content."""

from __future__ import annotations

import pytest

from llmops.corpus._parsing import parse


def read(page: str) -> str:
    return parse("page.html", None, page.encode()).text


def body(content: str, head: str = "") -> str:
    return read(f"<html><head>{head}</head><body><p>Seen.</p>{content}</body></html>")


PAGE = """<!doctype html><html><head><title>Rivers</title></head><body>
<header><a href="/">Home</a><h1>The site</h1></header>
<nav><ul><li><a href="/a">Menu</a></li></ul></nav>
<div id="cookie-banner">We use cookies.</div>
<main>
<article><header><h1>Rivers <a class="headerlink" href="#rivers">¶</a></h1></header>
<p>A <em>river</em> begins at a <a href="https://a.example/spring">spring</a>.<img src="x.png" alt="A spring"></p>
<pre><code class="language-python">print("a | b")
```</code></pre>
<table><thead><tr><th>River</th><th>Length|km</th></tr></thead><tbody><tr><td>Elbe</td><td>1,094</td></tr></tbody></table>
<aside>Read also.</aside><footer>Share this.</footer></article>
<form><label>Search</label><input><button>Go</button></form>
</main>
<footer>Imprint</footer></body></html>"""


def test_a_page_is_its_main_content() -> None:
    assert read(PAGE) == (
        "# Rivers\n\n"
        "A *river* begins at a [spring](https://a.example/spring).A spring\n\n"
        '````python\nprint("a | b")\n```\n````\n\n'
        "| River | Length\\|km |\n| --- | --- |\n| Elbe | 1,094 |\n"
    )


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>No.</p>",
        "<p hidden=''>No.</p>",
        "<p style='color:red; display : none'>No.</p>",
        "<p style='VISIBILITY:hidden'>No.</p>",
        "<p style='opacity:0'>No.</p>",
        "<p style='font-size:0px'>No.</p>",
        "<p style='position:absolute;left:-9999px'>No.</p>",
        "<div aria-hidden='true'><p>No.</p></div>",
        "<p class='a off'>No.</p>",
        "<p id='gone'>No.</p>",
        "<template><p>No.</p></template>",
        "<noscript>No.</noscript>",
        "<dialog>No.</dialog>",
        "<!-- No. -->",
        "<![CDATA[ No. ]]>",
        "<?php No. ?>",
        "<svg><text>No.</text></svg>",
        "<script>No.</script>",
        "<textarea>No.</textarea>",
        "<a href='https://a.example' title='No.'></a>",
    ],
)
def test_what_nobody_sees_stays_out(hidden: str) -> None:
    css = "<style>/* .shown{display:none} */ @media print{.shown{display:none}} .off, #gone{display:none}</style>"
    assert body(hidden, css) == "Seen.\n"


@pytest.mark.parametrize(
    "shown",
    [
        "<p class='shown'>Yes.</p>",
        "<p style='opacity:0.5'>Yes.</p>",
        "<p style='fill-opacity:0'>Yes.</p>",
        "<p style='margin-left:-200px'>Yes.</p>",
        "<p aria-hidden='false'>Yes.</p>",
        "<details><p>Yes.</p></details>",
        "<dialog open>Yes.</dialog>",
        "<p class='cookie-recipe'>Yes.</p>",
    ],
)
def test_what_can_be_seen_is_kept(shown: str) -> None:
    css = "<style>/* .shown{display:none} */ @media print{.shown{display:none}} p .x{display:none}</style>"
    assert body(shown, css) == "Seen.\n\nYes.\n"


@pytest.mark.parametrize(
    "banner",
    [
        "<div class='cookie-consent'>No.</div>",
        "<section id='gdpr_notice'>No.</section>",
        "<div id='onetrust-banner-sdk'>No.</div>",
        "<div class='js-cookie-bar visible'>No.</div>",
        "<div role='navigation'>No.</div>",
        "<div role='contentinfo'>No.</div>",
        "<aside>No.</aside>",
        "<header>No.</header>",
        "<div role='banner'>No.</div>",
    ],
)
def test_what_stands_around_the_text_is_dropped(banner: str) -> None:
    assert body(f"<p>It is a page about rivers.</p>{banner}") == "Seen.\n\nIt is a page about rivers.\n"


def test_several_articles_are_all_read_and_nested_ones_once() -> None:
    inner = "<article><p>Two.</p></article>"
    page = f"<div>Blog</div><article><p>One.</p>{inner}<p>Three.</p></article><article><p>Four.</p></article>"
    assert read(page) == "One.\n\nTwo.\n\nThree.\n\nFour.\n"


def test_a_main_element_without_the_text_is_not_where_the_text_is() -> None:
    assert "The text is here" in read(
        "<main><p>Loading</p></main><div>" + "The text is here. " * 20 + "</div>"
    )


def test_a_form_around_the_whole_page_is_the_page() -> None:
    assert read("<form><p>All that the page says.</p><input></form>") == "All that the page says.\n"


def test_the_only_heading_is_kept_from_a_page_header() -> None:
    assert read("<header><nav>Menu</nav><h1>Rivers</h1></header><p>They begin at a spring.</p>").startswith(
        "# Rivers\n"
    )


def test_text_is_no_structure() -> None:
    assert read("<p># one</p><p>two<br>---</p><p>``` three</p>") == "\\# one\n\ntwo\n\\---\n\n\\``` three\n"


def test_what_a_tab_shows_is_kept_under_the_name_of_the_tab() -> None:
    tabs = (
        "<div role='tablist'><button role='tab' aria-controls='one'>Linux</button></div>"
        "<div role='tabpanel' id='one' hidden><p>Use make.</p></div>"
        "<div role='tabpanel' id='two' hidden><p>No.</p></div>"
    )
    assert body(tabs) == "Seen.\n\nLinux\n\nUse make.\n"


def test_a_note_beside_the_text_is_kept() -> None:
    assert (
        body("<aside class='Note'>Mind the gap.</aside><aside class='sidebar'>No.</aside>")
        == "Seen.\n\nMind the gap.\n"
    )


def test_a_text_that_goes_on_is_not_escaped() -> None:
    assert read("<p><a href='/x'>one</a> --\n<b>two</b></p>") == "[one](/x) --\n**two**\n"


def test_links_stay_within_their_line() -> None:
    assert read(
        "<p>visit\n<a href='https://a.example/'>https://a.example/</a> or\n<a href='/b'>\nb</a></p>"
    ) == ("visit\nhttps://a.example/ or\n[b](/b)\n")


def test_links_that_run_code_are_their_label() -> None:
    assert (
        body("<a href='javascript:alert(1)'>one</a> <a href='/a_(b)'>two</a> <a href='/a_(b'>three</a>")
        == "Seen.\n\none [two](/a_(b)) [three](</a_(b>)\n"
    )


def test_a_long_table_repeats_its_header() -> None:
    rows = "".join(f"<tr><td>River {n}</td><td>a long cell about it</td></tr>" for n in range(60))
    text = read(f"<table><tr><th>River</th><th>About</th></tr>{rows}</table>")
    parts = text.strip().split("\n\n")
    assert len(parts) > 2
    assert all(part.startswith("| River | About |\n| --- | --- |\n| River ") for part in parts)


def test_a_table_without_a_header_has_its_first_row_as_one() -> None:
    assert read("<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>") == (
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "<pre class='lang-js'>x</pre>",
        "<div class='highlight-js notranslate'><div class='highlight'><pre>x</pre></div></div>",
        "<pre><code class='hljs language-js'>x</code></pre>",
    ],
)
def test_a_code_block_names_its_language(code: str) -> None:
    assert body(code) == "Seen.\n\n```js\nx\n```\n"
