"""The record of a study: its folder, its runs, its database, and the copy in a storage."""
