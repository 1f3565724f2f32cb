"""Looking at data: episodes in Rerun, and one report of a whole store."""
