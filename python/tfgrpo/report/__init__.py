"""Reports: statistics, `result.json`, `report.html`, the summary on a terminal; all read from the journal."""
