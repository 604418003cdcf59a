"""The results as tables."""

from typing import Any

from benchmarks.report import Table, goals_table, in_mib, in_seconds

_NAMES = {"ours": "ours", "other": "published loop"}


def tables(results: dict[str, Any]) -> list[Table]:
    """All parts of a run."""
    parts = (goals_table, _steps, _candidates, _agreement, _growth, _memory)
    return [part(results) for part in parts]


def usual(setting: dict[str, Any]) -> str:
    """The sizes that are usual in the tables."""
    return (
        f"{setting['prompts']} prompts of {setting['prompt']} tokens, {setting['examples']} examples of "
        f"{setting['text']} tokens"
    )


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
        [_NAMES[c["who"]], c["position"], str(c["prompts"]), str(c["examples"]), in_mib(c["bytes"])]
        for c in results["memory"]
    ]
    return Table("Peak memory of scoring", ["", "position", "prompts", "examples", "peak"], rows)


def _times(compared: dict[str, Any]) -> list[str]:
    low, high = compared["ratio_spread"]
    seconds = [in_seconds(compared["other_seconds"]), in_seconds(compared["ours_seconds"])]
    return [*seconds, f"{1 / compared['ratio']:.1f}", f"{1 / high:.1f} to {1 / low:.1f}"]
