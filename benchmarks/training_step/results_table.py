"""The results as tables."""

from typing import Any

from benchmarks.report import Table, goals_table, in_mib, in_seconds

_LABELS = {"one": "one per row", "all": "every text token"}


def tables(results: dict[str, Any]) -> list[Table]:
    """All parts of a run."""
    return [
        goals_table(results),
        _steps(results),
        *(_growth(results, varied) for varied in ("prompt", "batch")),
        _ways(results),
        _operations(results),
        _agreement(results),
        _memory(results),
        _projection(results),
    ]


def usual(setting: dict[str, Any]) -> str:
    """The sizes that are usual in the tables."""
    return f"batch {setting['batch']}, prompt {setting['prompt']}, text {setting['text']} tokens"


def _steps(results: dict[str, Any]) -> Table:
    rows = []
    for case in results["training_step"]:
        for name, what in (("step", "forward, backward, zero_grad"), ("step_with_optimizer", "with AdamW")):
            rows.append([_LABELS[case["labels"]], what, *_times(case[name]), f"{case[name]['ratio_of_means']:.2f}"])
    columns = ["labels", "step", "stock PEFT", "ours", "ratio", "quartiles", "ratio of means"]
    return Table("Training step", columns, rows)


def _ways(results: dict[str, Any]) -> Table:
    rows = []
    for case in results["ways"]:
        for name, one in case.get("steps", {}).items():
            time = f"{one['ms']:.1f} ms" if "ms" in one else "does not run"
            ratios = [f"{one[ratio]:.2f}" if ratio in one else "" for ratio in ("ratio", "user_ratio")]
            rows.append([case["case"], name + (" (chosen)" if name == case["chosen"] else ""), time, *ratios])
    return Table("Ways to run a step", ["case", "way", "time", "ratio", "ratio of processor time"], rows)


def _operations(results: dict[str, Any]) -> Table:
    rows = [
        [case["case"], way, str(one["operations"]), f"{one['ratio']:.2f}", str(one["waits"])]
        for case in results["operations"]
        for way, one in case.items()
        if way != "case"
    ]
    return Table("Operations given to the device in a step", ["case", "way", "operations", "ratio", "that wait"], rows)


def _agreement(results: dict[str, Any]) -> Table:
    rows = [
        [_LABELS[case["labels"]], what, f"{case[name]['loss_error']:.1e}", f"{case[name]['gradient_error']:.1e}"]
        for case in results["agreement"]
        for name, what in (("plain_pass", "ours, `share_prefix=False`"), ("stock", "stock PEFT, no perplexity term"))
    ]
    return Table("Relative error of loss and gradient", ["labels", "against", "loss", "gradient"], rows)


def _memory(results: dict[str, Any]) -> Table:
    rows = [
        [_LABELS[case["labels"]], in_mib(case["other_bytes"]), in_mib(case["ours_bytes"]), f"{case['ratio']:.2f}"]
        for case in results["memory"]
    ]
    return Table("Peak memory of the step, beyond model and batch", ["labels", "stock PEFT", "ours", "ratio"], rows)


def _projection(results: dict[str, Any]) -> Table:
    found = results["projection"]
    row = [
        in_seconds(found["other_seconds"]),
        in_seconds(found["ours_seconds"]),
        f"{found['speedup']:.1f}",
        in_seconds(found["norms_once_seconds"]),
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
    seconds = [in_seconds(compared["other_seconds"]), in_seconds(compared["ours_seconds"])]
    return [*seconds, f"{compared['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]
