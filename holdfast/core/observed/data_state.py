"""When a new cluster is founded from empty data directories; ``core/change/bootstrap.py`` says what follows.

Each agent initialises its data directory, with the accounts of all members, and none of it in a binary log: so all
members begin with the same tables and no GTID, as copies of one would, and no commit waits for an acknowledgement
meanwhile.

**Nothing is ever founded beside data that exists.** A data directory may be initialised only if all of this holds:

1. *The store has no record* of the cluster, and the manager that leads by that store decides.
2. *Every configured member answers.* One that does not may have the data that the others have lost, or may be the
   primary of a cluster of which this store knows nothing.
3. *No agent has obeyed anything yet.* Promise and record are on its disk before it obeys: an agent that remembers
   either is, or was, a member of an existing cluster (then ``holdfast store repair`` is the way).
4. *Every data directory is empty, or was made so by this very procedure* and has belonged to no cluster since
   (:attr:`Data.NEW`). If one has data in it, that may be the cluster's.
5. *No server runs.*

The agent checks its own part, 3, 4 and 5, once more before it makes anything: between a manager's look and its command
the world may change. It calls a data directory empty only if no server ever put anything there, if no binary log of it
is elsewhere either, and if no file system that belongs there is missing (a mount point of /etc/fstab on which nothing
is mounted looks empty, too).

What remains: all hosts have lost their data and what their agents remember, *and* the store has lost its record. Then
nothing is left beside which a new cluster would be founded.
"""

from __future__ import annotations

from enum import StrEnum


class Data(StrEnum):
    """What is in a member's data directory, as its agent sees it.

    USED: data, of any kind; or its agent has obeyed a manager. NEW: it was initialised to found a cluster, and has
    belonged to none yet
    """

    USED = "used"
    EMPTY = "empty"
    NEW = "new"
