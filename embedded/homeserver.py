"""Run Synapse, its modules loaded ahead; run as a script, never imported by us.

Loading takes longer than making PostgreSQL's data, so both are done side by side: a line on the standard input says
that the database is ready. If the input ends without one, our parent has given up.
"""

import gc
import sys

gc.disable()  # a sixth of the loading went to looking for garbage among what stays

from synapse.app.homeserver import main  # noqa: E402
from synapse.storage.databases import main as tables  # noqa: E402, F401

if __name__ == "__main__":
    gc.enable()
    if sys.stdin.readline():
        main()
