"""Every page in `docs/` keeps its word: its Python runs, its commands are understood, what it names exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import peft_interp
from peft_interp import embedded
from peft_interp.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")  # a stock script's, here
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# tests of the things themselves run their code
ELSEWHERE = {
    "answers.md",
    "explain.md",
    "gallery.md",
    "metrics.md",
    "reading-a-report.md",
    "real-models.md",
    "tasks.md",
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


PAGES = sorted(path.name for path in DOCS.glob("*.md") if path.name not in ELSEWHERE and blocks(path.name, "python"))


@pytest.fixture
def server() -> Iterator[str]:
    """The embedded model behind `/v1/completions`, as far as a client needs it that asks for the likeliest tokens."""
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()

    class Completions(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, asked["temperature"]) == ("/v1/completions", 0)
            inputs = tokenizer(asked["prompt"], return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=asked["max_tokens"], do_sample=False)[0]
            said = tokenizer.decode(ids[inputs["input_ids"].shape[1] :])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"text": said, "prompt": asked["prompt"]}]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Completions) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "serving.md"])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks(page, "python")), page, "exec"), {"__name__": "__main__"})


def test_serving_runs_from_the_export_to_the_client(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    ran = 0
    for language, code in re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL):
        if language == "python":
            exec(compile(code.replace("http://localhost:8000", server), "serving.md", "exec"), names)
            continue
        for line in code.splitlines():
            command, *arguments = shlex.split(line)
            assert (command, main(arguments)) == ("peft-interp", 0)
            ran += 1
    assert ran == 3
    answer = capsys.readouterr().out.strip().splitlines()[-1].strip()
    (expected,) = peft_interp.classify(
        names["model"], names["tokenizer"], ["A wonderful film."], names["verbalizer"], progress=False
    )
    assert answer == expected["label"]  # what a server says to the text is what the adapter says
    said = (tmp_path / "outputs" / "prompt.txt").read_bytes().decode()
    assert said == names["model"].prompt_text(names["tokenizer"])
    assert said in (tmp_path / "outputs" / "Modelfile").read_text()
    assert said in json.loads((tmp_path / "outputs" / "prompt.json").read_text())[0]["content"]


def test_what_is_not_run_is_at_least_well_formed() -> None:
    for code in blocks("serving.md", "py"):
        ast.parse(code)
    for code in blocks("serving.md", "sh"):
        assert subprocess.run(["bash", "-n"], input=code, text=True, timeout=30, check=False).returncode == 0


def test_every_equation_has_a_function() -> None:
    named = re.findall(r"`(peft_interp\.[\w.]+)`", (DOCS / "paper-map.md").read_text(encoding="utf-8"))
    assert len(named) > 25
    for path in named:
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name)), path


def pages_of_the_repository() -> list[Path]:
    folders = ("docs", "examples", "studies", "benchmarks", "peft_interp")
    inside = [page for folder in folders for page in (ROOT / folder).rglob("*.md")]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *inside]  # the changelog tells of what is gone


def missing_commands(text: str) -> set[str]:
    """What a page says to run and that is not there: scripts, packages, targets, what pip is to fetch from an index.

    The line that says how published results were made keeps the command of its day.
    """
    text = re.sub(r"^Made on .*$", "", text, flags=re.MULTILINE)
    found = {
        name for name in re.findall(r"python ([\w/.-]+\.py)\b", text) if "/" in name and not (ROOT / name).is_file()
    }
    for name in re.findall(r"python -m ((?:studies|benchmarks|tools|tests)[\w.]*\w)", text):
        place = ROOT / name.replace(".", "/")
        found |= set() if (place / "__main__.py").is_file() or place.with_suffix(".py").is_file() else {name}
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    known = {name for line in targets for name in line.split()} | {"test-newest", "test-floor"}
    found |= {f"make {name}" for name in re.findall(r"(?:^ {4}|`|^)make ([a-z-]+)", text, re.MULTILINE)} - {
        f"make {name}" for name in known
    }
    return found | set(re.findall(r"pip install [\"']?peft-interp\S*", text))


def test_pages_name_commands_that_exist() -> None:
    pages = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages_of_the_repository()}
    assert {"README.md", "docs/support.md", "studies/tradeoff/README.md"} <= pages.keys()
    assert {name: gone for name, text in pages.items() if (gone := missing_commands(text))} == {}


def test_missing_commands_are_found() -> None:
    gone = "python studies/gone.py\n`make gone`\npython -m tools.gone\npip install peft-interp\n    make test\n"
    assert missing_commands(gone) == {"studies/gone.py", "make gone", "tools.gone", "pip install peft-interp"}


def documented() -> set[str]:
    """Every name that the reference shows, by its whole path, and those of the root."""
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    found = {f"peft_interp.{name}" for name in peft_interp.__all__}
    for path, options in re.findall(r"^::: (peft_interp\.[\w.]+)\n((?:    .*\n)*)", page, re.MULTILINE):
        members = re.findall(r"members: \[(.*)\]", options)
        found |= {path, *(f"{path}.{name}" for each in members for name in each.split(", "))}
    return found


def shown_code() -> Iterator[tuple[str, str]]:
    """All Python that a user is shown: blocks of pages, examples, cells of notebooks; with where it stands."""
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        code = re.findall(r"```(?:python|py)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        yield from ((page.name, block) for block in code if page.name != "CONTRIBUTING.md")  # it shows the inside
    for script in (ROOT / "examples").rglob("*.py"):
        yield script.name, script.read_text(encoding="utf-8")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield notebook.name, "".join(cell["source"])


def used_names(code: str) -> set[str]:
    """Whole paths of what code imports of this package, and of what it takes from modules among that."""
    tree, found, aliases = ast.parse(code), set(), {"peft_interp": "peft_interp"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "peft_interp":
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("peft_interp.")}
    modules = {name: path for name, path in aliases.items() if is_module(path)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.add(f"{modules[node.value.id]}.{node.attr}")
    return {path for path in found if not path.rpartition(".")[2].startswith("__")}


def is_module(path: str) -> bool:
    try:
        import_module(path)
    except ImportError:
        return False
    return True


def test_all_that_users_are_shown_is_public_or_in_the_reference() -> None:
    """An import of a module that the reference leaves out would be a promise that nobody knows of."""
    known = documented()
    pieces = list(shown_code())
    assert {"README.md", "serving.md", "app.py", "1_train_and_read.ipynb"} <= {place for place, _ in pieces}
    unknown = {(place, path) for place, code in pieces for path in used_names(code) - known}
    assert unknown == set()


def test_names_that_code_uses() -> None:
    code = "import peft_interp.hub as h\nfrom peft_interp import embedded as e, classify\ne.load_model(e.GONE)"
    expected = {"hub", "embedded", "classify", "embedded.load_model", "embedded.GONE"}
    assert used_names(code) == {f"peft_interp.{name}" for name in expected}


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: peft_interp\.([\w.]+)$", page, re.MULTILINE)
    last = [path.rpartition(".")[2] for path in shown]
    assert set(peft_interp.__all__) <= set(last)
    for path in shown:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(f"peft_interp.{module}".rstrip(".")), name), path
