"""Run Synapse, its modules loaded ahead; run as a script, never imported by us.

Loading takes about as long as making PostgreSQL's data, so both are done side by side: a line on the standard input
says that the database is ready. If the input ends without one, our parent has given up.
"""

import sys

from synapse.app.homeserver import main
from synapse.storage.databases import main as tables

if __name__ == "__main__":
    assert tables  # noqa: S101  # loaded for its own sake
    if sys.stdin.readline():
        main()
