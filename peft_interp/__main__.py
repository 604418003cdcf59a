"""`python -m peft_interp`, the same as `peft-interp`."""

import sys

from peft_interp.cli import main

if __name__ == "__main__":
    sys.exit(main())
