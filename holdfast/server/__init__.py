"""The database server on this host: all that differs between MariaDB and MySQL."""
