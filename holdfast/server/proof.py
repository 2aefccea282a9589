"""The table whose rows prove that what came before them was acknowledged."""

from __future__ import annotations

PROOF_SCHEMA = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.proof ("
    "id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, "
    "term bigint unsigned NOT NULL, "
    "serial bigint unsigned NOT NULL, "
    "at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
)
"""Made at the first proof where it is missing; better made with the data directory: MariaDB cannot roll
DDL back, should the first proof be left pending by a crash."""
