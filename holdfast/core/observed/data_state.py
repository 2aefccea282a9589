"""When a new cluster is founded from empty data directories; see ``core/change/bootstrap.py`` for what comes then.

A data directory is initialised by its agent, with the accounts of all members, none of it in a binary log: so all of
them begin with the same tables and no GTID, as copies of one would, and nobody waits for an acknowledgement meanwhile.

**Nothing is ever founded beside data that exists.** A data directory may be initialised only where all of this holds:

1. *The store has no record* of the cluster, and it is the manager that leads by that store who decides.
2. *Every configured member answers.* One that does not may have the data that the others have lost, or may be the
   primary of a cluster of which this store knows nothing.
3. *No agent has obeyed anything yet.* Promise and record are on its disk before it obeys: who remembers either is, or
   was, a member of a cluster that exists (then ``holdfast store repair`` is the way).
4. *Every data directory is empty, or was made so by this very procedure* and has belonged to no cluster since
   (:attr:`Data.NEW`). With one that has data in it, nothing says that it is not the cluster's.
5. *No server runs.*

The agent looks once more at what is its own, 3, 4 and 5, before it makes anything: between a manager's look and its
command the world may change. It calls a data directory empty only if nothing was ever put there by a server, if there
is no binary log of it elsewhere either, and if no file system that belongs there is missing (a mount point of
/etc/fstab on which nothing is mounted looks empty, too).

What remains: all hosts have lost their data and what their agents remember, *and* the store has lost its record. Then
there is nothing left that a new cluster would be beside of.
"""

from __future__ import annotations

from enum import StrEnum


class Data(StrEnum):
    """What is in a member's data directory, as its agent sees it.

    USED: data, of whatever kind; or its agent has obeyed somebody. NEW: it was initialised to found a cluster, and has
    not been of one yet
    """

    USED = "used"
    EMPTY = "empty"
    NEW = "new"
