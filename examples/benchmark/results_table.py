"""The results as tables, for the terminal and for the README."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<!-- results: start -->", "<!-- results: end -->"
_LABELS = {"one": "one per row", "all": "every text token"}


@dataclass(frozen=True)
class Table:
    """A title, column headings and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def tables(results: dict[str, Any]) -> list[Table]:
    """All parts of a run."""
    return [_goals(results), _steps(results), _agreement(results), _memory(results), _projection(results)] + [
        _growth(results, varied) for varied in ("prompt", "batch")
    ]


def _goals(results: dict[str, Any]) -> Table:
    rows = [
        [goal["name"], f"{goal['value']:.2g}", f"{goal['sign']} {goal['limit']:g}", "met" if goal["met"] else "missed"]
        for goal in results["goals"]
    ]
    return Table("Goals", ["quantity", "measured", "goal", ""], rows)


def _steps(results: dict[str, Any]) -> Table:
    rows = []
    for case in results["training_step"]:
        for name, what in (("step", "forward, backward, zero_grad"), ("step_with_optimizer", "with AdamW")):
            rows.append([_LABELS[case["labels"]], what, *_times(case[name]), f"{case[name]['ratio_of_means']:.2f}"])
    columns = ["labels", "step", "stock PEFT", "ours", "ratio", "quartiles", "ratio of means"]
    return Table("Training step", columns, rows)


def _agreement(results: dict[str, Any]) -> Table:
    rows = [
        [_LABELS[case["labels"]], what, f"{case[name]['loss_error']:.1e}", f"{case[name]['gradient_error']:.1e}"]
        for case in results["agreement"]
        for name, what in (("plain_pass", "ours, `share_prefix=False`"), ("stock", "stock PEFT, no perplexity term"))
    ]
    return Table("Relative error of loss and gradient", ["labels", "against", "loss", "gradient"], rows)


def _memory(results: dict[str, Any]) -> Table:
    rows = [
        [_LABELS[case["labels"]], _mib(case["other_bytes"]), _mib(case["ours_bytes"]), f"{case['ratio']:.2f}"]
        for case in results["memory"]
    ]
    return Table("Peak memory of the step, beyond model and batch", ["labels", "stock PEFT", "ours", "ratio"], rows)


def _projection(results: dict[str, Any]) -> Table:
    found = results["projection"]
    row = [
        _seconds(found["other_seconds"]),
        _seconds(found["ours_seconds"]),
        f"{found['speedup']:.1f}",
        _seconds(found["norms_once_seconds"]),
        "yes" if found["same_ids"] else "no",
    ]
    columns = ["normalised every time", "ours", "times faster", "norms, once per run", "same ids"]
    return Table("Projection", columns, [row])


def _growth(results: dict[str, Any], varied: str) -> Table:
    cases = [case for case in results["growth"] if case["varied"] == varied]
    rows = [[str(case["prompt"]), str(case["batch"]), *_times(case["step"])] for case in cases]
    columns = ["prompt", "batch", "stock PEFT", "ours", "ratio", "quartiles"]
    return Table(f"Growth of the step with the {varied} (one label per row)", columns, rows)


def _times(compared: dict[str, Any]) -> list[str]:
    low, high = compared["ratio_spread"]
    seconds = [_seconds(compared["other_seconds"]), _seconds(compared["ours_seconds"])]
    return [*seconds, f"{compared['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _mib(value: float) -> str:
    return f"{value / 2**20:.0f} MiB"


def provenance(results: dict[str, Any]) -> str:
    """One paragraph: where, when and how the figures were made."""
    machine, setting = results["machine"], results["setting"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Made on {machine['date'][:10]} at commit {machine['commit']} by `{results['command']}` in "
        f"{results['seconds']:.0f} seconds on {machine['device']} ({machine['cores']} cores, {machine['threads']} "
        f"threads, load average {machine['load_average']} at the start) with {versions}.\n\n"
        f"GPT-2 of random weights: width {setting['width']}, {setting['layers']} layers, vocabulary "
        f"{setting['vocabulary']:,}, fp32. Unless a table says otherwise: batch {setting['batch']}, prompt "
        f"{setting['prompt']}, text {setting['text']} tokens."
    )


def markdown(results: dict[str, Any]) -> str:
    """The provenance and all tables."""
    blocks = [provenance(results)]
    for table in tables(results):
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        blocks.append(f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def write_readme(readme: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the markers; a file without markers, or no file, is left alone."""
    text = readme.read_text() if readme.exists() else ""
    if START not in text or END not in text:
        return
    before, after = text.split(START)[0], text.split(END)[1]
    readme.write_text(f"{before}{START}\n\n{markdown(results)}\n\n{END}{after}")


def print_results(results: dict[str, Any]) -> None:
    """To the terminal: with rich where it is installed, else as Markdown."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
    except ImportError:
        print(markdown(results))
        return
    console = Console()
    for table in tables(results):
        shown = RichTable(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(provenance(results), markup=False, highlight=False)
