"""Errors by which a server says that its data files are unusable: another start does not help, a copy of another
member's data does.

The rule: a server that ended twice in a row without having come up, and said so both times, is unfit:
``core/members/rejoin.py`` has it cloned, one at a time, from a member that lives, and after what only it has was saved
(``core/members/copying.py``).

Why that loses nothing: unfit data are not started, vote for no member, and are replaced only while another member is
the primary and lives; the agent refuses if it cannot be known what they hold, or if they may be the last copy
(``agent/clone/unique.py``). No member is elected or deposed because of it. Why twice: a file system that was not
mounted yet, or a moment without memory, gives the same words once.

Not included: errors about an option, a right, a lock, a version or a full disk, and a failed assertion, which may mean
anything.

Each was seen on MariaDB 10.11 or MySQL 9.7 (``test_server_unusable.py``), or stands in their messages beside one that
was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNUSABLE = re.compile(
    "|".join(
        (
            # the redo log
            r"Server was killed when InnoDB redo logging was disabled",
            r"Invalid (redo )?log header checksum",
            r"Failed to read header of the redo log file",
            r"Missing redo log file|Missing FILE_CHECKPOINT|Missing FILE_(CREATE|DELETE)",
            r"ib_logfile0 was not found",
            r"redo log file \S+ size \d+ is not a multiple of",
            r"redo log .*(is|appears) corrupted|Redo log corruption found",
            r"(Malformed log record|Corrupted page identifier) at",
            # tablespaces
            r"Header page consists of zero bytes in datafile",
            r"data file '\S+' has the wrong space ID",
            r"data file '\S+' is of a different size",
            r"Cannot apply log to .* of corrupted file",
            r"mentioned in the redo log is corrupted",
            r"Database page corruption (on disk )?or a failed (file )?read",
            r"File \./ibdata1: 'open' returned OS error",
            r"Creating system tablespace with existing redo log",
            r"not a valid aria control file",
            # the binary log, without which no prepared transaction can be decided
            r"Can't init tc log|Failed to open log \(file '\S+', errno 2\)",
            r"not found in binlog index, needed for recovery",
            r"critical recovery information .* was manually deleted after a crash",
        )
    ),
    re.IGNORECASE,
)


def unusable(errors: Iterable[str]) -> str:
    """The first of a server's errors that says that its data cannot be used, or "".

    :param errors: what it printed in one run that ended without having come up
    """
    return next((each for each in errors if _UNUSABLE.search(each)), "")
