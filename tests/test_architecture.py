"""The package's shape: layers, one writer to PEFT's registries, a pinned surface, small documented pieces."""

from __future__ import annotations

import ast
from functools import cache

import networkx
import pytest

import peft_interp
from tools import house

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ROOT_MODULES, MAX_ROOMS_IN_A_CHAIN = 500, 60, 8, 10
TOLERANCE = 0.1  # of a figure in CONTRIBUTING.md: every small change need not write the table anew

PUBLIC = {
    "InterpPromptConfig",
    "PromptCallback",
    "PromptComparison",
    "PromptExplanation",
    "PromptReport",
    "PromptSearchConfig",
    "PromptSearchTrainer",
    "RLPromptConfig",
    "RLPromptTrainer",
    "Verbalizer",
    "calibrate",
    "calibrated_loss",
    "classify",
    "compare_activations",
    "compare_answers",
    "compare_prompts",
    "continue_training",
    "exact_match_reward",
    "explain_prompt",
    "json_reward",
    "measure_faithfulness",
    "measure_label_prior",
    "measure_scrutability",
    "measure_task_naming",
    "readability_reward",
    "task_naming_reward",
    "read_prompt",
    "load_rows",
    "mark_prompt",
    "on_answers",
    "register",
    "report_prompt",
    "report_text",
    "rouge_reward",
    "text_nll",
}


@cache
def modules() -> dict[str, ast.Module]:
    return house.read_modules()


def test_every_room_has_a_layer() -> None:
    listed = [name for layer in house.layers() for name in layer]
    assert sorted(listed) == sorted({house.room(name) for name in modules()})


def test_a_room_imports_only_from_lower_layers() -> None:
    layer_of = {name: number for number, layer in enumerate(house.layers()) for name in layer}
    arrows = house.between_rooms(house.import_graph(modules())).edges
    assert [f"{upper} imports {lower}" for upper, lower in arrows if layer_of[upper] <= layer_of[lower]] == []


def test_modules_do_not_import_in_a_circle() -> None:
    """Not even for type checkers: who wants to read one of the modules would have to read all."""
    graph = house.import_graph(modules())
    assert [sorted(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1] == []


def test_nothing_imports_the_package_itself() -> None:
    own = {name: house.imports(tree, modules()) for name, tree in modules().items() if name != "__init__"}
    assert [name for name, imported in own.items() if "" in imported] == []


def test_figures_of_the_house_are_those_that_contributing_shows() -> None:
    """After larger changes write them with `python -m tools.house --write`."""
    shown = {name: now for name, (_, now) in house.published().items()}
    found = house.measure(house.PACKAGE, peft_interp.__all__).rows()
    assert shown.keys() == found.keys()
    numbers = {name: [tuple(map(float, text.split(" / "))) for text in (shown[name], found[name])] for name in found}
    for name, (known, now) in numbers.items():
        assert now == pytest.approx(known, rel=TOLERANCE, abs=2), f"{name}: run `python -m tools.house --write`"


def test_figures_by_hand() -> None:
    sources = {
        "__init__": "from peft_interp.a import f",
        "a": "from peft_interp.b import c, d",
        "b.__init__": "",
        "b.c": "def f():\n    import peft_interp.e",
        "b.d": "if TYPE_CHECKING:\n    from peft_interp.b.c import f",
        "e": "from peft_interp.b import d",
    }
    trees = {name: ast.parse(text) for name, text in sources.items()}
    graph = house.import_graph(trees)
    assert sorted(graph.edges) == [("a", "b.c"), ("a", "b.d"), ("b.c", "e"), ("b.d", "b.c"), ("e", "b.d")]
    assert house.longest_chain(graph) == ["a", "b.c", "b.d", "e"]  # three of them import in a circle
    assert house.longest_chain(house.between_rooms(graph)) == ["a", "b", "e"]
    assert sorted(house.between_rooms(graph).edges) == [("a", "b"), ("b", "e"), ("e", "b")]
    assert house.imports(ast.parse("import peft_interp"), trees) == {""}
    with pytest.raises(ValueError, match="relative import in line 1"):
        house.imports(ast.parse("from . import a"), trees)
    assert str(house.Lengths((1, 2, 3, 4, 100))) == "3 / 62 / 100"


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
        for block in filter(house.is_for_types_only, modules()["__init__"].body)
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
            for name, node in house.definitions(tree, module)
            if not isinstance(node, ast.ClassDef)
            for inner, _ in house.definitions(node, name)
        }
        for name, node in house.definitions(tree, module):
            if name in local or any(part.startswith("_") for part in name.removeprefix(module).split(".")):
                continue
            silent += [] if ast.get_docstring(node) else [name]
    assert silent == []


def test_files_and_functions_stay_small() -> None:
    long = [f"{name}: {lines} lines" for name, lines in house.file_lengths().items() if lines > MAX_FILE_LINES]
    functions = house.function_lengths(modules())
    long += [f"{name}: {lines} lines" for name, lines in functions.items() if lines > MAX_FUNCTION_LINES]
    assert long == []
    assert len(list(house.PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


def test_from_the_command_line_to_the_ground_is_not_far() -> None:
    chain = house.longest_chain(house.between_rooms(house.import_graph(modules())))
    assert len(chain) <= MAX_ROOMS_IN_A_CHAIN, " -> ".join(chain)
