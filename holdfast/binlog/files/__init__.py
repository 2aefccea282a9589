"""The files of a binlog or relay log, and what they say of their history."""
