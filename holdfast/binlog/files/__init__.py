"""The files of a binlog or relay log, and what they show about their history."""
