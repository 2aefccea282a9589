"""Holdfast's own tables: one whose rows prove that everything before them was acknowledged, and one that is written to
in order to see whether that is possible."""

from __future__ import annotations

PROBE_TABLE = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.probe ("
    "id smallint unsigned NOT NULL PRIMARY KEY, "
    "at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
)

PROOF_SCHEMA = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.proof ("
    "id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, "
    "term bigint unsigned NOT NULL, "
    "serial bigint unsigned NOT NULL, "
    "at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
    PROBE_TABLE[-1],
)
"""Created at the first proof if it is missing; better created with the data directory: MariaDB cannot roll DDL back, if
a crash leaves the first proof pending."""
