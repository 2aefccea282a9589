"""What a crashed primary's binlog holds and the new primary lacks: found, judged, saved, cut."""
