"""Imported last of all by the server of forks: what it has imported is garbage in none of them.

It stays in memory that they share, because no collector goes through it.
"""

import gc

gc.freeze()
