"""The web app: its functions as they are, and the page through gradio's own client."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PromptTuningConfig, get_peft_model

from peft_interp import __version__, embedded
from tests import processes

FOLDER = Path(__file__).parents[2] / "examples" / "space"
QUESTION = "Is this film review positive or negative?"


@pytest.fixture(scope="module")
def app() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "app.py"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock soft prompt: vectors that are nearly the question's."""
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": QUESTION}
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=8, tokenizer_name_or_path=embedded.MODEL_PATH, **start
    )
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(embedded.load_model(), config)
    model.prompt_encoder["default"].embedding.weight.data *= 1.01
    model.save_pretrained(folder)
    return folder


def right(accuracies: list[list[str]]) -> dict[str, int]:
    return {name: int(share.split("%")[0]) for name, share in accuracies}


def test_a_typed_prompt_is_judged(app: dict[str, Any]) -> None:
    verdicts, tokens, accuracies, alike = app["judge"](QUESTION, "sentiment")
    assert "Can a person read it? **Yes**: " in verdicts
    assert right(accuracies)["as text"] > right(accuracies)["no prompt"] + 10
    assert [token for token, _, _ in tokens][-1] == "'?'"
    assert all(kl >= 0 for _, kl, _ in tokens)
    assert len(alike) == 5
    assert [share for _, share in alike] == sorted((share for _, share in alike), reverse=True)


def test_a_loaded_prompt_is_judged(app: dict[str, Any], adapter: Path) -> None:
    files = [str(path) for path in adapter.iterdir()]
    _, tokens, accuracies, _ = app["judge_adapter"](files, "sentiment")
    assert abs(right(accuracies)["as vectors"] - right(accuracies)["as text"]) <= 5
    assert right(accuracies)["as vectors"] > right(accuracies)["no prompt"] + 10
    assert len(tokens) == 8
    with pytest.raises(ValueError, match=r"adapter_model.safetensors missing; give both"):
        app["judge_adapter"]([str(adapter / "adapter_config.json")], "sentiment")


def test_mistakes_are_said(app: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="there is no prompt"):
        app["judge"]("  ", "sentiment")
    with pytest.raises(ValueError, match="the prompt has 401 characters"):
        app["judge"]("a" * 401, "sentiment")
    with pytest.raises(ValueError, match="there is no text"):
        app["answer"](" ", QUESTION, "sentiment")


def test_the_most_alike_of_a_known_prompt_is_itself(app: dict[str, Any]) -> None:
    from peft_interp.metrics.references import human_prompts

    known = human_prompts()[7]
    assert app["most_alike"](known)[0] == (known, 1.0)


def test_a_prompt_is_no_markup(app: dict[str, Any]) -> None:
    assert app["_plain"]("<img src=x> | **b** [a](b)\n# c") == (r"&lt;img src=x\> \| \*\*b\*\* \[a\]\(b\) \# c")


def test_it_is_a_space() -> None:
    front = yaml.safe_load((FOLDER / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert f"peft_interp-{__version__}-py3" in (FOLDER / "requirements.txt").read_text(encoding="utf-8")


PAGE = """
import json, runpy, sys
from gradio_client import Client

page = runpy.run_path(sys.argv[1])["build"]()
page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
client = Client(page.local_url, verbose=False)
question = "Is this film review positive or negative?"
verdicts, tokens, accuracies, alike = client.predict(question, "sentiment", api_name="/judge")
said = client.predict("A wonderful film.", question, "sentiment", api_name="/answer")
try:
    client.predict("", "sentiment", api_name="/judge")
except Exception as error:
    complaint = str(error)
page.close()
print(json.dumps([verdicts, tokens["data"], accuracies["data"], alike["data"], said, complaint]))
"""


def test_the_page_answers_its_own_client() -> None:
    """In a process of its own, since its server leaves an event loop open."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    finished = processes.run("-c", PAGE, str(FOLDER / "app.py"), env=environment, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    verdicts, tokens, accuracies, alike, said, complaint = json.loads(finished.stdout.strip().splitlines()[-1])
    assert "Can a person read it? **Yes**: " in verdicts
    assert [row[0] for row in tokens][-1] == "'?'"
    assert [name for name, _ in accuracies] == ["no prompt", "as text"]
    assert len(alike) == 5
    assert said.startswith("great (")
    assert "there is no prompt" in complaint
