"""The package's shape: layers, one writer to PEFT's registries, a pinned surface, small documented pieces."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import peft_interp

PACKAGE = Path(peft_interp.__file__).parent
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60

# A module imports only from layers below its own; a folder is one piece, whose modules must not import in a circle.
LAYERS = (
    ("_version", "compat"),
    ("inference", "base_model_name", "text"),
    ("embedded", "tuner"),
    ("metrics",),
    ("classification", "report", "scoring"),
    ("rl", "search"),
    ("callbacks", "hub"),
    ("registration",),
    ("cli",),
    ("__main__",),
    ("__init__",),
)
PUBLIC = {
    "InterpPromptConfig",
    "PromptCallback",
    "PromptReport",
    "PromptSearchConfig",
    "PromptSearchTrainer",
    "RLPromptConfig",
    "RLPromptTrainer",
    "Verbalizer",
    "classify",
    "continue_training",
    "measure_faithfulness",
    "measure_scrutability",
    "read_prompt",
    "register",
    "report_prompt",
    "text_nll",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def modules() -> dict[str, ast.Module]:
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}


def piece(module: str) -> str:
    """The file, or the folder it lies in, as the layers name it."""
    return module.split(".")[0]


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def running_code(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but what only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_types_only(child):
            yield from running_code(child)


def imports(tree: ast.Module) -> Iterator[str]:
    """Names of our own modules that a file imports; "" is the package itself."""
    for node in running_code(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [node.module or ""]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.split(".")[0] == "peft_interp":
                yield name.removeprefix("peft_interp").removeprefix(".")


def definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Every function and class, functions inside functions included, under its dotted name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}"
            yield name, child
            yield from definitions(child, name)


def test_every_module_has_a_layer() -> None:
    listed = [name for layer in LAYERS for name in layer]
    assert sorted(listed) == sorted({piece(name) for name in modules()})


def test_a_module_imports_only_from_lower_layers() -> None:
    layer_of = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    upward = [
        f"{name} imports {imported}"
        for name, tree in modules().items()
        for imported in imports(tree)
        if imported
        and piece(imported) != piece(name)
        and layer_of.get(piece(imported), len(LAYERS)) >= layer_of[piece(name)]
    ]
    assert upward == []


def test_modules_of_a_folder_do_not_import_in_a_circle() -> None:
    wanted = {name: {other for other in imports(tree) if other in modules()} for name, tree in modules().items()}
    assert list(TopologicalSorter(wanted).static_order())  # raises CycleError, which names the circle


def test_nothing_imports_the_package_itself() -> None:
    assert [name for name, tree in modules().items() if "" in imports(tree)] == []


def test_only_the_registration_touches_pefts_registries() -> None:
    """No other file names a registry, and nothing is assigned to an attribute of an imported module."""
    users = []
    for name, tree in modules().items():
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        users += [name] if any(word.endswith("_MAPPING") or word.startswith("register_peft") for word in words) else []
    assert users == ["registration"]


def literals(tree: ast.Module) -> set[object]:
    """Every constant of a file, docstrings and messages as a whole."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_where_the_prompt_stands_is_decided_in_one_module() -> None:
    """The names of the placements; in the report's charts they are SVG's `text-anchor`."""
    users = {name for name, tree in modules().items() if {"start", "end"} & literals(tree)}
    assert users - {"report.charts"} == {"text.placement"}


def test_a_context_for_tokenization_is_made_up_in_one_module() -> None:
    """A letter in front of a text or a token, so that sentencepiece tokenizers keep their blanks."""
    encoders = ("encode", "tokenizer", "encode_all")
    users = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value == "a")
        or (isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and node.left.value == "a")
        or (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in encoders
            and any(isinstance(given, ast.Constant) and given.value == "a" for given in node.args)
        )
    }
    assert users == {"text.tokenization"}


def test_no_function_of_another_package_is_replaced() -> None:
    replaced = []
    for name, tree in modules().items():
        foreign = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                root = target
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(target, ast.Attribute) and isinstance(root, ast.Name) and root.id in foreign:
                    replaced.append(f"{name}:{node.lineno}")
    assert replaced == []


def test_the_public_surface_is_pinned() -> None:
    assert set(peft_interp.__all__) == PUBLIC
    assert all(hasattr(peft_interp, name) for name in PUBLIC)
    assert set(dir(peft_interp)) >= PUBLIC | {"embedded", "metrics", "__version__"}
    with pytest.raises(AttributeError, match=r"module 'peft_interp' has no attribute 'nothing'"):
        peft_interp.nothing  # noqa: B018


def test_type_checkers_see_what_is_loaded_on_use() -> None:
    """The imports for type checkers name the modules that the names are really loaded from."""
    typed = {
        alias.asname: (node.module or "").removeprefix("peft_interp").removeprefix(".")
        for block in filter(is_for_types_only, modules()["__init__"].body)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {**peft_interp._HOMES, **dict.fromkeys(peft_interp._MODULES, "")}
    assert None not in typed  # `import x as x`: a name that type checkers take for exported


def test_everything_public_has_a_docstring() -> None:
    silent = [name for name, tree in modules().items() if not ast.get_docstring(tree)]
    for module, tree in modules().items():
        local = {
            inner
            for name, node in definitions(tree, module)
            if not isinstance(node, ast.ClassDef)
            for inner, _ in definitions(node, name)
        }
        for name, node in definitions(tree, module):
            if name in local or any(part.startswith("_") for part in name.removeprefix(module).split(".")):
                continue
            silent += [] if ast.get_docstring(node) else [name]
    assert silent == []


def test_files_and_functions_stay_small() -> None:
    long = [
        f"{path.name}: {lines} lines"
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    ]
    for module, tree in modules().items():
        for name, node in definitions(tree, module):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if not isinstance(node, ast.ClassDef) and length > MAX_FUNCTION_LINES:
                long.append(f"{name}: {length} lines")
    assert long == []
