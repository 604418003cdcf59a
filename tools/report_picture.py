"""`docs/report.png`: the top of a real report's page, as Chromium shows it.

    python -m tools.report_picture

A prompt written by hand on the embedded model, read on 100 rows: half a minute on two cores. Needs Chromium,
chromedriver and selenium.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded, report_prompt
from tests.browser import browser, missing

PICTURE = Path(__file__).parents[1] / "docs" / "report.png"
PROMPT = "Is this film review positive or negative?"
WIDTH, HEIGHT = 900, 830  # CSS pixels


def write(path: Path) -> Path:
    """Make the report, open its page and save what is seen first."""
    tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    config = InterpPromptConfig(
        task_type="CAUSAL_LM",
        tokenizer_name_or_path=embedded.MODEL_PATH,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=PROMPT,
    )
    model = get_peft_model(embedded.load_model(), config)
    rows = task.encode_dataset(tokenizer, embedded.load_data("sentiment")["test"].select(range(100)))
    report = report_prompt(model, tokenizer, rows, task, progress=False)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        chromium.look(report.save(Path(folder) / "report.html"), WIDTH)
        return chromium.picture(path, HEIGHT)


if __name__ == "__main__":
    if lacks := missing():
        raise SystemExit(f"install {lacks} first.")
    os.environ.setdefault("PEFT_INTERP_JUDGE", "embedded")  # the same score on every machine
    print(write(PICTURE))
