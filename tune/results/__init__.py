"""The results of a study, from its files alone: tables, text, plots."""
