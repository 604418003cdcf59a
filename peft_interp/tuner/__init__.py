"""The PEFT method: config, prompt encoder, losses and the models that `get_peft_model` returns."""
