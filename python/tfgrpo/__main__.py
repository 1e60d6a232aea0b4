"""`python -m tfgrpo` is `tfgrpo`."""

import sys

from tfgrpo.cli import main

sys.exit(main())
