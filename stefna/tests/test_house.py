"""The house stands as docs and design say: who may import whom, and every setting written down."""

import ast
import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APPS = ["accounts", "notifications", "generation", "stefna"]

# Inside generation, a layer may import itself and what stands below it.
LAYERS = [
    {"views", "views_history", "views_profile", "views_metrics", "pictures", "context_processors", "admin", "urls"}
    | {"admin_presets", "admin_history", "admin_catalogue", "admin_circuits"}
    | {"admin_runs", "admin_run_filters", "admin_users"}
    | {"api", "api_profile", "serializers", "exports", "tasks", "sweep", "management"},
    {"services", "showing", "tryout"},
    {"attempts", "queue"},
    {"figures", "waiting", "charts", "metrics", "histogram"}
    | {"models", "forms", "modes", "photos", "catalogue", "timeline", "images", "providers"},
    {"engine"},
    {"exceptions", "apps", "long_polls"},
]


def modules():
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.parts):
                yield path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


def layer(part):
    return next(number for number, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    app = parts[0]
    for name, _ in imports(path):
        target = name.split(".")
        if target[0] in APPS:
            assert APPS.index(target[0]) <= APPS.index(app), f"{app} imports {name}"
        if app == target[0] == "generation" and len(target) > 1 and parts[1] != "__init__":
            mine, theirs = layer(parts[1]), layer(target[1])
            assert theirs >= mine, f"{parts[1]} imports {name}"
        if parts[:2] == ("generation", "engine"):
            assert target[0] not in ("django", *APPS) or target[:2] == ["generation", "engine"], name
        if parts[:2] == ("generation", "providers"):
            assert "models" not in target, name


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_hides_in_a_function(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name != "ready":
            assert not [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)], node.name


def test_every_setting_is_in_the_example_and_back():
    code = (ROOT / "stefna" / "settings.py").read_text()
    read = set(re.findall(r'env(?:\.\w+)?\("(\w+)"', code)) - {"ENV_FILE"}
    written = set(re.findall(r"^#?\s?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert written - {"PORT", "WORKER_THREADS"} == read


FAULTS = {"D": 10, "K": 17, "I": 11, "L": 10, "F": 23, "S": 21}


def test_every_fault_is_written_down_with_tests_that_are_there():
    rows = re.findall(r"(?m)^\| ([A-Z])(\d+) \|.*\| (.+) \|$", (ROOT / "docs" / "faults.md").read_text())
    assert [(kind, int(number)) for kind, number, _ in rows] == [
        (kind, number) for kind, count in FAULTS.items() for number in range(1, count + 1)
    ]
    for kind, number, proof in rows:
        assert "`" in proof, f"{kind}{number} has no proof"


@pytest.mark.parametrize("document", ["docs/faults.md", "SECURITY.md"])
def test_document_names_tests_that_are_there(document):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / document).read_text())
    assert named
    for path, name in set(named):
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_vendored_scripts_name_no_source_map():
    assert not [path for path in (ROOT / "static").rglob("*.js") if "sourceMappingURL" in path.read_text()]


def test_vendored_files_are_those_that_were_taken():
    folder = ROOT / "static" / "vendor"
    written = dict(re.findall(r"(?m)^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text()))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["README.md"]
    assert found == written
    # Nothing of others is anywhere else.
    scripts = {path.parent.name for path in (ROOT / "static").rglob("*.js")}
    assert scripts == {"vendor", "js", "desk"}
