"""Events of a binlog file, decoded."""
