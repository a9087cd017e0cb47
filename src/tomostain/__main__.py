"""``python -m tomostain`` is the same as ``tomostain``."""

import sys

from tomostain.cli import main

if __name__ == "__main__":
    sys.exit(main())
