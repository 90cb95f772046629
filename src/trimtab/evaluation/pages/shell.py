"""Text, style and scripts to ONE HTML file that works offline: the shell of every page, and its only markup.

The page asks the network for nothing, and a Content-Security-Policy with the hashes of its own scripts forbids whatever
a completion might smuggle in. Bodies hold text that `escape` has made harmless, or data that scripts show as text.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any

STYLE = """body{font:15px/1.6 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222;
background:#fff}.note{color:#555;font-size:13px}"""
"""Of pages that bring little of their own."""
_POLICY = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
escape = html.escape


def label(name: str) -> str:
    """A name as plotly shows it: it reads <b>, <a> and entities in labels, and a name is only text."""
    return html.escape(name, quote=False)


def page(title: str, body: str, style: str, scripts: Sequence[str] = (), data: Any = None) -> str:
    """The HTML text of a page; `data` is what scripts read from the element "data", as JSON."""
    hashes = " ".join(map(_csp_hash, scripts)) or "'none'"
    held = "" if data is None else f'<script type="application/json" id="data">{embed_json(data)}</script>\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {hashes}; {_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
{held}{"".join(f"<script>{s}</script>" for s in scripts)}
</body>
</html>
"""


def embed_json(value: Any) -> str:
    """Compact JSON that is safe inside a script element: it holds no <, > or & and no line separators of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates would make the file unwritable


def _csp_hash(script: str) -> str:
    # browsers hash the text after turning CRLF into LF, as HTML's parser does
    digest = hashlib.sha256(script.replace("\r\n", "\n").replace("\r", "\n").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
