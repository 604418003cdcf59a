"""Write the tables of `docs/what_there_is.md` from the package's records: `python docs/write_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path

from peft_interp.metrics.differentials import differential_table
from peft_interp.metrics.flags import flag_table
from peft_interp.metrics.readability_metrics import metric_table
from peft_interp.scoring.rewards import reward_table
from peft_interp.search.constraints import constraint_table
from peft_interp.search.moves import move_table
from peft_interp.tuner.loss_terms import term_table
from peft_interp.tuner.task_types import task_table

PAGE = Path(__file__).parent / "what_there_is.md"
TABLES = {
    "task types": task_table,
    "loss terms": term_table,
    "metrics": metric_table,
    "flags": flag_table,
    "differentials": differential_table,
    "rewards": reward_table,
    "moves": move_table,
    "constraints": constraint_table,
}


def with_tables(page: str) -> str:
    """The page with every table as the records are now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page = pattern.sub(lambda _: f"{begin}\n\n{table()}\n\n{end}", page)  # noqa: B023
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
