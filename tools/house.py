"""The package's shape in figures (files, functions, import chains), and the layers that its rooms lie in.

    python -m tools.house            # prints the table
    python -m tools.house --write    # puts it into CONTRIBUTING.md

A room is a module in the package's root, or a folder there with all that is in it.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx

import peft_interp

ROOT = Path(__file__).parents[1]
PACKAGE = Path(peft_interp.__file__).parent
BEFORE = "6ed1921"  # the commit that the house was rebuilt from
TABLE, LAYERS = ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"
_MARKS = re.compile(r"(<!-- house: start -->\n).*?(\n<!-- house: end -->)", re.DOTALL)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Modules = Mapping[str, ast.Module]


@dataclass(frozen=True)
class Lengths:
    """Lines of files, or of functions."""

    values: tuple[int, ...]

    def __str__(self) -> str:
        p90 = statistics.quantiles(self.values, n=10, method="inclusive")[-1]
        return f"{statistics.median(self.values):.0f} / {p90:.0f} / {max(self.values)}"


@dataclass(frozen=True)
class House:
    """The figures of one state of the package.

    Attributes:
        files: lines of each file.
        functions: lines of each function and method, docstrings included.
        root_modules: files in the package's root, `__init__` and `__main__` included.
        rooms: modules and folders in the root.
        arrows: pairs of rooms, one of which imports from the other.
        chain: modules of the longest import chain, top first; a circle of imports counts with all its modules.
        room_chain: rooms of the longest chain of rooms.
        in_circles: modules that lie in a circle of imports.
        public: names in `__all__` of the package.
    """

    files: Lengths
    functions: Lengths
    root_modules: int
    rooms: int
    arrows: int
    chain: tuple[str, ...]
    room_chain: tuple[str, ...]
    in_circles: int
    public: int

    def rows(self) -> dict[str, str]:
        """The figures by name, as the table shows them."""
        return {
            "files": str(len(self.files.values)),
            "lines of a file: median / p90 / max": str(self.files),
            "functions and methods": str(len(self.functions.values)),
            "lines of a function: median / p90 / max": str(self.functions),
            "modules in the package root": str(self.root_modules),
            "rooms (modules and folders in the root)": str(self.rooms),
            "arrows between rooms": str(self.arrows),
            "modules in the longest import chain": str(len(self.chain)),
            "rooms in the longest import chain": str(len(self.room_chain)),
            "modules in import circles": str(self.in_circles),
            "public names": str(self.public),
        }


def read_modules(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """Every module of a package by its dotted name below the package; a folder's `__init__` is named in full."""
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sorted(files.items())}


def room(module: str) -> str:
    """The module in the root, or the folder there that it lies in."""
    return module.split(".")[0]


def is_for_types_only(node: ast.AST) -> bool:
    """Whether a statement is the block that only a type checker reads."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.Module, names: Mapping[str, object]) -> set[str]:
    """Our own modules that a file imports anywhere, for type checkers included; "" is the package's own `__init__`.

    Args:
        tree: the file.
        names: all modules of the package, which tell a module from what is in one.

    Raises:
        ValueError: a relative import, which does not say where it leads.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"relative import in line {node.lineno}; write the module's whole name.")
            asked = [(node.module or "", alias.name) for alias in node.names]
        else:
            asked = [(alias.name, "") for alias in node.names] if isinstance(node, ast.Import) else []
        for module, name in asked:
            if room(module) == PACKAGE.name:
                found.add(_module(module.partition(".")[2], name, names) if "." in module else "")
    return found


def _module(module: str, name: str, names: Mapping[str, object]) -> str:
    """What `from module import name` loads: `name` where that is a module, else `module`."""
    inner = f"{module}.{name}".strip(".")
    for candidate in (inner, f"{inner}.__init__", module, f"{module}.__init__"):
        if candidate in names:
            return candidate
    return module


