"""Compare enhancement methods picture by picture: matching, statistics, tables, figures, the report page."""
