"""A prompt as files: its text, a copy for plain PEFT, a model card, and the way to the Hub and back."""
