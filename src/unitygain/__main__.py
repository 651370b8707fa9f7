"""``python -m unitygain`` is the command ``unitygain``."""

import os
import sys

from unitygain.cli import main

if __name__ == "__main__":
    # python -m puts the current folder first, where a stray json.py would hide the standard library's.
    if not sys.flags.safe_path and sys.path and os.path.realpath(sys.path[0]) == os.path.realpath("."):
        del sys.path[0]
    main()
