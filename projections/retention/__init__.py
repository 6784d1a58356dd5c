"""What may be deleted: retention rules, who still reads the log, days of journals, horizons of tables."""
