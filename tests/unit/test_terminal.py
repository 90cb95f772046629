"""What others wrote cannot steer the terminal, whatever its encoding."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.terminal import VisibleStream, markdown, visible


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text, π, 日本語, é\tand\nlines", "plain text, π, 日本語, é\tand\nlines"),
        ("\x1b]0;owned\x07", r"\u001b]0;owned\u0007"),
        ("\x1b[2J\x9b31m", r"\u001b[2J\u009b31m"),
        ("over\rwritten\x08\x7f", r"over\u000dwritten\u0008\u007f"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\ud83d alone", r"\ud83d alone"),
        ("tag\U000e0041", r"tag\udb40\udc41"),
        ("👨\u200d👩\u200d👧 \u3000 \u00a0", "👨\u200d👩\u200d👧 \u3000 \u00a0"),
    ],
)
def test_control_characters_are_shown(raw, shown):
    assert visible(raw) == shown


@given(st.text())
def test_escapes_inside_json_read_back(text):
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_no_encoding_makes_an_error(encoding):
    raw = io.BytesIO()
    stream = VisibleStream(io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    stream.write("π \u2713 \udc80 \x1b[0m\n")
    stream.flush()
    assert raw.getvalue().decode(encoding).endswith(r" \udc80 \u001b[0m" + "\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name-1.5b", "plain name-1.5b"),
        ("a | b", r"a \| b"),
        ("two\nlines\r\n| x |", r"two lines \| x \|"),
        ("`code` *bold* snake_case", r"\`code\` \*bold\* snake_case"),
        ("</script><img src=x>", r"\</script\>\<img src=x\>"),
        ("[a](http://x)", r"\[a\](http://x)"),
        ("\x1b]0;t\x07\u202e", "\\\\u001b\\]0;t\\\\u0007\\\\u202e"),
        ("half \ud800", "half \\\\ud800"),
    ],
)
def test_markdown_of_data_is_only_text(text, shown):
    assert markdown(text) == shown
    assert "\n" not in markdown(text)
