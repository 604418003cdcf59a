"""Score many texts that a person might write, with calibrated label words, and see how good the best of them are.

    python -m studies.ceiling --tasks agnews     # SmolLM2; some seconds a text on one core; goes on where it stopped
    python -m studies.ceiling --report           # the tables of what is there

Every text is scored on the training rows of one split, for its label prior, and on the validation rows, which choose
the best; these, and as many drawn ones, are scored on the test rows too. Model, tasks and rows are those of a study of
trade-offs (`--config`).
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import track

from peft_interp.storage.atomic import replace_file
from peft_interp.text.tokenization import encode
from studies.ceiling.tables import TESTED, by_score, tables, write_readme
from studies.ceiling.texts import WORDS, instructions
from studies.tradeoff.answers import Answers, PromptAnswers
from studies.tradeoff.bench import Bench, make_bench
from studies.tradeoff.config import DEVICES, read_study
from studies.tradeoff.data import demonstrations

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CONFIG = HERE.parent / "tradeoff" / "smollm2.toml"
SHOTS, DRAWS = (4, 8), 5  # labelled rows in a prompt, and prompts of each number
AT_ONCE = 4  # texts between two writes
Records = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Text:
    """A prompt.

    Attributes:
        kind: "none", "instruction" or "4 examples".
        text: what it says.
    """

    kind: str
    text: str


def all_texts(bench: Bench, count: int) -> Iterator[Text]:
    """No prompt, examples as text, then so many instructions."""
    yield Text("none", "")
    for rows in SHOTS:
        for seed in range(DRAWS):
            yield Text(f"{rows} examples", demonstrations(bench.data, rows, seed))
    for text in islice(instructions(WORDS[bench.data.settings.name]), count):
        yield Text("instruction", text)


class Scores:
    """Accuracies of texts with calibrated label words; the prior is that of the training rows."""

    def __init__(self, bench: Bench) -> None:
        self.tokenizer = bench.tokenizer
        self.answers = {
            name: PromptAnswers(bench.model, bench.data, name, bench.leading) for name in ("train", "dev", "test")
        }

    def of(self, texts: Sequence[str], splits: Sequence[str]) -> list[dict[str, float]]:
        """Share of right rows of each of the splits, 0 to 1."""
        prompts = [encode(self.tokenizer, text) for text in texts]
        training = self.answers["train"].of_prompts(prompts)
        found: list[dict[str, float]] = [{} for _ in texts]
        for name in splits:
            own = training if name == "train" else self.answers[name].of_prompts(prompts)
            for record, answers, prior in zip(found, own, training, strict=True):
                record[name] = _calibrated(answers, prior).accuracy
        return found


def _calibrated(answers: Answers, training: Answers) -> Answers:
    found = answers.calibrated(training, "batch")
    assert found is not None  # no task here has written answers
    return found


def run(bench: Bench, count: int, records: Records, keep: Callable[[], None]) -> None:
    """Score what is missing among the records, text by text; `keep` is called after every few."""
    scores = Scores(bench)
    missing = [one for one in all_texts(bench, count) if one.text not in records]
    for start in track(range(0, len(missing), AT_ONCE), "on training and validation rows"):
        part = missing[start : start + AT_ONCE]
        for one, found in zip(part, scores.of([one.text for one in part], ("train", "dev")), strict=True):
            records[one.text] = {"kind": one.kind, **found}
        keep()
    chosen = to_test(records)
    for start in track(range(0, len(chosen), AT_ONCE), "on test rows"):
        texts = chosen[start : start + AT_ONCE]
        for text, found in zip(texts, scores.of(texts, ("test",)), strict=True):
            records[text] |= found
        keep()


def to_test(records: Records) -> list[str]:
    """Texts whose test rows are missing: the best of all, the first instructions, and all others."""
    chosen = [*by_score(records)[:TESTED], *islice((t for t in records if _is_drawn(records[t])), TESTED)]
    chosen += [text for text, record in records.items() if not _is_drawn(record)]
    return [text for text in dict.fromkeys(chosen) if "test" not in records[text]]


def _is_drawn(record: dict[str, Any]) -> bool:
    return bool(record["kind"] == "instruction")


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, or show what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="a study of trade-offs (default: SmolLM2's)")
    parser.add_argument("--data_dir", help="folder with the few-shot splits (default: the configuration's)")
    parser.add_argument("--tasks", nargs="+", choices=WORDS, default=["agnews"])
    parser.add_argument("--split", type=int, default=13, help="whose rows the texts are chosen on (default: 13)")
    parser.add_argument("--instructions", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="file (default: the study's own)")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    arguments = parser.parse_args(argv)
    path: Path = arguments.results
    done: dict[str, Records] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def keep() -> None:
        replace_file(path, json.dumps(done, indent=1, ensure_ascii=False) + "\n")

    if not arguments.report:
        study = read_study(arguments.config, data_dir=arguments.data_dir, device=arguments.device)
        for task in arguments.tasks:
            bench = make_bench(study, study.task(task), arguments.split, 0)
            named = f"{task} {arguments.split}, {study.model_name_or_path} in {study.dtype} on {study.device}"
            run(bench, arguments.instructions, done.setdefault(named, {}), keep)
    if path == RESULTS:
        write_readme(done)
    print(tables(done))


if __name__ == "__main__":
    main()
