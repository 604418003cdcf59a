"""Search prompts for four tasks in which the model writes, and put them beside the best of five that a person wrote.

    python -m studies.generation               # SmolLM2, minutes for each point; goes on where it stopped
    python -m studies.generation --tasks json   # some of the tasks
    python -m studies.generation --report      # the tables of what is there

A point is a task with a seed, which draws its training and validation rows, and a file in `points/`. `--trial` runs
tiny ones.
"""

import argparse
from pathlib import Path

import torch
from datasets import disable_progress_bars

from peft_interp import embedded
from studies.generation.points import POINTS, read_points, write_point
from studies.generation.run import TRIAL, Models, Point, Size, run_point, tested
from studies.generation.tables import tables, write_readme
from studies.generation.tasks import TASKS, drawn_rows, task_named
from studies.tradeoff.config import DEVICES

DATA = Path(__file__).parents[3] / "shared" / "data"


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, or show what is there."""
    names = [task.name for task in TASKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model_name_or_path", default=embedded.SMOLLM2, help="'smollm2', 'embedded', a name or folder"
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: %(default)s")
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0], help="default: %(default)s")
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=1, help="points of each task (default: %(default)s)")
    parser.add_argument("--data_dir", type=Path, default=DATA, help="folder with text/gsm8k_{train,test}.jsonl")
    parser.add_argument("--points", type=Path, default=POINTS, help="folder of the results (default: the study's own)")
    parser.add_argument("--steps", type=int, default=Size.steps, help="of the search (default: %(default)s)")
    parser.add_argument("--trial", action="store_true", help="a few rows and one step")
    parser.add_argument("--test_again", action="store_true", help="only test what was found once more")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    arguments = parser.parse_args(argv)
    disable_progress_bars()
    done = read_points(arguments.points)
    wanted = [Point(task, seed) for seed in range(arguments.seeds) for task in arguments.tasks]
    again = [point for point in wanted if arguments.test_again and point.key in done]
    missing = [] if arguments.report or arguments.test_again else [p for p in wanted if p.key not in done]
    if missing or again:
        name = arguments.model_name_or_path
        model = embedded.load_model(name, dtype=getattr(torch, arguments.dtype)).to(arguments.device)
        models = Models(name, model, embedded.load_tokenizer(name), arguments.data_dir)
        for point in again:
            own, task = done[point.key], task_named(point.task)
            first = drawn_rows(task, models.data_dir, "train", own["size"]["train"], point.seed)[0]
            own |= tested(task, models, own["search"]["text"], own["size"]["test"], first["answer"])
            write_point(arguments.points, point.key, own)
        for point in missing:
            found = run_point(point, models, TRIAL if arguments.trial else Size(steps=arguments.steps))
            write_point(arguments.points, point.key, found)
            print(point.key, found["search"]["text"], f"{found['seconds']:.0f} s", flush=True)
            publish(arguments.points)
    publish(arguments.points)
    print(tables(read_points(arguments.points)))


def publish(folder: Path) -> None:
    """The README's tables are those of the study's own points, also while it runs."""
    if folder == POINTS:
        write_readme(read_points(folder))


if __name__ == "__main__":
    main()
