"""Holdfast: high availability for MySQL and MariaDB that loses no acknowledged transaction."""
