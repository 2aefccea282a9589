"""The database server on this host: everything that differs between MariaDB and MySQL."""
