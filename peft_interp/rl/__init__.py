"""Prompt search by reinforcement learning: soft Q-learning with rewards for the task and for readability.

What is RLPrompt's (arXiv 2205.12548) without change: the policy's head and its start, sampling and top-k, the gap
reward with its z-score and shaping, the order of a step, the losses "one_step", "multi_step" and "both" with their
target network, all of the examples in every step, no end token, and the published values as defaults. The reference
code's `r` variants of the losses are left out: with the coefficient that it never passes they add nothing.

What differs, and why:

* **The policy's language model** is the task model unless another is named (published: distilGPT-2): no second model to
  load, and no tokens that the task model does not have.
* **Tokens.** Only those that the adapter allows are sampled; special and unused ones are no text.
* **What is scored is the text.** Sampled ids become text, are tokenised where the prompt stands, and those ids are
  scored (the reference does the same). A text that comes back at another length teaches the policy but is never chosen,
  since the adapter could not hold it.
* **Ties** of label words count as wrong, and label words that share their token are refused; the reference pays the
  full reward there.
* **The first prompt** of a run is the adapter's own, so that a search can start from a given text.
* **Evaluation** tries, beside the greedy prompt, the sampled ones of best training reward (`eval_candidates`), the
  adapter's own, and the one that the run began with. As published, the highest held-out reward decides.
* **Several rewards** are mixed as separate z-scores, (1 - w) z_task - w z_nll; the paper on readable prompts (arXiv
  2504.02144) does not say how it weighs them. Chosen prompts are compared on the scale of the run's first step.
* **Speed.** Nothing that prompts or examples share is run twice, logits are computed for label words only, and a prompt
  that comes again is looked up. Scores equal the plain pass's.
* **Random numbers** depend on seed, step and a prompt's place only: a resumed run, or one on two processes, draws the
  same prompts.
* **Masked LMs** read `{text} {prompt} <mask>`; encode the rows yourself for the reference's full stop behind the mask.
* **Two more losses** ("path", "bellman") and `value_baseline`, none of them the default. Tried on the embedded model
  (SST-2, 16 per class), where runs of hundreds of steps are all one has. At the published rate of 5e-5 nothing moves in
  that time. With 1e-3 the published losses climb fast and then collapse: within 80 steps most prompts repeat one token
  (" Sh jud jud jud jud"). "path" with the uniform baseline reaches the same rewards with prompts that differ.
"""
