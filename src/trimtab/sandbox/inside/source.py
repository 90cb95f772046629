"""What the text of the tests alone tells: the names they leave to the program, and how they compare."""

# few imports inside:
import ast
import functools
import re
import symtable

UNSHARED = re.compile(
    r"\b(patch|Mock|MagicMock|AsyncMock|monkeypatch|capsys|capfd|tmp_path)\b|\brandom\.seed\("
    r"|\b(catch_warnings|assertWarns\w*|assertLogs|caplog|wait_for|create_task|GeneratorType|get_type_hints|getsource)\b"
    r"|\binspect\.\w+|\bos\.(environ|getenv|putenv|getcwd|chdir)\b|\bsys\.(argv|path|modules)\b"
)
"""What tests share with a program only where both are one process: mocks, seeds, the environment."""


# fmt: off
WELL_KNOWN = {
    "pandas", "scipy", "sklearn", "matplotlib", "seaborn", "sympy", "networkx", "requests", "bs4", "nltk", "torch",
    "PIL", "tensorflow", "cv2", "yaml", "flask", "django", "lxml", "psutil", "pytz", "dateutil", "statsmodels", "faker",
    "regex", "openpyxl", "sqlalchemy", "pydantic", "tqdm", "shapely", "pytest", "hypothesis", "cryptography", "docx",
    "sortedcontainers", "wordcloud", "textblob", "gensim", "skimage", "numba", "jax", "xlrd", "folium", "httpx",
    "aiohttp", "numpy",
}
# fmt: on
"""Packages that programs of data sets import and the sandbox may not offer."""


@functools.lru_cache(maxsize=4)
def free_names(source):
    """Names that `source` reads globally and does not itself bind at its top level."""
    table = symtable.symtable(source, "<tests>", "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    names, queue = set(), [table]
    while queue:
        t = queue.pop()
        queue += t.get_children()
        top = t is table
        names |= {
            s.get_name() for s in t.get_symbols() if s.is_referenced() and (s.get_name() not in bound)
            and (top or s.is_global())
        }  # fmt: skip
    return names


def imported(source, aliases):
    """Names that the tests import from the program under one of its aliases."""
    names, tree = set(), ast.parse(source)
    imports = [a for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    aliases = aliases | {a.asname for a in imports if a.asname and a.name in aliases}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in aliases:
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            names.add(node.attr)
    return names - {"*"}


@functools.lru_cache(maxsize=4)
def compares_with_literals(source):
    """Whether every assertion compares with a literal, so that a changed argument cannot change what is expected."""
    checks = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            checks.append(_grounded(node.test))
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert")
        ):
            checks.append(any(map(_literal, node.args)))
    return bool(checks) and all(checks)


def _grounded(test):
    if isinstance(test, ast.BoolOp):
        return all(map(_grounded, test.values))
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and any(map(_literal, (test.left, *test.comparators)))


def _literal(node):
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
