import re

from trimtab.evaluation.pages.heatmap import heatmap_html, heatmap_text
from trimtab.learners.token.credit import Credit

GOOD = Credit("p", 0, ("<script>", " yes"), (-1.0, -0.5), (-2.0, -2.5), 0.1, True)
BAD = Credit("p", 1, ("no",), (-3.0,), (-1.0,), 0.1, False)


def test_page_is_escaped_offline_and_holds_the_numbers():
    page = heatmap_html([[GOOD, BAD]], {"p": "is 2 < 3?"})
    assert page.count("<script>") == 1 and "&lt;script&gt;" in page and "is 2 &lt; 3?" in page
    assert not re.search(r"(src|href)=(?!.data:,.)|https?://|@import|url\(", page)
    assert [float(x) for x in re.findall(r'data-a="([^"]*)"', page)] == [0.1, 0.2, -0.2]
    assert [float(x) for x in re.findall(r'data-v="([^"]*)"', page)] == [0.1, 0.3, -0.2]
    assert "implicit reward +0.300" in page and "implicit reward -0.200 (cut" in page
    assert page.index("chosen") < page.index("rejected")


def test_terminal_colours_by_hand():
    text = heatmap_text(GOOD, scale=0.2)
    assert text.plain == "<script> yes"
    assert [str(s.style) for s in text.spans] == ["black on #90b2d6", "black on #2166ac"]  # half and full blue
    assert str(heatmap_text(BAD, scale=0.1).spans[0].style) == "black on #b2182b"
    assert str(heatmap_text(GOOD, view="v", scale=0.3).spans[1].style) == "black on #2166ac"


def test_no_credits_is_still_a_page():
    assert "Credit of tokens" in heatmap_html([], {})