def import_graph(modules: Modules) -> networkx.DiGraph:
    """Modules, and an arrow to each that one imports; the package's own `__init__`, which loads others, has none."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(modules)
    for name, tree in modules.items():
        if name != "__init__":
            graph.add_edges_from((name, other) for other in imports(tree, modules) - {"", name} if other in modules)
    return graph


def between_rooms(graph: networkx.DiGraph) -> networkx.DiGraph:
    """Rooms, and an arrow to each that a module of one imports from."""
    rooms = networkx.DiGraph()
    rooms.add_nodes_from(map(room, graph))
    rooms.add_edges_from((room(a), room(b)) for a, b in graph.edges if room(a) != room(b))
    return rooms


def longest_chain(graph: networkx.DiGraph) -> list[str]:
    """Names along the longest chain of imports, top first; a circle counts with all that lie in it."""
    circles = networkx.condensation(graph)
    for _, to, arrow in circles.edges(data=True):
        arrow["weight"] = len(circles.nodes[to]["members"])
    for node in list(circles.nodes):  # a top above all, so that the first circle of a chain counts as well
        circles.add_edge("top", node, weight=len(circles.nodes[node]["members"]))
    chain = networkx.dag_longest_path(circles)[1:]
    return [name for node in chain for name in sorted(circles.nodes[node]["members"])]


def definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Every function and class, functions inside functions included, under its dotted name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}.{child.name}"
            yield name, child
            yield from definitions(child, name)


def function_lengths(modules: Modules) -> dict[str, int]:
    """Lines of every function and method."""
    return {
        name: (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in modules.items()
        for name, node in definitions(tree, module)
        if not isinstance(node, ast.ClassDef)
    }


def file_lengths(package: Path = PACKAGE) -> dict[str, int]:
    """Lines of every file."""
    return {
        str(path.relative_to(package)): len(path.read_text(encoding="utf-8").splitlines())
        for path in package.rglob("*.py")
    }


def layers() -> list[tuple[str, ...]]:
    """The rooms of each layer, lowest first, as the table of docs/architecture.md has them."""
    lines = LAYERS.read_text(encoding="utf-8").split("<!-- layers: start -->")[1].split("<!-- layers: end -->")[0]
    rows = [line.split("|")[2] for line in lines.strip().splitlines()[2:]]
    return [tuple(re.findall(r"`(\w+)`", row)) for row in rows]


def measure(package: Path, public: Sequence[str]) -> House:
    """The figures of a package's folder; `public` are the names in its `__all__`."""
    modules = read_modules(package)
    graph = import_graph(modules)
    rooms = between_rooms(graph)
    circles = [members for members in networkx.strongly_connected_components(graph) if len(members) > 1]
    return House(
        files=Lengths(tuple(file_lengths(package).values())),
        functions=Lengths(tuple(function_lengths(modules).values())),
        root_modules=len(list(package.glob("*.py"))),
        rooms=len(rooms),
        arrows=rooms.number_of_edges(),
        chain=tuple(longest_chain(graph)),
        room_chain=tuple(longest_chain(rooms)),
        in_circles=sum(map(len, circles)),
        public=len(public),
    )


def measure_commit(commit: str) -> House:
    """The figures of the package at a commit of this repository."""
    command = ["git", "archive", commit, PACKAGE.name]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
        package = Path(folder) / PACKAGE.name
        (names,) = re.findall(r"__all__ = (\[.*?\])", (package / "__init__.py").read_text(encoding="utf-8"), re.DOTALL)
        return measure(package, ast.literal_eval(names))


def table(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Both states beside each other, in Markdown."""
    lines = ["| | " + f"before ({BEFORE})" + " | now |", "|---|---|---|"]
    lines += [f"| {name} | {before[name]} | {now[name]} |" for name in now]
    return "\n".join(lines)


def published() -> dict[str, tuple[str, str]]:
    """The table that stands in CONTRIBUTING.md: before and now, by the figures' names."""
    found = _MARKS.search(TABLE.read_text(encoding="utf-8"))
    rows = [line.strip("|").split("|") for line in found[0].splitlines() if line.startswith("|")][2:] if found else []
    return {name.strip(): (before.strip(), now.strip()) for name, before, now in rows}


def main() -> None:
    """Measure both, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into CONTRIBUTING.md")
    arguments = parser.parse_args()
    now = measure(PACKAGE, peft_interp.__all__)
    made = table(measure_commit(BEFORE).rows(), now.rows())
    if arguments.write:
        text = TABLE.read_text(encoding="utf-8")
        TABLE.write_text(_MARKS.sub(lambda marks: f"{marks[1]}{made}{marks[2]}", text), encoding="utf-8")
    print(f"{made}\n\nlongest chain: {' -> '.join(now.chain)}\nof rooms: {' -> '.join(now.room_chain)}")


if __name__ == "__main__":
    main()
