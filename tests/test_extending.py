"""CONTRIBUTING's examples: a new reward, metric, move, loss term or task type touches one file of the package.

The code of each is put into that file of a copy of the package, as a contributor would, and its test runs there.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path

import pytest

import peft_interp
from docs.write_tables import PAGE, TABLES, with_tables
from peft_interp import embedded, measure_scrutability
from peft_interp.metrics.metric import Metric
from peft_interp.search.moves import MOVES, Move, shares_of
from tests import processes

PACKAGE = Path(peft_interp.__file__).parent
GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
SECTION = re.compile(r"^### (A [^\n]*)\n(.*?)(?=^### |^\*\*|\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```python\n# (in (?P<file>peft_interp/\S+)|test)\n(?P<code>.*?)```", re.DOTALL)

BEFORE = """
import os, sys, tempfile
from enum import Enum
from pathlib import Path
import peft, peft.config
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

# a PEFT that knows one task type more
known = {task.name: task.value for task in peft.TaskType}
peft.config.TaskType = Enum("TaskType", {**known, "MASKED_LM": "MASKED_LM"}, type=str)
MODEL_TYPE_TO_PEFT_MODEL_MAPPING["MASKED_LM"] = peft.PeftModelForFeatureExtraction

import torch
from peft import PeftConfig, get_peft_model
from transformers import AutoModelForMaskedLM, RobertaConfig
from peft_interp import (
    InterpPromptConfig, PromptSearchConfig, RLPromptConfig, RLPromptTrainer, embedded, measure_scrutability, metrics,
    report_prompt,
)
from peft_interp.search.moves import shares_of
from peft_interp.search.proposals import ProposalSettings, Proposer

model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
verbalizer = embedded.TASKS["sentiment"]

def prompted(**settings):
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4, **settings}
    config = InterpPromptConfig(tokenizer_name_or_path=embedded.MODEL_PATH, **settings)
    return get_peft_model(embedded.load_model(), config)


os.chdir(tempfile.mkdtemp())
"""


def examples() -> dict[str, tuple[str, str, str]]:
    """By heading: the file that is touched, what goes into it, and its test."""
    found = {}
    for heading, body in SECTION.findall(GUIDE.read_text(encoding="utf-8")):
        (change, test) = BLOCK.finditer(body)
        found[heading.strip()] = (change["file"], change["code"], test["code"])
    return found


def record_of(addition: str) -> tuple[str, str, int]:
    """The registry's name, the new record's code, and the line that the registry begins on."""
    new = ast.parse(addition).body[-1]
    assert isinstance(new, ast.Assign)
    assert isinstance(new.value, ast.Tuple)
    record = ast.get_source_segment(addition, new.value.elts[-1])
    assert record
    return ast.unparse(new.targets[0]), record, new.lineno


def with_record(source: str, addition: str) -> str:
    """The file with the addition's functions before its registry, and the addition's record in the registry."""
    name, record, begins = record_of(addition)
    registry = next(
        node
        for node in ast.parse(source).body
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name)
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name)
    )
    first, last = registry.lineno, registry.end_lineno or registry.lineno
    lines, helpers = source.splitlines(), addition.splitlines()[: begins - 1]
    rest = lines[last - 1].removesuffix(")").rstrip(", ")
    closing = [f"{rest}," if rest else "", f"{record},", ")"]
    return "\n".join([*lines[: first - 1], *helpers, *lines[first - 1 : last - 1], *closing, *lines[last:]])


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all the additions."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, root / "peft_interp", ignore=shutil.ignore_patterns("__pycache__", "embedded"))
    (root / "peft_interp" / "embedded").symlink_to(PACKAGE / "embedded")
    for file, addition, _ in examples().values():
        path = root / file
        path.write_text(with_record(path.read_text(encoding="utf-8"), addition), encoding="utf-8")
    return root


def test_every_kind_has_its_example() -> None:
    assert list(examples()) == ["A reward", "A metric", "A search move", "A term of the loss", "A task type"]
    assert len({file for file, _, _ in examples().values()}) == 5


def test_one_file_is_all_that_a_new_kind_touches(extended: Path) -> None:
    """All tests in one process, since loading torch and transformers takes longest."""
    tests = [f"# {heading}\n{test}print({heading!r})\n" for heading, (_, _, test) in examples().items()]
    script = extended / "tests.py"
    script.write_text("\n".join([BEFORE, *tests]), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    run = processes.run(str(script), env=environment, cwd=extended)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [line for line in run.stdout.splitlines() if line in examples()] == list(examples())


def test_the_additions_are_in_no_file_of_this_package() -> None:
    """So what the copy can do, it can do because of them."""
    for file, addition, _ in examples().values():
        name = re.search(r'"(\w+)"', record_of(addition)[1])
        assert name
        assert f'"{name[1]}"' not in (GUIDE.parent / file).read_text(encoding="utf-8")


def test_the_docs_tables_are_those_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- table: {name} -->" in page for name in TABLES)
    assert with_tables(page) == page


def test_the_docs_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, {})
    assert capsys.readouterr().out.startswith("Measure(value=1, human=")


def test_a_user_adds_a_metric_without_touching_the_package() -> None:
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    mine = Metric("short", lambda x: float(len(x.ids) < 5), "higher", "short", "1 below five tokens", referenced=True)
    found = measure_scrutability(model, tokenizer, "Is it good or bad?", own_metrics=(mine,)).measures
    assert (found["short"].value, found["short"].better, found["short"].human) == (0.0, "higher", 0.0)
    assert "short" not in measure_scrutability(model, tokenizer, "Is it good or bad?").measures


def test_a_users_move_brings_its_own_share() -> None:
    mine = Move("same", lambda inputs, count: [list(inputs.parents[0])] * count, 0.2, "the best parent as it is")
    assert shares_of(object(), (*MOVES, mine))[mine] == 0.2
