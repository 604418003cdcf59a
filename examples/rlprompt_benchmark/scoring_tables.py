"""The results as Markdown, for the terminal and for the README."""

from pathlib import Path
from typing import Any

import benchmark_folder  # noqa: F401
from results_table import END, START, Table

_NAMES = {"ours": "ours", "other": "published loop"}


def tables(results: dict[str, Any]) -> list[Table]:
    """All parts of a run."""
    parts = (_goals, _steps, _candidates, _agreement, _growth, _memory)
    return [part(results) for part in parts]


def _goals(results: dict[str, Any]) -> Table:
    rows = [
        [goal["name"], f"{goal['value']:.2g}", f"{goal['sign']} {goal['limit']:g}", "met" if goal["met"] else "missed"]
        for goal in results["goals"]
    ]
    return Table("Goals", ["quantity", "measured", "goal", ""], rows)


def _steps(results: dict[str, Any]) -> Table:
    whats = {"reward": "reward alone", "step": "sampling, reward, loss, gradient, Adam"}
    rows = [
        [f"prompt at the {case['position']}", what, *_times(case[name])]
        for case in results["steps"]
        for name, what in whats.items()
    ]
    columns = ["position", "what", "published loop", "ours", "times faster", "quartiles"]
    return Table("Search step", columns, rows)


def _candidates(results: dict[str, Any]) -> Table:
    rows = []
    for case in results["candidates"]:
        for name, count in (("scored", case["candidates"]), ("judged", case["proposals"])):
            own, plain = (count / case[name][f"{who}_seconds"] for who in ("ours", "other"))
            low, high = case[name]["ratio_spread"]
            spread = f"{1 / high:.1f} to {1 / low:.1f}"
            rows.append(
                [f"prompt at the {case['position']}", name, f"{plain:.2f}", f"{own:.2f}", f"{own / plain:.1f}", spread]
            )
    columns = ["position", "candidates", "padded passes, per second", "ours, per second", "times faster", "quartiles"]
    return Table("Candidates of the fluent search, texts of unequal length", columns, rows)


def _agreement(results: dict[str, Any]) -> Table:
    rows = [[case["position"], f"{case['error']:.1e}"] for case in results["agreement"]]
    return Table("Largest difference of a log-probability", ["position", "error"], rows)


def _growth(results: dict[str, Any]) -> Table:
    rows = [[case["varied"], str(case["size"]), *_times(case["reward"])] for case in results["growth"]]
    columns = ["varied", "size", "published loop", "ours", "times faster", "quartiles"]
    return Table("Growth of the reward's time, prompt at the end", columns, rows)


def _memory(results: dict[str, Any]) -> Table:
    rows = [
        [_NAMES[c["who"]], c["position"], str(c["prompts"]), str(c["examples"]), f"{c['bytes'] / 2**20:.0f} MiB"]
        for c in results["memory"]
    ]
    return Table("Peak memory of scoring", ["", "position", "prompts", "examples", "peak"], rows)


def _times(compared: dict[str, Any]) -> list[str]:
    low, high = compared["ratio_spread"]
    seconds = [_seconds(compared["other_seconds"]), _seconds(compared["ours_seconds"])]
    return [*seconds, f"{1 / compared['ratio']:.1f}", f"{1 / high:.1f} to {1 / low:.1f}"]


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def markdown(results: dict[str, Any]) -> str:
    """Where and how the figures were made, and all tables."""
    machine, setting = results["machine"], results["setting"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    about = (
        f"Made on {machine['date'][:10]} at commit {machine['commit']} by `{results['command']}` in "
        f"{results['seconds']:.0f} seconds on {machine['device']} ({machine['cores']} cores, {machine['threads']} "
        f"threads, load average {machine['load_average']} at the start) with {versions}.\n\n"
        f"GPT-2 of random weights: width {setting['width']}, {setting['layers']} layers, vocabulary "
        f"{setting['vocabulary']:,}, fp32. Unless a table says otherwise: {setting['prompts']} prompts of "
        f"{setting['prompt']} tokens, {setting['examples']} examples of {setting['text']} tokens."
    )
    blocks = [about]
    for table in tables(results):
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        blocks.append(f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def write_readme(readme: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the markers; a file without markers, or no file, is left alone."""
    text = readme.read_text() if readme.exists() else ""
    if START in text and END in text:
        before, after = text.split(START)[0], text.split(END)[1]
        readme.write_text(f"{before}{START}\n\n{markdown(results)}\n\n{END}{after}")
